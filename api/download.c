/*
 * A file on its way from a VM to a client. The handler's worker goes on after the answer has begun: it
 * reads from the guest into a ring, and waits while that is full. The connection's thread takes from
 * the ring, and is woken when there is something again. So the client's pace is the guest's.
 */
#include "api/internal.h"

#include <pthread.h>

enum { RING = 128 * 1024 };

struct api_download {
    pthread_mutex_t lock; /* guards all below but `file` */
    pthread_cond_t room;
    struct waker *waiting;
    unsigned refs;
    size_t at, len;        /* what waits in the ring */
    bool ended;            /* all of it came, */
    bool broken;           /* or will not */
    bool closed;           /* nobody takes any more */
    struct vmm_file *file; /* owned; the worker's alone */
    int64_t offset, length;
    uint8_t ring[RING];
};

static void unref(struct api_download *download)
{
    pthread_mutex_lock(&download->lock);
    bool last = --download->refs == 0;
    pthread_mutex_unlock(&download->lock);
    if (!last)
        return;
    pthread_cond_destroy(&download->room);
    pthread_mutex_destroy(&download->lock);
    free(download);
}

/* ---- the worker's side ---- */

static size_t put(struct api_download *download, const uint8_t *data, size_t len)
{
    size_t room = RING - download->len, put = len < room ? len : room;
    size_t to = (download->at + download->len) % RING, first = RING - to;
    first = first < put ? first : put;
    memcpy(download->ring + to, data, first);
    memcpy(download->ring, data + first, put - first);
    download->len += put;
    if (put > 0)
        waker_wake_all(&download->waiting);
    return put;
}

static int write_ring(void *context, const void *data, size_t len, struct error *err)
{
    struct api_download *download = context;
    pthread_mutex_lock(&download->lock);
    for (size_t at = 0; at < len && !download->closed;) {
        at += put(download, (const uint8_t *)data + at, len - at);
        while (download->len == RING && !download->closed)
            pthread_cond_wait(&download->room, &download->lock);
    }
    bool closed = download->closed;
    pthread_mutex_unlock(&download->lock);
    return closed ? error_set(err, ERR_BAD_REQUEST, 0, "the client went away") : 0;
}

/* As `later`: the answer has begun. Its client sees an error as an end that comes too early. */
static void pump(void *context)
{
    struct api_download *download = context;
    const struct vsock_sink sink = {write_ring, download};
    struct error err = {0};
    int result =
        vmm_file_read(TAKE_PTR(download->file), download->offset, download->length, &sink, &err);
    pthread_mutex_lock(&download->lock);
    download->ended = result == 0;
    download->broken = result < 0;
    waker_wake_all(&download->waiting);
    pthread_mutex_unlock(&download->lock);
    unref(download);
}

/* ---- the connection's side ---- */

static size_t get(struct api_download *download, char *out, size_t size)
{
    size_t got = size < download->len ? size : download->len, first = RING - download->at;
    first = first < got ? first : got;
    memcpy(out, download->ring + download->at, first);
    memcpy(out + first, download->ring, got - first);
    download->at = (download->at + got) % RING;
    download->len -= got;
    pthread_cond_signal(&download->room);
    return got;
}

static ssize_t read_ring(void *context, char *out, size_t size, struct waker *waker)
{
    struct api_download *download = context;
    ssize_t result = API_STREAM_WAIT;
    pthread_mutex_lock(&download->lock);
    if (download->len > 0)
        result = (ssize_t)get(download, out, size);
    else if (download->ended)
        result = API_STREAM_END;
    else if (download->broken)
        result = API_STREAM_BROKEN;
    else
        waker_add(&download->waiting, waker);
    pthread_mutex_unlock(&download->lock);
    return result;
}

static void close_ring(void *context, struct waker *waker)
{
    struct api_download *download = context;
    pthread_mutex_lock(&download->lock);
    waker_remove(waker);
    download->closed = true;
    pthread_cond_signal(&download->room);
    pthread_mutex_unlock(&download->lock);
    unref(download);
}

int api_download_begin(struct vmm_file *file, int64_t offset, int64_t length,
                       struct api_response *response, struct error *err)
{
    struct api_download *download = malloc(sizeof(*download));
    if (download == NULL) {
        vmm_file_close(file);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a file");
    }
    memset(download, 0, offsetof(struct api_download, ring));
    pthread_mutex_init(&download->lock, NULL);
    pthread_cond_init(&download->room, NULL);
    download->refs = 2;
    download->file = file;
    download->offset = offset;
    download->length = length;
    response->status = 200;
    response->content_type = length < 0 ? "application/x-tar" : "application/octet-stream";
    response->stream = (struct api_stream){.read = read_ring,
                                           .close = close_ring,
                                           .context = download,
                                           .sized = length >= 0,
                                           .size = length < 0 ? 0 : (uint64_t)length};
    response->later = pump;
    response->later_context = download;
    return 0;
}
