/*
 * One request. On the listener's thread: checks (begin, handle), the body, the hand-over to a
 * worker, and the answer. On a worker: the handler. The connection is suspended in between, so both
 * never touch a request at once.
 */
#include "server/internal.h"

#include <sys/random.h>

enum { DROPPED_MAX = 256 * 1024 }; /* of a chunked body that is too large anyway */

struct server_watch *server_watch_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void arm(struct server_request *request, int ms, bool reading)
{
    server_deadlines_arm(request->listening->server->deadlines,
                         server_watch_of(request->connection), ms, reading);
}

static void make_request_id(struct server_listening *listening,
                            char out[static API_REQUEST_ID_SIZE])
{
    if (listening->random_left == 0 &&
        getrandom(listening->random, sizeof(listening->random), GRND_NONBLOCK) ==
            (ssize_t)sizeof(listening->random))
        listening->random_left = SERVER_RANDOM;
    uint64_t random = listening->random_left > 0 ? listening->random[--listening->random_left]
                                                 : (uint64_t)clock_mono_us();
    snprintf(out, API_REQUEST_ID_SIZE, "%016llx", (unsigned long long)random);
}

void *server_request_begin(void *cls, const char *uri, struct MHD_Connection *connection)
{
    struct server_listening *listening = cls;
    struct server *server = listening->server;
    struct server_request *request = calloc(1, sizeof(*request));
    if (request == NULL)
        return NULL;
    request->listening = listening;
    request->connection = connection;
    request->start_us = clock_mono_us();
    snprintf(request->raw, sizeof(request->raw), "%s", uri);
    make_request_id(listening, request->api.request_id);
    /* Where it was idle it had longer. */
    server_deadlines_limit(server->deadlines, server_watch_of(connection),
                           server->options.header_ms);
    pthread_mutex_lock(&server->lock);
    request->next = server->requests;
    if (request->next != NULL)
        request->next->previous = request;
    server->requests = request;
    pthread_mutex_unlock(&server->lock);
    return request;
}

static void log_request(const struct server_request *request, int64_t us)
{
    const struct api_route *route = request->route;
    const struct api_response *response = &request->response;
    const char *path = route != NULL ? route->path : request->target.path;
    const char *token = request->caller.token; /* its name */
    char status[8], ms[24], message[256];
    snprintf(status, sizeof(status), "%u", response->status);
    snprintf(ms, sizeof(ms), "%lld.%03lld", (long long)(us / 1000), (long long)(us % 1000));
    snprintf(message, sizeof(message), "%s %.200s %s %sms", request->method, path, status, ms);
    const struct log_field fields[] = {
        {.name = "method", .value = request->method, .told = true},
        {.name = "route", .value = route != NULL ? path : NULL, .told = true},
        {.name = "status", .value = status, .told = true, .number = true},
        {.name = "ms", .value = ms, .told = true, .number = true},
        {.name = "caller", .value = request->caller.name[0] ? request->caller.name : NULL},
        {.name = "token", .value = token[0] ? token : NULL, .told = token[0] == '\0'},
        {.name = "vm", .value = request->api.id[0] ? request->api.id : NULL},
        {.name = "code",
         .value = response->code != ERR_NONE ? error_code_name(response->code) : NULL},
        {.name = "request_id", .value = request->api.request_id},
    };
    bool quiet = route != NULL && route->monitoring && response->status < 400;
    log_fields(quiet ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, message, fields, COUNT_OF(fields));
}

static void tell(struct server_request *request)
{
    if (request->response.status == 0)
        return;
    int64_t end_us = request->answered_us != 0 ? request->answered_us : clock_mono_us();
    int64_t us = end_us - request->start_us;
    server_call_record(request);
    server_metrics_request(request->listening->server->options.metrics, request->route,
                           request->response.status, us);
    log_request(request, us);
}

static void request_free(struct server_request *request)
{
    api_response_release(&request->response);
    server_upload_free(request->upload);
    buf_release(&request->body);
    free(request);
}

