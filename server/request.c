/*
 * One request. On the listener's thread: checks (begin, handle), the body, the hand-over to a
 * worker, and the answer. On a worker: the handler. The connection is suspended in between, so both
 * never touch a request at once.
 */
#include "server/internal.h"

#include <sys/random.h>

enum { DROPPED_MAX = 256 * 1024 }; /* of a chunked body that is too large anyway */

static struct server_watch *watch_of(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info != NULL ? info->socket_context : NULL;
}

static void arm(struct server_request *request, int ms, bool reading)
{
    server_deadlines_arm(request->listening->server->deadlines, watch_of(request->connection), ms,
                         reading);
}

static void make_request_id(char out[static API_REQUEST_ID_SIZE])
{
    uint64_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
        random = (uint64_t)clock_mono_us();
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
    make_request_id(request->api.request_id);
    /* Where it was idle it had longer. */
    server_deadlines_limit(server->deadlines, watch_of(connection), server->options.header_ms);
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
    bool quiet = route != NULL && route->monitoring && request->response.status < 400;
    log_write(quiet ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO,
              "%s %.200s %u %lld.%03lldms caller=%s vm=%s code=%s request_id=%s", request->method,
              route != NULL ? route->path : request->target.path, request->response.status,
              (long long)(us / 1000), (long long)(us % 1000),
              request->caller.name[0] ? request->caller.name : "-",
              request->api.id[0] ? request->api.id : "-",
              request->response.code != ERR_NONE ? error_code_name(request->response.code) : "-",
              request->api.request_id);
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
    if (request->response.status != 0) {
        int64_t us = clock_mono_us() - request->start_us;
        server_metrics_request(server->options.metrics, request->route, request->response.status,
                               us);
        log_request(request, us);
    }
    pthread_mutex_lock(&server->lock);
    if (request->previous != NULL)
        request->previous->next = request->next;
    else
        server->requests = request->next;
    if (request->next != NULL)
        request->next->previous = request->previous;
    bool abandoned = request->stage == SERVER_ABANDONED;
    pthread_cond_signal(&server->idle);
    pthread_mutex_unlock(&server->lock);
    if (abandoned) /* its worker still reads it; the process ends soon */
        return;
    api_response_release(&request->response);
    buf_release(&request->body);
    free(request);
}

/* ---- answers ---- */

static void set_stage(struct server_request *request, enum server_stage stage)
{
    struct server *server = request->listening->server;
    pthread_mutex_lock(&server->lock);
    request->stage = stage;
    pthread_mutex_unlock(&server->lock);
}

static enum MHD_Result answer(struct server_request *request)
{
    set_stage(request, SERVER_ANSWERED);
    arm(request, request->listening->server->options.send_ms, false);
    return server_answer(request->connection, request->api.request_id, &request->response);
}

static void set_problem(struct server_request *request, const struct error *err)
{
    api_problem(err, request->api.request_id, NULL, &request->response);
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
    set_stage(request, result == 0 ? SERVER_BODY : SERVER_DONE);
    if (result == 0)
        return MHD_YES;
    set_problem(request, &err);
    return request->response.close ? answer(request) : MHD_YES;
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
    api_dispatch(server->options.api, request->route, &request->api, &response);
    void (*later)(void *context) = response.later;
    void *later_context = response.later_context;
    pthread_mutex_lock(&server->lock);
    bool wanted = request->stage == SERVER_WAITING;
    if (wanted) {
        request->response = response;
        request->stage = SERVER_DONE;
    }
    pthread_mutex_unlock(&server->lock);
    if (wanted)
        MHD_resume_connection(connection);
    else
        api_response_release(&response);
    if (later != NULL)
        later(later_context);
}

bool server_request_abandon(struct server_request *request)
{
    if (request->stage != SERVER_WAITING)
        return false;
    struct error err = {0};
    error_set(&err, ERR_SHUTTING_DOWN, 0,
              "the service stops before this request ended; what it began may go on");
    set_problem(request, &err);
    request->response.close = true;
    request->stage = SERVER_ABANDONED;
    return true;
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
    arm(request, 0, false);
    if (stopping) {
        error_set(&err, ERR_SHUTTING_DOWN, 0, "the service is stopping");
        request->response.close = true;
    } else {
        MHD_suspend_connection(request->connection); /* first: the worker may be done at once */
        if (server_pool_submit(server->pools[request->route->pool], &request->job))
            return MHD_YES;
        error_set(&err, ERR_BUSY, 0, "too many requests of this kind are waiting");
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
    if (request->route->pool != API_POOL_NONE)
        return submit(request);
    api_dispatch(request->listening->server->options.api, request->route, &request->api,
                 &request->response);
    return answer(request);
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
    case SERVER_DONE:
        return answer(request);
    case SERVER_ABANDONED:
        return server_answer(connection, request->api.request_id, &request->response);
    case SERVER_WAITING:
    case SERVER_ANSWERED:
        return MHD_YES;
    }
    return MHD_NO;
}
