/* The table of routes: matching, and that openapi.yaml tells the same story (R01). */
#include "api/internal.h"

#include <criterion/criterion.h>

struct found {
    const struct api_route *route;
    enum error_code code;
    struct api_ids ids;
    char allow[32];
};

static struct found find(const char *method, const char *path)
{
    struct found found = {0};
    struct error err = {0};
    size_t count = 0;
    const struct api_route *routes = api_routes(&count);
    found.route = api_route_match(routes, count, method, path, &found.ids, found.allow, &err);
    found.code = err.code;
    return found;
}

Test(api_routes, match_by_method_and_shape)
{
    cr_assert(find("POST", "/vms").route->handler == api_vm_create);
    cr_assert(find("GET", "/vms").route->handler == api_vm_list);
    cr_assert(find("DELETE", "/vms/a_b-C9").route->handler == api_vm_delete);
    cr_assert(find("POST", "/vms/a/exec").route->handler == api_exec_create);
    cr_assert(find("GET", "/vms/a/isolation").route->handler == api_isolation_get);
    cr_assert(find("GET", "/vms/a/console").route->handler == api_console_get);
    cr_assert(find("GET", "/vms/a/audit").route->handler == api_audit_get);
    cr_assert(find("POST", "/admin/drain").route->handler == api_drain);
    cr_assert_str_eq(find("GET", "/vms/a_b-C9").ids.id, "a_b-C9");
    cr_assert_str_eq(find("POST", "/vms/exec/exec").ids.id, "exec");
    cr_assert_str_eq(find("GET", "/images").ids.id, "");
    cr_assert(find("DELETE", "/vms/a/execs/abcdefghij234567abcd").route->handler ==
              api_execs_delete);
    cr_assert_str_eq(find("GET", "/vms/a/execs/abcdefghij234567abcd/events").ids.exec,
                     "abcdefghij234567abcd");
    cr_assert_str_eq(find("GET", "/vms/a/execs").ids.exec, "");
}

Test(api_routes, unknown_paths_are_not_found)
{
    static const char *const paths[] = {"/",          "/vms/",        "/vm",         "/vms/a/",
                                        "/vms/a/b",   "/vms/a/exec/", "/vms/exec/b", "/Vms",
                                        "/vms/a/exe", "/healthz/"};
    for (size_t i = 0; i < COUNT_OF(paths); i++)
        cr_assert_eq(find("GET", paths[i]).code, ERR_ROUTE_UNKNOWN, "%s", paths[i]);
}

Test(api_routes, other_methods_learn_what_is_allowed)
{
    cr_assert_eq(find("PUT", "/vms").code, ERR_METHOD);
    cr_assert_str_eq(find("PUT", "/vms").allow, "POST, GET");
    cr_assert_str_eq(find("HEAD", "/vms/a").allow, "GET, DELETE, PATCH");
    cr_assert_str_eq(find("get", "/healthz").allow, "GET");
    cr_assert_eq(find("GET", "/vms/a/exec").code, ERR_METHOD);
}

Test(api_routes, R10_ids_in_paths_are_checked)
{
    char path[128] = "/vms/";
    memset(path + 5, 'a', 64);
    cr_assert_eq(find("GET", path).code, ERR_NONE);
    path[5 + 64] = 'a';
    cr_assert_eq(find("GET", path).code, ERR_ID_INVALID);
    cr_assert_str_eq(find("GET", path).ids.id, find("GET", path).route == NULL ? "" : "?");
    static const char *const bad[] = {"/vms/a.b", "/vms/...", "/vms/~", "/vms/a@b", "/vms/a:b"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(find("DELETE", bad[i]).code, ERR_ID_INVALID, "%s", bad[i]);
}

/* ---- the contract ---- */

/* Paths and methods of openapi.yaml by their indent: it is our own file, in our own style. */
static size_t contract(char operations[][128], size_t max)
{
    char path[48] = "";
    size_t count = 0;
    bool in_paths = false;
    for (const char *line = api_openapi_text; *line != '\0'; line += strcspn(line, "\n") + 1) {
        char word[48];
        if (line[0] != ' ' && line[0] != '\n')
            in_paths = strncmp(line, "paths:", 6) == 0;
        if (!in_paths)
            continue;
        if (strncmp(line, "  /", 3) == 0)
            snprintf(path, sizeof(path), "%.*s", (int)strcspn(line + 2, ":"), line + 2);
        else if (strncmp(line, "    ", 4) == 0 && line[4] != ' ' &&
                 sscanf(line, "    %40[a-z]:", word) == 1 && strcmp(word, "parameters") != 0)
            snprintf(operations[count++ % max], 128, "%s %s", word, path);
    }
    return count;
}

Test(api_routes, R01_openapi_has_every_route_and_no_other)
{
    char operations[API_ROUTES_MAX][128];
    size_t route_count = 0, count = contract(operations, API_ROUTES_MAX);
    const struct api_route *routes = api_routes(&route_count);
    cr_assert_eq(count, route_count);
    for (size_t i = 0; i < route_count; i++) {
        char wanted[128];
        bool found = false;
        snprintf(wanted, sizeof(wanted), "%s %s", routes[i].method, routes[i].path);
        for (size_t j = 0; j < count; j++)
            found = found || strcasecmp(operations[j], wanted) == 0;
        cr_assert(found, "%s is not in openapi.yaml", wanted);
    }
}

Test(api_routes, R01_openapi_is_served_as_it_is)
{
    const struct api_request request = {.query = ""};
    struct api_response response cleanup(api_response_release) = {0};
    struct error err = {0};
    cr_assert_eq(api_openapi(NULL, &request, &response, &err), 0);
    cr_assert_eq(response.body_len, strlen(api_openapi_text));
    cr_assert_eq(strncmp(response.body_static, "openapi: 3.1", 12), 0);
}

Test(api_routes, only_health_blocks_nobody_and_needs_nobody)
{
    size_t count = 0;
    const struct api_route *routes = api_routes(&count);
    for (size_t i = 0; i < count; i++) {
        bool health = strcmp(routes[i].path, "/healthz") == 0;
        bool public = health || strcmp(routes[i].path, "/readyz") == 0;
        cr_assert_eq(routes[i].pool == API_POOL_NONE, health, "%s", routes[i].path);
        cr_assert_eq(routes[i].role == API_ROLE_ANYBODY, public, "%s", routes[i].path);
        bool upload = strcmp(routes[i].method, "PUT") == 0;
        cr_assert_eq(api_route_uploads(&routes[i]), upload, "%s", routes[i].path);
        bool takes = strcmp(routes[i].method, "POST") == 0 || routes[i].handler == api_vm_patch;
        bool post = takes && routes[i].handler != api_cordon_set &&
                    routes[i].handler != api_vm_pause && routes[i].handler != api_vm_resume;
        bool admin =
            strncmp(routes[i].path, "/admin/", 7) == 0 || routes[i].handler == api_calls_get;
        cr_assert_eq(routes[i].body_max > 0, post || upload, "%s", routes[i].path);
        cr_assert_eq(routes[i].role == API_ROLE_ADMIN, admin, "%s", routes[i].path);
    }
}
