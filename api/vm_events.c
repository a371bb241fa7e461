/* GET /events: what happened to all VMs of a caller, as it happens. */
#include "api/internal.h"

static int take_kind(struct api_events_query *query, const char *value, struct error *err)
{
    enum store_audit_kind kind;
    if (store_audit_kind_parse(value, &kind) < 0)
        return error_set(err, ERR_QUERY, 0, "kind: there are no events of this kind");
    query->kinds |= 1U << kind;
    return 0;
}

static int take_vm(struct api_events_query *query, const char *value, struct error *err)
{
    if (query->id[0] != '\0' || !id_vm_valid(value, strlen(value)))
        return error_set(err, ERR_QUERY, 0, "vm: give one VM's id");
    snprintf(query->id, sizeof(query->id), "%s", value);
    return 0;
}

static int take_follow(struct api_events_query *query, const char *value, struct error *err)
{
    query->once = strcmp(value, "false") == 0;
    return query->once || strcmp(value, "true") == 0
               ? 0
               : error_set(err, ERR_QUERY, 0, "follow: use true or false");
}

static int take_after(struct api_events_query *query, const char *name, const char *value,
                      enum error_code code, struct error *err)
{
    uint64_t number = 0;
    if (kv_number(name, value, 0, API_EVENT_MAX, &number, err) < 0) {
        err->code = code;
        return -1;
    }
    query->after = (int64_t)number;
    query->fresh = false;
    return 0;
}

static int take(struct api_events_query *query, const char *key, const char *value,
                struct error *err)
{
    if (strcmp(key, "kind") == 0)
        return take_kind(query, value, err);
    if (strcmp(key, "vm") == 0)
        return take_vm(query, value, err);
    if (strcmp(key, "follow") == 0)
        return take_follow(query, value, err);
    if (strcmp(key, "after") != 0 || !query->fresh)
        return error_set(err, ERR_QUERY, 0,
                         "events take after (once), vm (once), kind and follow only");
    return take_after(query, "after", value, ERR_QUERY, err);
}

static int parse(const struct api_request *request, struct api_events_query *ret, struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    const char *cursor = request->query, *last = request->last_event_id;
    int more = 0;
    *ret = (struct api_events_query){.fresh = true};
    if (!request->caller->admin)
        snprintf(ret->owner, sizeof(ret->owner), "%s", request->caller->name);
    while ((more = api_query_next(&cursor, key, value, err)) == 1)
        if (take(ret, key, value, err) < 0)
            return -1;
    if (more < 0)
        return -1;
    return last[0] == '\0' ? 0 : take_after(ret, "Last-Event-ID", last, ERR_BAD_REQUEST, err);
}

/* Who names an event knows what went before it. One that was never told, since the inventory is
 * another now, says nothing about what is in this one. */
static void place(struct api_events_query *query, const struct store_events_bounds *bounds)
{
    query->told = query->after;
    query->unknown = query->after > bounds->newest;
    if (query->fresh || query->after == 0 || query->unknown)
        query->told = bounds->newest;
    if (query->fresh)
        query->after = bounds->newest;
    else if (query->after == 0 || query->unknown)
        query->after = bounds->lost;
}

int api_events_watch(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct api_events_query query;
    struct store_events_bounds bounds;
    if (parse(request, &query, err) < 0 || store_events_bounds(api->store, &bounds, err) < 0)
        return -1;
    place(&query, &bounds);
    if (api_feed_watch(api->feed, &query, &response->stream, err) < 0)
        return -1;
    response->status = 200;
    response->content_type = "text/event-stream";
    return 0;
}
