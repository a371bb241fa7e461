/* GET /vms/{id}/execs/{eid}/events: what a command writes, as it writes it. An event's id is the place
 * of the byte after it in all that the command ever wrote, so that who was cut off goes on at exactly
 * the next one; the last one's is "end". */
#include "api/internal.h"

struct reader {
    struct api *api;
    struct vmm_exec *exec; /* a reference */
    uint64_t at;
    struct api_event event;
};

/* The next event. API_STREAM_WAIT: there is none yet. 1: there is. */
static ssize_t next_event(void *context, struct waker *waker)
{
    struct reader *reader = context;
    char piece[API_EVENT_PIECE], id[API_EVENT_ID_SIZE];
    size_t len = 0;
    uint64_t from = reader->at;
    struct vmm_exec_record record;
    enum vmm_exec_news news =
        vmm_exec_read(reader->exec, &reader->at, piece, sizeof(piece), &len, &record, waker);
    snprintf(id, sizeof(id), "%llu", (unsigned long long)reader->at);
    int result = 0;
    switch (news) {
    case VMM_EXEC_NOTHING:
        return API_STREAM_WAIT;
    case VMM_EXEC_STDOUT:
        api_event_bytes(&reader->event, "stdout", id, piece, len);
        break;
    case VMM_EXEC_STDERR:
        api_event_bytes(&reader->event, "stderr", id, piece, len);
        break;
    case VMM_EXEC_GAP:
        result = api_event_gap(&reader->event, id, true, reader->at - from);
        break;
    case VMM_EXEC_END:
        result = api_event_json(&reader->event, "end", API_EVENT_END,
                                api_exec_json(reader->api, NULL, &record, false));
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
    vmm_exec_unlisten(reader->exec, waker);
    free(reader);
}

/* 1: it was told all there is. */
static int parse_place(const char *id, const struct vmm_exec_record *record, uint64_t *ret,
                       struct error *err)
{
    struct error inner = {0};
    *ret = 0;
    if (id[0] == '\0')
        return 0;
    if (strcmp(id, API_EVENT_END) == 0 && record->state != VMM_EXEC_RUNNING)
        return 1;
    return kv_number("Last-Event-ID", id, 0, record->output_to, ret, &inner) == 0
               ? 0
               : error_set(err, ERR_BAD_REQUEST, 0,
                           "Last-Event-ID: this command has sent no event with this id");
}

int api_execs_events(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct vmm_exec_key key;
    struct vmm_exec_record record;
    uint64_t at = 0;
    if (api_exec_key(api, request, &key, err) < 0 || vmm_exec_get(api->vmm, &key, &record, err) < 0)
        return -1;
    int told = parse_place(request->last_event_id, &record, &at, err);
    if (told < 0)
        return -1;
    if (told > 0) { /* by which browsers know that they need not come again */
        response->status = 204;
        return 0;
    }
    struct reader *reader = calloc(1, sizeof(*reader));
    if (reader == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a stream");
    *reader = (struct reader){.api = api, .at = at};
    if (vmm_exec_listen(api->vmm, &key, &reader->exec, err) < 0) {
        free(reader);
        return -1;
    }
    return api_respond_events(response, read_events, close_events, reader);
}
