/* GET /vms/{id}/console?follow=true: what guest and VMM write, as they write it. An event's id is the
 * place of the byte after it, in what this run of the service has seen of this machine, which the id
 * names too: places of another say nothing. The last one's is "end". */
#include "api/internal.h"

struct reader {
    struct vmm_follower *follower;
    struct vmm_followed info;
    uint64_t at;
    char vm[ID_VM_MAX + 1];
    bool strange; /* a gap of unknown length is to be told first */
    struct api_event event;
};

static cJSON *end_json(const struct reader *reader, const struct vmm_console_end *end)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    if (json_add_string(json, "id", reader->vm) < 0 ||
        json_add_string(json, "instance", reader->info.instance) < 0 ||
        json_add_string(json, "state", store_state_name(end->state)) < 0 ||
        json_add_string(json, "reason", end->reason) < 0 ||
        json_add_string(json, "message", end->message) < 0)
        return NULL;
    return TAKE_PTR(json);
}

static void put_id(const struct reader *reader, char out[static API_EVENT_ID_SIZE])
{
    snprintf(out, API_EVENT_ID_SIZE, "%s.%llu", reader->info.run, (unsigned long long)reader->at);
}

/* The next event. API_STREAM_WAIT: there is none yet. 1: there is. */
static ssize_t next_event(void *context, struct waker *waker)
{
    struct reader *reader = context;
    char piece[API_EVENT_PIECE], id[API_EVENT_ID_SIZE];
    size_t len = 0;
    uint64_t from = reader->at;
    struct vmm_console_end end;
    int result = 0;
    if (reader->strange) {
        reader->strange = false;
        put_id(reader, id);
        return api_event_gap(&reader->event, id, false, 0) < 0 ? API_STREAM_BROKEN : 1;
    }
    enum vmm_console_news news =
        vmm_console_read(reader->follower, &reader->at, piece, sizeof(piece), &len, &end, waker);
    put_id(reader, id);
    switch (news) {
    case VMM_CONSOLE_NOTHING:
        return API_STREAM_WAIT;
    case VMM_CONSOLE_BYTES:
        api_event_bytes(&reader->event, "console", id, piece, len);
        break;
    case VMM_CONSOLE_GAP:
        result = api_event_gap(&reader->event, id, true, reader->at - from);
        break;
    case VMM_CONSOLE_END:
        result = api_event_json(&reader->event, "end", API_EVENT_END, end_json(reader, &end));
        break;
    }
    return result < 0 ? API_STREAM_BROKEN : 1;
}

static ssize_t read_events(void *context, char *out, size_t size, struct waker *waker)
{
    struct reader *reader = context;
    return api_event_read(&reader->event, next_event, reader, out, size, waker);
}

static void close_events(void *context, struct waker *waker)
{
    struct reader *reader = context;
    vmm_console_unfollow(reader->follower, waker);
    free(reader);
}

/* An id of another run, or of a VM that had this id before, is a place before all there is. */
static int take_place(struct reader *reader, const char *id, struct error *err)
{
    struct error inner = {0};
    char run[VMM_CONSOLE_RUN_SIZE];
    if (id[0] == '\0')
        return 0;
    if (strlen(id) <= sizeof(run) || id[sizeof(run) - 1] != '.' ||
        kv_number("Last-Event-ID", id + sizeof(run), 0, UINT64_MAX, &reader->at, &inner) < 0)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "Last-Event-ID: no console has sent an event with this id");
    memcpy(run, id, sizeof(run) - 1);
    run[sizeof(run) - 1] = '\0';
    if (strcmp(run, reader->info.run) != 0) {
        reader->at = 0;
        reader->strange = true;
    }
    return reader->at <= reader->info.to
               ? 0
               : error_set(err, ERR_BAD_REQUEST, 0,
                           "Last-Event-ID: this console has sent no event with this id");
}

int api_console_follow(struct api *api, const struct api_request *request,
                       struct api_response *response, struct error *err)
{
    struct store_vm vm;
    if (api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    if (strcmp(request->last_event_id, API_EVENT_END) == 0) {
        response->status = 204; /* by which browsers know that they need not come again */
        return 0;
    }
    struct reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a stream");
    memcpy(reader->vm, vm.id, sizeof(reader->vm));
    if (vmm_console_follow(api->vmm, vm.owner, vm.id, &reader->follower, &reader->info, err) < 0) {
        free(reader);
        return -1;
    }
    if (take_place(reader, request->last_event_id, err) < 0) {
        close_events(reader, NULL);
        return -1;
    }
    return api_respond_events(response, read_events, close_events, reader);
}
