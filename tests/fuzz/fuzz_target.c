/* Request targets: paths, routes and queries. */
#include "api/internal.h"
#include "fuzz.h"

static void queries(const char *query)
{
    struct api_list_query list;
    struct error err = {0}, none = {0};
    if (api_list_query_parse(query, &list, &err) == 0)
        FUZZ_CHECK(list.limit >= 1 && list.limit <= 500);
    else
        FUZZ_CHECK(err.code == ERR_QUERY);
    bool empty = query[strspn(query, "&")] == '\0';
    FUZZ_CHECK((api_query_none(query, &none) < 0) == !empty);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "POST", "DELETE", "PUT", ""};
    cleanup_free char *raw = strndup((const char *)data, size);
    struct api_target target;
    struct error err = {0}, unmatched = {0};
    FUZZ_CHECK(raw != NULL);
    if (api_target_parse(raw, &target, &err) < 0) {
        FUZZ_CHECK(err.code == ERR_BAD_REQUEST);
        return 0;
    }
    FUZZ_CHECK(target.path[0] == '/' && strchr(target.path, '%') == NULL);
    FUZZ_CHECK(strstr(target.path, "//") == NULL && strstr(target.path, "/../") == NULL);
    queries(target.query);
    size_t count;
    const struct api_route *routes = api_routes(&count);
    char id[ID_VM_MAX + 1] = "", allow[32] = "";
    const char *method = methods[size % COUNT_OF(methods)];
    if (api_route_match(routes, count, method, target.path, id, allow, &unmatched) != NULL)
        FUZZ_CHECK(id[0] == '\0' || id_vm_valid(id, strlen(id)));
    else
        FUZZ_CHECK(unmatched.code != ERR_NONE);
    return 0;
}
