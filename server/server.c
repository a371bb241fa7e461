/* Listeners, pools and deadlines: start and stop. */
#include "server/internal.h"

#include <netinet/in.h>
#include <time.h>

enum {
    CONNECTIONS = 1024,
    CONNECTIONS_NEVER = 1 << 24,   /* at its own limit the library's thread waits for itself */
    CONNECTION_MEMORY = 32 * 1024, /* request line and headers; beyond it the library says 431 */
    INACTIVE_S = 30,
    HEADER_MS = 5000,
    IDLE_MS = 15000, /* more than clients keep a connection for the next request */
    BODY_MS = 15000,
    SEND_MS = 60000,
    KEEPALIVE_MS = 15000, /* half of what the library calls inactive */
    FLUSH_MS = 1000,      /* for the last answers when stopping */
};

/* Half of a shared one is what one owner has of it. */
static const struct server_pool_size pool_sizes[API_POOL_COUNT] = {
    [API_POOL_FAST] = {4, 256, false},          [API_POOL_LIFE] = {64, 128, false},
    [API_POOL_EXEC] = {256, 256, true},         [API_POOL_FILES] = {64, 64, true},
    [API_POOL_WAIT] = {API_WAITS_MAX, 0, true},
};

/* ---- listeners ---- */

__attribute__((format(printf, 2, 0))) static void log_library(void *cls, const char *fmt,
                                                              va_list args)
{
    char text[256];
    (void)cls;
    vsnprintf(text, sizeof(text), fmt, args);
    log_debug("http: %s", text);
}

/* Nothing is decoded on the way to our own check of the raw target. */
static size_t leave_escaped(void *cls, struct MHD_Connection *connection, char *text)
{
    (void)cls;
    (void)connection;
    return strlen(text);
}

static void connection_changed(void *cls, struct MHD_Connection *connection, void **socket_context,
                               enum MHD_ConnectionNotificationCode code)
{
    struct server_listening *listening = cls;
    struct server *server = listening->server;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        server_deadlines_remove(server->deadlines, *socket_context);
        *socket_context = NULL;
        atomic_fetch_sub(&listening->started, 1);
        atomic_fetch_sub(&listening->connections, 1);
        return;
    }
    atomic_fetch_add(&listening->started, 1);
    if (listening->kind == SERVER_TLS)
        server_tls_begin(server->options.tls, connection);
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (info == NULL)
        return;
    struct server_watch *watch =
        server_deadlines_add(server->deadlines, listening, info->connect_fd);
    server_deadlines_arm(server->deadlines, watch, server->options.header_ms, true);
    *socket_context = watch;
}

static int serve_on(struct server_listening *listening, struct error *err)
{
    static const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    /* The casts are the library's: its options are pointers and numbers, whichever they point to. */
    const struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)server_tls_none},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)SERVER_TLS_PRIORITIES},
        {MHD_OPTION_END, 0, NULL}};
    bool encrypted = listening->kind == SERVER_TLS;
    listening->daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG |
            MHD_USE_NO_LISTEN_SOCKET | (encrypted ? MHD_USE_TLS : 0U),
        0, NULL, NULL, server_request_handle, listening, MHD_OPTION_EXTERNAL_LOGGER, log_library,
        NULL, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_NEVER,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)INACTIVE_S, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_URI_LOG_CALLBACK, server_request_begin, listening, MHD_OPTION_UNESCAPE_CALLBACK,
        leave_escaped, NULL, MHD_OPTION_NOTIFY_COMPLETED, server_request_end, listening,
        MHD_OPTION_NOTIFY_CONNECTION, connection_changed, listening, MHD_OPTION_ARRAY,
        encrypted ? tls : none, MHD_OPTION_END);
    if (listening->daemon == NULL)
        return error_set(err, ERR_SYSTEM, 0, "cannot serve on descriptor %d", listening->fd);
    return 0;
}

/* ---- start ---- */

static void set_defaults(struct server_options *options)
{
    for (size_t i = 0; i < API_POOL_COUNT; i++)
        if (options->pools[i].threads == 0)
            options->pools[i] = pool_sizes[i];
    if (options->connections == 0)
        options->connections = CONNECTIONS;
    if (options->header_ms == 0)
        options->header_ms = HEADER_MS;
    if (options->idle_ms == 0)
        options->idle_ms = IDLE_MS;
    if (options->body_ms == 0)
        options->body_ms = BODY_MS;
    if (options->send_ms == 0)
        options->send_ms = SEND_MS;
    if (options->streams == 0)
        options->streams = API_STREAMS_MAX; /* half of a listener's connections */
    if (options->keepalive_ms == 0)
        options->keepalive_ms = KEEPALIVE_MS;
}

