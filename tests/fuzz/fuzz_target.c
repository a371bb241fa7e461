/* Request targets: paths, routes and queries; and the headers Repr-Digest and Range. */
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

static void digest(const char *header)
{
    uint8_t bytes[HASH_SIZE];
    struct error err = {0};
    if (api_digest_parse(header, bytes, &err) < 0)
        FUZZ_CHECK(err.code == ERR_BAD_REQUEST);
    else
        FUZZ_CHECK(strlen(header) >= 4 * HASH_SIZE / 3);
}

static void range(const char *header)
{
    int64_t offset = 0, length = 0;
    if (api_range_parse(header, 1000, &offset, &length) == API_RANGE_PART)
        FUZZ_CHECK(offset >= 0 && length > 0 && offset + length <= 1000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const methods[] = {"GET", "POST", "DELETE", "PUT", ""};
    cleanup_free char *raw = strndup((const char *)data, size);
    struct api_target target;
    struct error err = {0}, unmatched = {0};
    FUZZ_CHECK(raw != NULL);
    digest(raw);
    range(raw);
    if (api_target_parse(raw, &target, &err) < 0) {
        FUZZ_CHECK(err.code == ERR_BAD_REQUEST);
        return 0;
    }
    FUZZ_CHECK(target.path[0] == '/' && strchr(target.path, '%') == NULL);
    FUZZ_CHECK(strstr(target.path, "//") == NULL && strstr(target.path, "/../") == NULL);
    queries(target.query);
    size_t count;
    const struct api_route *routes = api_routes(&count);
    struct api_ids ids;
    char allow[32] = "";
    const char *method = methods[size % COUNT_OF(methods)];
    if (api_route_match(routes, count, method, target.path, &ids, allow, &unmatched) != NULL)
        FUZZ_CHECK((ids.id[0] == '\0' || id_vm_valid(ids.id, strlen(ids.id))) &&
                   (ids.exec[0] == '\0' || id_instance_valid(ids.exec)));
    else
        FUZZ_CHECK(unmatched.code != ERR_NONE);
    return 0;
}
