/* GET /audit: who asked for what change, and what came of it. */
#include "api/internal.h"

struct page {
    struct store_call *calls; /* owned */
    size_t count;
    bool more;
};

static void cleanup_page(struct page *page)
{
    free(page->calls);
}

/* "": null. */
static int add_word(cJSON *json, const char *name, const char *word)
{
    return json_add_string(json, name, word[0] != '\0' ? word : NULL);
}

static cJSON *call_json(const void *item)
{
    const struct store_call *call = item;
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_number(json, "seq", (double)call->seq) < 0 ||
        api_add_time(json, "at", call->wall_ms) < 0 || add_word(json, "caller", call->caller) < 0 ||
        add_word(json, "token", call->token) < 0 ||
        json_add_string(json, "request_id", call->request_id) < 0 ||
        json_add_string(json, "method", call->method) < 0 ||
        add_word(json, "route", call->route) < 0 || add_word(json, "path", call->path) < 0 ||
        add_word(json, "vm", call->vm) < 0 || json_add_number(json, "status", call->status) < 0 ||
        add_word(json, "code", call->code) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

/* What was answered before this was asked is in it. */
int api_calls_get(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    struct api_seq_query query;
    char next[24] = "";
    cleanup(cleanup_page) struct page page = {0};
    if (api_seq_query_parse(request->query, API_PAGE_DEFAULT, STORE_PAGE_MAX, &query, err) < 0)
        return -1;
    api_calls_flush(api->calls);
    if (store_calls_list(api->store, query.after, query.limit, &page.calls, &page.count, &page.more,
                         err) < 0)
        return -1;
    if (page.more)
        snprintf(next, sizeof(next), "%lld", (long long)page.calls[page.count - 1].seq);
    const struct api_list list = {"entries", page.calls, page.count, sizeof(*page.calls),
                                  call_json};
    if (api_respond_json(response, 200, api_page_json(&list, page.more ? next : NULL), err) < 0)
        return -1;
    if (page.more)
        snprintf(response->link, sizeof(response->link),
                 "</audit?limit=%u&cursor=%s>; rel=\"next\"", query.limit, next);
    return 0;
}
