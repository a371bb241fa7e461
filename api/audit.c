/* GET /vms/{id}/audit: what happened to a VM that matters for its isolation, also after its end. */
#include "api/internal.h"

static int take(struct api_seq_query *query, uint32_t max, const char *key, const char *value,
                unsigned *seen, struct error *err)
{
    bool is_limit = strcmp(key, "limit") == 0;
    unsigned bit = is_limit ? 1 : 2;
    uint64_t number = 0;
    if (!is_limit && strcmp(key, "cursor") != 0)
        return error_set(err, ERR_QUERY, 0, "an audit takes limit and cursor only");
    if (*seen & bit)
        return error_set(err, ERR_QUERY, 0, "%s: give it once", is_limit ? "limit" : "cursor");
    *seen |= bit;
    if (kv_number(is_limit ? "limit" : "cursor", value, 1, is_limit ? max : INT64_MAX, &number,
                  err) < 0) {
        err->code = ERR_QUERY;
        return -1;
    }
    if (is_limit)
        query->limit = (uint32_t)number;
    else
        query->after = (int64_t)number;
    return 0;
}

int api_seq_query_parse(const char *text, uint32_t usual, uint32_t max, struct api_seq_query *ret,
                        struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    unsigned seen = 0;
    const char *cursor = text != NULL ? text : "";
    *ret = (struct api_seq_query){.limit = usual};
    for (int more; (more = api_query_next(&cursor, key, value, err)) != 0;)
        if (more < 0 || take(ret, max, key, value, &seen, err) < 0)
            return -1;
    return 0;
}

struct page {
    struct store_audit *entries; /* owned */
    size_t count;
    bool more;
};

static void cleanup_page(struct page *page)
{
    free(page->entries);
}

/* As with every route: a VM of the caller's own first, for an admin then anybody's. */
static int find(struct api *api, const struct api_request *request,
                const struct api_seq_query *query, struct page *ret, struct error *err)
{
    struct store_audit_filter filter = {.owner = request->caller->name,
                                        .id = request->id,
                                        .after = query->after,
                                        .limit = query->limit};
    struct error own = {0};
    if (store_audit_list(api->store, &filter, &ret->entries, &ret->count, &ret->more, &own) == 0)
        return 0;
    if (own.code != ERR_VM_UNKNOWN || !request->caller->admin) {
        *err = own;
        return -1;
    }
    filter.owner = NULL;
    return store_audit_list(api->store, &filter, &ret->entries, &ret->count, &ret->more, err);
}

cJSON *api_audit_json(const struct store_audit *entry)
{
    char at[25];
    cJSON *detail = NULL;
    struct error ignored = {0};
    clock_format(entry->wall_ms, at);
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_parse(entry->detail, strlen(entry->detail), &detail, &ignored) < 0 ||
        json_add(json, "detail", detail) < 0 ||
        json_add_number(json, "seq", (double)entry->seq) < 0 ||
        json_add_string(json, "at", at) < 0 ||
        json_add_string(json, "instance", entry->instance) < 0 ||
        json_add_string(json, "id", entry->id) < 0 ||
        json_add_string(json, "owner", entry->owner) < 0 ||
        json_add_string(json, "kind", store_audit_kind_name(entry->kind)) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static cJSON *entry_json(const void *entry)
{
    return api_audit_json(entry);
}

int api_audit_get(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    struct api_seq_query query;
    char next[24] = "";
    cleanup(cleanup_page) struct page page = {0};
    if (api_seq_query_parse(request->query, STORE_AUDIT_VM_MAX, STORE_AUDIT_VM_MAX, &query, err) <
            0 ||
        find(api, request, &query, &page, err) < 0)
        return -1;
    if (page.more)
        snprintf(next, sizeof(next), "%lld", (long long)page.entries[page.count - 1].seq);
    const struct api_list list = {"entries", page.entries, page.count, sizeof(*page.entries),
                                  entry_json};
    if (api_respond_json(response, 200, api_page_json(&list, page.more ? next : NULL), err) < 0)
        return -1;
    if (page.more)
        snprintf(response->link, sizeof(response->link),
                 "</vms/%s/audit?limit=%u&cursor=%s>; rel=\"next\"", request->id, query.limit,
                 next);
    return 0;
}