void server_request_end(void *cls, struct MHD_Connection *connection, void **con_cls,
                        enum MHD_RequestTerminationCode why)
{
    struct server_listening *listening = cls;
    struct server *server = listening->server;
    struct server_request *request = *con_cls;
    (void)connection;
    (void)why;
    *con_cls = NULL;
    if (request == NULL)
        return;
    arm(request, server->options.idle_ms, true); /* for the next request on this connection */
    pthread_mutex_lock(&server->lock);
    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        server->requests = request->next;
    if (request->next != NULL)
        request->next->previous = request->previous;
    /* Its worker still reads it, and frees it; or the process ends soon. */
    bool kept = request->stage == SERVER_ABANDONED || request->stage == SERVER_UPLOADING;
    if (kept)
        tell(request); /* he may still answer as well */
    if (request->stage == SERVER_UPLOADING) {
        request->stage = SERVER_ORPHANED;
        (void)server_upload_break(request->upload); /* it is not suspended, or had not ended */
    }
    pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->lock);
    if (kept)
        return;
    tell(request);
    request_free(request);
}

/* ---- answers ---- */

static void set_stage(struct server_request *request, enum server_stage stage)
{
    struct server *server = request->listening->server;
    pthread_mutex_lock(&server->lock);
    request->stage = stage;
    pthread_mutex_unlock(&server->lock);
}

static void set_problem(struct server_request *request, const struct error *err)
{
    api_problem(err, request->api.request_id, NULL, &request->response);
}

static void begin_stream(struct server_request *request)
{
    struct error err = {0};
    request->answered_us = clock_mono_us();
    if (server_stream_begin(request, &request->stream, &err) == 0)
        return;
    api_response_release(&request->response);
    request->response = (struct api_response){0};
    set_problem(request, &err);
}

static enum MHD_Result answer(struct server_request *request)
{
    set_stage(request, SERVER_ANSWERED);
    arm(request, request->listening->server->options.send_ms, false);
    server_call_record(request); /* first: who was answered finds it there */
    if (request->response.stream.read != NULL)
        begin_stream(request);
    return server_answer(request);
}

/* ---- body ---- */

/* An answer can only be queued before or after the body: one that turns out too long is read on, to
 * a bound. */
static enum MHD_Result take_body(struct server_request *request, const char *data, size_t *size)
{
    if (buf_append(&request->body, data, *size) == 0) {
        *size = 0;
        return MHD_YES;
    }
    request->no_memory = request->no_memory || *size <= request->body.max - request->body.len;
    request->dropped += *size;
    *size = 0;
    return request->dropped <= DROPPED_MAX ? MHD_YES : MHD_NO;
}

/* ---- hand-over ---- */

/* On a worker. After the stage is DONE the connection's thread may free the request, once resumed.
 */
static void run_job(struct server_job *job)
{
    struct server_request *request =
        (struct server_request *)(void *)((char *)job - offsetof(struct server_request, job));
    struct server *server = request->listening->server;
    struct MHD_Connection *connection = request->connection;
    struct api_response response = {0};
    log_set_request(request->api.request_id);
    api_dispatch(server->options.api, request->route, &request->api, &response);
    if (request->upload != NULL)
        server_upload_close(request->upload);
    void (*later)(void *context) = response.later;
    void *later_context = response.later_context;
    pthread_mutex_lock(&server->lock);
    enum server_stage stage = request->stage;
    if (stage != SERVER_ABANDONED)
        request->response = response;
    if (stage == SERVER_WAITING)
        request->stage = SERVER_DONE;
    else if (stage == SERVER_UPLOADING)
        request->stage = SERVER_EARLY;
    pthread_mutex_unlock(&server->lock);
    if (stage == SERVER_WAITING) {
        MHD_resume_connection(connection);
    } else if (stage == SERVER_ORPHANED) {
        tell(request);
        request_free(request);
    } else if (stage == SERVER_ABANDONED) {
        api_response_release(&response);
    }
    if (later != NULL)
        later(later_context);
    log_set_request(NULL);
}