static struct server *server_new(const struct server_options *options)
{
    struct server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return NULL;
    server->options = *options;
    set_defaults(&server->options);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->idle, &monotonic);
    pthread_condattr_destroy(&monotonic);
    for (size_t i = 0; i < options->listener_count; i++)
        server->listening[i] = (struct server_listening){
            .server = server, .kind = options->listeners[i].kind, .fd = options->listeners[i].fd};
    return server;
}

static int start_parts(struct server *server, struct error *err)
{
    if (server_deadlines_start(&server->deadlines, err) < 0 ||
        server_streams_start(server, &server->streams, err) < 0)
        return -1;
    for (size_t i = API_POOL_NONE + 1; i < API_POOL_COUNT; i++)
        if (server_pool_open(server->options.pools[i], &server->pools[i], err) < 0)
            return -1;
    for (size_t i = 0; i < server->options.listener_count; i++)
        if (serve_on(&server->listening[i], err) < 0)
            return -1;
    return server_door_open(server, &server->door, err);
}

int server_start(const struct server_options *options, struct server **ret, struct error *err)
{
    if (options->listener_count > SERVER_LISTENERS_MAX)
        return error_set(err, ERR_CONFIG, 0, "at most %d listeners", SERVER_LISTENERS_MAX);
    struct server *server = server_new(options);
    if (server == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the server");
    if (start_parts(server, err) < 0) {
        server_stop(server, 0);
        return -1;
    }
    *ret = server;
    return 0;
}

void server_revoke(struct server *server)
{
    server_streams_revoke(server->streams);
}

/* ---- stop ---- */

/* From here on nobody new is accepted; connections that stand are still served. */
static void quiesce(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    server->stopping = true;
    pthread_mutex_unlock(&server->lock);
    server_door_close(server->door);
    server_streams_quiesce(server->streams);
}

/* One at a time: resuming is done without the lock, and changes the list. */
static void abandon_all(struct server *server)
{
    struct server_request *request = NULL;
    do {
        struct MHD_Connection *connection = NULL;
        pthread_mutex_lock(&server->lock);
        for (request = server->requests; request != NULL; request = request->next) {
            if (!server_request_abandon(request))
                continue;
            connection = request->connection;
            break;
        }
        pthread_mutex_unlock(&server->lock);
        if (connection != NULL)
            MHD_resume_connection(connection);
    } while (request != NULL);
}

/* Stopping a daemon cuts what it has not sent yet. */
static void flush(struct server *server)
{
    int64_t deadline = clock_mono_ms() + FLUSH_MS;
    const struct timespec until = {.tv_sec = deadline / 1000, .tv_nsec = deadline % 1000 * 1000000};
    pthread_mutex_lock(&server->lock);
    while (server->requests != NULL &&
           pthread_cond_timedwait(&server->idle, &server->lock, &until) == 0)
        continue;
    pthread_mutex_unlock(&server->lock);
}

unsigned server_stop(struct server *server, int drain_ms)
{
    unsigned running = 0;
    quiesce(server);
    int64_t deadline = clock_mono_ms() + drain_ms;
    for (size_t i = 0; i < API_POOL_COUNT; i++)
        running += server_pool_stop(server->pools[i], deadline);
    server_streams_finish(server->streams, deadline);
    if (running > 0)
        abandon_all(server);
    flush(server);
    for (size_t i = 0; i < server->options.listener_count; i++) {
        if (server->listening[i].daemon != NULL)
            MHD_stop_daemon(server->listening[i].daemon);
        close(server->listening[i].fd);
    }
    server_streams_free(server->streams); /* the library has closed them all */
    server_deadlines_stop(server->deadlines);
    if (running > 0)
        return running;
    for (size_t i = 0; i < API_POOL_COUNT; i++)
        server_pool_free(server->pools[i]); /* the listeners' threads, who submit, have ended */
    pthread_cond_destroy(&server->idle);
    pthread_mutex_destroy(&server->lock);
    free(server);
    return 0;
}
