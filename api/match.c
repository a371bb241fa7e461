/* From method and path to a route. */
#include "api/internal.h"

/* True when `path` has the shape of `pattern`; {id}'s text is then [*ret_id, +*ret_len). */
static bool shape_matches(const char *pattern, const char *path, const char **ret_id,
                          size_t *ret_len)
{
    static const char hole[] = "{id}";
    const char *at = strstr(pattern, hole);
    if (at == NULL)
        return strcmp(pattern, path) == 0;
    size_t before = (size_t)(at - pattern);
    if (strncmp(pattern, path, before) != 0)
        return false;
    size_t len = strcspn(path + before, "/");
    if (len == 0 || strcmp(at + sizeof(hole) - 1, path + before + len) != 0)
        return false;
    *ret_id = path + before;
    *ret_len = len;
    return true;
}

static int copy_id(const char *id, size_t len, char out[static ID_VM_MAX + 1], struct error *err)
{
    if (len > ID_VM_MAX)
        return error_set(err, ERR_ID_INVALID, 0, "the id in the path has %zu bytes; at most %d",
                         len, ID_VM_MAX);
    memcpy(out, id, len);
    out[len] = '\0';
    if (!id_vm_valid(out, len))
        return error_set(err, ERR_ID_INVALID, 0,
                         "the id in the path may only have A-Z a-z 0-9 _ -");
    return 0;
}

const struct api_route *api_route_match(const struct api_route *routes, size_t count,
                                        const char *method, const char *path,
                                        char id[static ID_VM_MAX + 1], char allow[static 32],
                                        struct error *err)
{
    const struct api_route *found = NULL;
    const char *text = NULL;
    size_t len = 0, allow_len = 0;
    allow[0] = id[0] = '\0';
    for (size_t i = 0; i < count; i++) {
        if (!shape_matches(routes[i].path, path, &text, &len))
            continue;
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
    else if (text != NULL && copy_id(text, len, id, err) < 0)
        found = NULL;
    return found;
}