bool server_request_abandon(struct server_request *request)
{
    bool uploading = request->stage == SERVER_UPLOADING;
    if (request->stage != SERVER_WAITING && !uploading)
        return false;
    struct error err = {0};
    error_set(&err, ERR_SHUTTING_DOWN, 0,
              "the service stops before this request ended; what it began may go on");
    set_problem(request, &err);
    request->response.close = true;
    request->stage = SERVER_ABANDONED;
    return uploading ? server_upload_break(request->upload) : true;
}

static enum MHD_Result submit(struct server_request *request)
{
    struct server *server = request->listening->server;
    struct error err = {0};
    pthread_mutex_lock(&server->lock);
    bool stopping = server->stopping;
    request->stage = SERVER_WAITING;
    pthread_mutex_unlock(&server->lock);
    request->job.run = run_job;
    request->job.owner = server_owner(&request->caller);
    arm(request, 0, false);
    if (stopping) {
        error_set(&err, ERR_SHUTTING_DOWN, 0, "the service is stopping");
        request->response.close = true;
    } else {
        MHD_suspend_connection(request->connection); /* first: the worker may be done at once */
        if (server_pool_submit(server->pools[request->route->pool], &request->job))
            return MHD_YES;
        error_set(&err, ERR_BUSY, 0,
                  "too many requests of this kind are under way, or too many of yours");
    }
    pthread_mutex_lock(&server->lock);
    bool mine = request->stage == SERVER_WAITING; /* else server_stop has answered it */
    if (mine) {
        set_problem(request, &err);
        request->stage = SERVER_DONE;
    }
    pthread_mutex_unlock(&server->lock);
    if (stopping)
        return answer(request);
    if (mine)
        MHD_resume_connection(request->connection);
    return MHD_YES;
}

/* ---- uploads ---- */

/* The worker begins at once, and reads the body while it comes. Still before the body: an answer can
 * be given. */
static enum MHD_Result begin_upload(struct server_request *request)
{
    struct server *server = request->listening->server;
    struct error err = {0};
    request->upload = server_upload_new(server->deadlines, request->connection,
                                        server->options.body_ms, request->route->body_max);
    request->upload_source = (struct api_upload){server_upload_read, request->upload};
    request->api.upload = &request->upload_source;
    request->job.run = run_job;
    request->job.owner = server_owner(&request->caller);
    pthread_mutex_lock(&server->lock);
    if (server->stopping)
        error_set(&err, ERR_SHUTTING_DOWN, 0, "the service is stopping");
    else if (request->upload == NULL)
        error_set(&err, ERR_NO_MEMORY, 0, "out of memory for the body");
    else
        request->stage = SERVER_UPLOADING;
    pthread_mutex_unlock(&server->lock);
    if (err.code == ERR_NONE &&
        server_pool_submit(server->pools[request->route->pool], &request->job))
        return MHD_YES;
    if (err.code == ERR_NONE)
        error_set(&err, ERR_BUSY, 0,
                  "too many requests of this kind are under way, or too many of yours");
    pthread_mutex_lock(&server->lock);
    if (request->stage != SERVER_ABANDONED) /* else server_stop has answered it */
        set_problem(request, &err);
    pthread_mutex_unlock(&server->lock);
    request->response.close = true;
    return answer(request);
}

/* All of the body came: what is left to wait for is the worker. */
static enum MHD_Result end_upload(struct server_request *request)
{
    struct server *server = request->listening->server;
    arm(request, 0, false);
    pthread_mutex_lock(&server->lock);
    enum server_stage stage = request->stage;
    if (stage == SERVER_UPLOADING) {
        request->stage = SERVER_WAITING;
        MHD_suspend_connection(request->connection); /* before the worker can resume it */
        server_upload_end(request->upload);
    }
    pthread_mutex_unlock(&server->lock);
    if (stage == SERVER_EARLY)
        return answer(request);
    return stage == SERVER_UPLOADING ? MHD_YES : server_answer(request);
}

static enum MHD_Result take_upload(struct server_request *request, const char *data, size_t *size)
{
    if (*size == 0)
        return end_upload(request);
    return server_upload_put(request->upload, data, size) ? MHD_YES : MHD_NO;
}

