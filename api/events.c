/* What server-sent events have in common: how one is written, and sent in parts. */
#include "api/internal.h"

static void put(struct api_event *event, const char *name, const char *id)
{
    event->sent = 0;
    event->last = strcmp(id, API_EVENT_END) == 0;
    event->len =
        (size_t)snprintf(event->text, sizeof(event->text), "event: %s\nid: %s\ndata: ", name, id);
}

static void finish(struct api_event *event)
{
    event->text[event->len++] = '\n';
    event->text[event->len++] = '\n';
}

void api_event_bytes(struct api_event *event, const char *name, const char *id, const char *piece,
                     size_t len)
{
    put(event, name, id);
    event->len += api_base64_encode(piece, len, event->text + event->len);
    finish(event);
}

int api_event_json(struct api_event *event, const char *name, const char *id, cJSON *json)
{
    cleanup_free char *text = json != NULL ? json_print(json) : NULL;
    cJSON_Delete(json);
    put(event, name, id);
    size_t len = text != NULL ? strlen(text) : sizeof(event->text);
    if (len > sizeof(event->text) - event->len - 2)
        return -1;
    memcpy(event->text + event->len, text, len);
    event->len += len;
    finish(event);
    return 0;
}

int api_event_gap(struct api_event *event, const char *id, bool known, uint64_t dropped)
{
    cJSON *json = cJSON_CreateObject();
    int result = known ? json_add_number(json, "dropped_bytes", (double)dropped)
                       : json_add(json, "dropped_bytes", cJSON_CreateNull());
    if (result < 0) {
        cJSON_Delete(json);
        json = NULL;
    }
    return api_event_json(event, "gap", id, json);
}

ssize_t api_event_read(struct api_event *event, ssize_t (*next)(void *context, struct waker *waker),
                       void *context, char *out, size_t size, struct waker *waker)
{
    if (event->sent == event->len) {
        ssize_t result = event->last ? API_STREAM_END : next(context, waker);
        if (result != 1)
            return result;
    }
    size_t left = event->len - event->sent;
    size_t len = left < size ? left : size;
    memcpy(out, event->text + event->sent, len);
    event->sent += len;
    return (ssize_t)len;
}

int api_respond_events(struct api_response *response,
                       ssize_t (*read)(void *context, char *out, size_t size, struct waker *waker),
                       void (*close)(void *context, struct waker *waker), void *context)
{
    response->status = 200;
    response->content_type = "text/event-stream";
    response->stream =
        (struct api_stream){.read = read, .close = close, .context = context, .events = true};
    return 0;
}
