/* From method and path to a route. */
#include "api/internal.h"

struct span {
    const char *at; /* NULL: the route has none */
    size_t len;
};

struct spans {
    struct span id, exec;
};

/* The hole at which the pattern stands, which is then passed; NULL: it stands at none. */
static struct span *enter_hole(const char **pattern, struct spans *spans)
{
    static const char id[] = "{id}", exec[] = "{eid}";
    if (strncmp(*pattern, id, sizeof(id) - 1) == 0) {
        *pattern += sizeof(id) - 1;
        return &spans->id;
    }
    if (strncmp(*pattern, exec, sizeof(exec) - 1) == 0) {
        *pattern += sizeof(exec) - 1;
        return &spans->exec;
    }
    return NULL;
}

/* True when `path` has the shape of `pattern`. */
static bool shape_matches(const char *pattern, const char *path, struct spans *ret)
{
    *ret = (struct spans){0};
    while (*pattern != '\0') {
        struct span *hole = enter_hole(&pattern, ret);
        if (hole != NULL) {
            *hole = (struct span){path, strcspn(path, "/")};
            if (hole->len == 0)
                return false;
            path += hole->len;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return *path == '\0';
}

static int copy_id(struct span span, char out[static ID_VM_MAX + 1], struct error *err)
{
    if (span.len > ID_VM_MAX)
        return error_set(err, ERR_ID_INVALID, 0, "the id in the path has %zu bytes; at most %d",
                         span.len, ID_VM_MAX);
    memcpy(out, span.at, span.len);
    out[span.len] = '\0';
    if (!id_vm_valid(out, span.len))
        return error_set(err, ERR_ID_INVALID, 0,
                         "the id in the path may only have A-Z a-z 0-9 _ -");
    return 0;
}

static int copy_exec(struct span span, char out[static ID_INSTANCE_SIZE], struct error *err)
{
    if (span.len == ID_INSTANCE_LEN)
        memcpy(out, span.at, span.len);
    out[span.len == ID_INSTANCE_LEN ? span.len : 0] = '\0';
    if (!id_instance_valid(out))
        return error_set(err, ERR_ID_INVALID, 0,
                         "a command's id has %d of a-z and 2-7, as the service gave it",
                         ID_INSTANCE_LEN);
    return 0;
}

static int copy_ids(const struct spans *spans, struct api_ids *ret, struct error *err)
{
    if (spans->id.at != NULL && copy_id(spans->id, ret->id, err) < 0)
        return -1;
    return spans->exec.at != NULL ? copy_exec(spans->exec, ret->exec, err) : 0;
}

const struct api_route *api_route_match(const struct api_route *routes, size_t count,
                                        const char *method, const char *path, struct api_ids *ret,
                                        char allow[static 32], struct error *err)
{
    const struct api_route *found = NULL;
    struct spans spans, last = {0};
    size_t allow_len = 0;
    allow[0] = '\0';
    *ret = (struct api_ids){0};
    for (size_t i = 0; i < count; i++) {
        if (!shape_matches(routes[i].path, path, &spans))
            continue;
        last = spans;
        int more = snprintf(allow + allow_len, 32 - allow_len, "%s%s", allow_len > 0 ? ", " : "",
                            routes[i].method);
        if (more > 0 && (size_t)more < 32 - allow_len)
            allow_len += (size_t)more;
        if (strcmp(routes[i].method, method) == 0)
            found = &routes[i];
    }
    if (allow_len == 0)
        error_set(err, ERR_ROUTE_UNKNOWN, 0,
                  "there is nothing at this path; GET /openapi.yaml lists what there is");
    else if (found == NULL)
        error_set(err, ERR_METHOD, 0, "this path takes %s", allow);
    else if (copy_ids(&last, ret, err) < 0)
        found = NULL;
    return found;
}

int api_role_check(const struct api_route *route, const struct caller *caller, struct error *err)
{
    if (route->role == API_ROLE_ADMIN && !caller->admin)
        return error_set(err, ERR_FORBIDDEN, 0,
                         "this route is for administrators: root, or a token of the role `admin`");
    if (route->role == API_ROLE_LOCAL && !caller->admin && !caller->local)
        return error_set(err, ERR_FORBIDDEN, 0,
                         "this tells of all tenants: ask with a token of the role `admin`, or on a "
                         "socket of the host");
    if (route->role != API_ROLE_ANYBODY && caller->reader && strcmp(route->method, "GET") != 0)
        return error_set(err, ERR_FORBIDDEN, 0,
                         "the token `%s` may look and change nothing: this needs the role "
                         "`operate`",
                         caller->token);
    return 0;
}