/* Once the server stops, a request is refused like those that must be worked on. */
static bool is_known(struct server_request *request)
{
    struct server *server = request->listening->server;
    const struct api_route *route = request->route;
    if (route->known == NULL)
        return false;
    pthread_mutex_lock(&server->lock);
    bool stopping = server->stopping;
    pthread_mutex_unlock(&server->lock);
    return !stopping && route->known(server->options.api, &request->api, &request->response);
}

static enum MHD_Result dispatch(struct server_request *request)
{
    struct error err = {0};
    if (request->dropped > 0) {
        if (request->no_memory)
            error_set(&err, ERR_NO_MEMORY, 0, "out of memory for the body");
        else
            error_set(&err, ERR_BODY_TOO_LARGE, 0, "the body has more than %zu bytes",
                      request->body.max);
        request->response.close = true;
        set_problem(request, &err);
        return answer(request);
    }
    request->api.body = request->body.data != NULL ? request->body.data : "";
    request->api.body_len = request->body.len;
    if (is_known(request))
        return answer(request);
    if (request->route->pool != API_POOL_NONE)
        return submit(request);
    api_dispatch(request->listening->server->options.api, request->route, &request->api,
                 &request->response);
    return answer(request);
}

/* ---- first call: before the body ---- */

/* The library hands out C strings: a NUL in the target cuts it short, and the version then no
 * longer follows it in the library's buffer. (Where a version of the library keeps them apart this
 * says nothing; such a target is then just the part before the NUL.) */
static bool target_cut(const struct server_request *request, const char *url, const char *version)
{
    enum { BUFFER_MAX = 1 << 16 };
    size_t gap = (uintptr_t)version - (uintptr_t)url; /* huge when version comes first */
    return gap < BUFFER_MAX && gap > strlen(request->raw) + 1 &&
           strlen(request->raw) <= API_TARGET_MAX; /* else we did not keep all of it */
}

/* An answer at this point makes the library close the connection, as it must when a body is still
 * to come; a request without one is answered at the next call, and the connection goes on. */
static enum MHD_Result begin(struct server_request *request, const char *url, const char *method,
                             const char *version)
{
    struct error err = {0};
    snprintf(request->method, sizeof(request->method), "%s", method);
    arm(request, request->listening->server->options.body_ms, true);
    int result = -1;
    if (target_cut(request, url, version)) {
        error_set(&err, ERR_BAD_REQUEST, 0, "the request line has a NUL or a double space");
        request->response.close = true;
    } else {
        result = server_request_check(request, method, version, &err);
    }
    if (result == 0 && api_route_uploads(request->route))
        return begin_upload(request);
    set_stage(request, result == 0 ? SERVER_BODY : SERVER_DONE);
    if (result == 0)
        return MHD_YES;
    set_problem(request, &err);
    return request->response.close ? answer(request) : MHD_YES;
}

enum MHD_Result server_request_handle(void *cls, struct MHD_Connection *connection, const char *url,
                                      const char *method, const char *version,
                                      const char *upload_data, size_t *upload_data_size,
                                      void **con_cls)
{
    struct server_request *request = *con_cls;
    (void)cls;
    (void)connection;
    if (request == NULL)
        return MHD_NO;
    pthread_mutex_lock(&request->listening->server->lock);
    enum server_stage stage = request->stage;
    pthread_mutex_unlock(&request->listening->server->lock);
    switch (stage) {
    case SERVER_HEADERS:
        return begin(request, url, method, version);
    case SERVER_BODY:
        return *upload_data_size > 0 ? take_body(request, upload_data, upload_data_size)
                                     : dispatch(request);
    case SERVER_UPLOADING:
    case SERVER_EARLY:
        return take_upload(request, upload_data, upload_data_size);
    case SERVER_DONE:
        return answer(request);
    case SERVER_ABANDONED:
        return server_answer(request);
    case SERVER_ORPHANED:
    case SERVER_WAITING:
    case SERVER_ANSWERED:
        return MHD_YES;
    }
    return MHD_NO;
}
