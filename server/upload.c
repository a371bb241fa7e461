/*
 * A body on its way from a connection to a worker: a ring between two threads. The connection is
 * suspended while the ring is full, the worker waits while it is empty. How long a client may take is
 * counted anew with every STEP that came, so that one byte now and then does not keep a worker.
 */
#include "server/internal.h"

enum { RING = 128 * 1024, STEP = 64 * 1024 };

struct server_upload {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t came;
    struct MHD_Connection *connection;
    struct server_deadlines *deadlines;
    struct server_watch *watch;
    int patience_ms;
    uint64_t left_max; /* bytes that may still come */
    size_t since_armed;
    size_t at, len; /* what waits in the ring */
    bool ended;     /* all of it came */
    bool broken;    /* the rest will not come */
    bool too_large; /* it is more than there may be */
    bool closed;    /* nobody reads any more: what comes is dropped */
    bool suspended; /* the connection waits for room */
    uint8_t ring[RING];
};

struct server_upload *server_upload_new(struct server_deadlines *deadlines,
                                        struct MHD_Connection *connection, int patience_ms,
                                        uint64_t max)
{
    struct server_upload *upload = malloc(sizeof(*upload));
    if (upload == NULL)
        return NULL;
    memset(upload, 0, offsetof(struct server_upload, ring));
    upload->connection = connection;
    upload->deadlines = deadlines;
    upload->watch = server_watch_of(connection);
    upload->patience_ms = patience_ms;
    upload->left_max = max;
    pthread_mutex_init(&upload->lock, NULL);
    pthread_cond_init(&upload->came, NULL);
    return upload;
}

void server_upload_free(struct server_upload *upload)
{
    if (upload == NULL)
        return;
    pthread_cond_destroy(&upload->came);
    pthread_mutex_destroy(&upload->lock);
    free(upload);
}

/* ---- the connection's side ---- */

static void arm(struct server_upload *upload, int ms)
{
    server_deadlines_arm(upload->deadlines, upload->watch, ms, true);
    upload->since_armed = 0;
}

static size_t take(struct server_upload *upload, const char *data, size_t size)
{
    size_t room = RING - upload->len, taken = size < room ? size : room;
    size_t to = (upload->at + upload->len) % RING, first = RING - to;
    first = first < taken ? first : taken;
    memcpy(upload->ring + to, data, first);
    memcpy(upload->ring, data + first, taken - first);
    upload->len += taken;
    return taken;
}

bool server_upload_put(struct server_upload *upload, const char *data, size_t *size)
{
    enum { DROPPED_MAX = 256 * 1024 }; /* of what is too large: then it is cut off */
    pthread_mutex_lock(&upload->lock);
    upload->too_large = upload->too_large || *size > upload->left_max;
    bool dropped = upload->closed || upload->broken || upload->too_large;
    size_t taken = dropped ? *size : take(upload, data, *size);
    bool goes_on = !upload->too_large || upload->since_armed <= DROPPED_MAX;
    upload->left_max -= upload->too_large ? 0 : taken;
    upload->since_armed += taken;
    *size -= taken;
    if (*size > 0) {
        arm(upload, 0); /* it is our turn */
        upload->suspended = true;
        MHD_suspend_connection(upload->connection);
    } else if (upload->since_armed >= STEP && !upload->too_large) {
        arm(upload, upload->patience_ms);
    }
    pthread_cond_signal(&upload->came);
    pthread_mutex_unlock(&upload->lock);
    return goes_on;
}

void server_upload_end(struct server_upload *upload)
{
    pthread_mutex_lock(&upload->lock);
    upload->ended = true;
    pthread_cond_signal(&upload->came);
    pthread_mutex_unlock(&upload->lock);
}

bool server_upload_break(struct server_upload *upload)
{
    pthread_mutex_lock(&upload->lock);
    bool suspended = upload->suspended;
    upload->suspended = false;
    upload->broken = true;
    pthread_cond_signal(&upload->came);
    pthread_mutex_unlock(&upload->lock);
    return suspended;
}

/* ---- the worker's side ---- */

static void resume(struct server_upload *upload)
{
    if (!upload->suspended)
        return;
    upload->suspended = false;
    arm(upload, upload->patience_ms);
    MHD_resume_connection(upload->connection);
}

static size_t give(struct server_upload *upload, uint8_t *data, size_t size)
{
    size_t given = size < upload->len ? size : upload->len;
    size_t first = RING - upload->at;
    first = first < given ? first : given;
    memcpy(data, upload->ring + upload->at, first);
    memcpy(data + first, upload->ring, given - first);
    upload->at = (upload->at + given) % RING;
    upload->len -= given;
    return given;
}

ssize_t server_upload_read(void *context, void *data, size_t size, struct error *err)
{
    struct server_upload *upload = context;
    ssize_t result = -1;
    pthread_mutex_lock(&upload->lock);
    while (upload->len == 0 && !upload->ended && !upload->broken && !upload->too_large)
        pthread_cond_wait(&upload->came, &upload->lock);
    if (upload->too_large)
        error_set(err, ERR_BODY_TOO_LARGE, 0, "the body has more bytes than it may");
    else if (upload->broken)
        error_set(err, ERR_BAD_REQUEST, 0, "the connection ended before the body did");
    else
        result = (ssize_t)give(upload, data, size);
    if (upload->len <= RING / 2)
        resume(upload);
    pthread_mutex_unlock(&upload->lock);
    return result;
}

void server_upload_close(struct server_upload *upload)
{
    pthread_mutex_lock(&upload->lock);
    upload->closed = true;
    resume(upload);
    pthread_mutex_unlock(&upload->lock);
}
