/*
 * bench_constant SOCKET SIZE [worker]: libmicrohttpd with the options of Motte's own server, which
 * answers every request with the same SIZE bytes; says `ready` and serves until its standard input
 * ends. With `worker` the connection is suspended, another thread says that it may go on, and only
 * then it is answered: what any server pays whose handlers may block.
 */
#include "bench/common/bench.h"

#include <microhttpd.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { QUEUE_MAX = 64 };

struct server {
    struct MHD_Response *response;
    bool handed; /* to a worker */
    pthread_mutex_t lock;
    pthread_cond_t work;
    struct MHD_Connection *queue[QUEUE_MAX];
    size_t queued;
};

static void hand_over(struct server *server, struct MHD_Connection *connection)
{
    MHD_suspend_connection(connection);
    pthread_mutex_lock(&server->lock);
    bench_must(server->queued < QUEUE_MAX, "so many connections at once");
    server->queue[server->queued++] = connection;
    pthread_cond_signal(&server->work);
    pthread_mutex_unlock(&server->lock);
}

__attribute__((noreturn)) static void *work(void *context)
{
    struct server *server = context;
    pthread_mutex_lock(&server->lock);
    for (;;) {
        while (server->queued == 0)
            pthread_cond_wait(&server->work, &server->lock);
        struct MHD_Connection *connection = server->queue[--server->queued];
        pthread_mutex_unlock(&server->lock);
        MHD_resume_connection(connection);
        pthread_mutex_lock(&server->lock);
    }
}

/* A request is seen first without and then with its end; handed over, once more. */
static enum MHD_Result answer(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *size, void **context)
{
    static int seen, worked;
    struct server *server = cls;
    (void)url, (void)method, (void)version, (void)data, (void)size;
    if (*context == NULL) {
        *context = &seen;
        return MHD_YES;
    }
    if (server->handed && *context == &seen) {
        *context = &worked;
        hand_over(server, connection);
        return MHD_YES;
    }
    return MHD_queue_response(connection, MHD_HTTP_OK, server->response);
}

static int listen_on(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bench_must(fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                   listen(fd, SOMAXCONN) == 0,
               path);
    return fd;
}

int main(int argc, char **argv)
{
    char line[BENCH_LINE_MAX];
    pthread_t worker;
    struct server server = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};
    if (argc < 3)
        return 2;
    server.handed = argc == 4 && strcmp(argv[3], "worker") == 0;
    size_t size = strtoul(argv[2], NULL, 10);
    char *body = malloc(size);
    bench_must(body != NULL, "memory");
    memset(body, 'x', size);
    server.response = MHD_create_response_from_buffer(size, body, MHD_RESPMEM_MUST_FREE);
    bench_must(server.response != NULL &&
                   MHD_add_response_header(server.response, "Content-Type", "application/json") ==
                       MHD_YES &&
                   pthread_create(&worker, NULL, work, &server) == 0,
               "an answer");
    struct MHD_Daemon *daemon = MHD_start_daemon(
        MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, NULL, NULL,
        answer, &server, MHD_OPTION_LISTEN_SOCKET, listen_on(argv[1]), MHD_OPTION_CONNECTION_LIMIT,
        1U << 24, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)(32 * 1024),
        MHD_OPTION_CONNECTION_TIMEOUT, 30U, MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    bench_must(daemon != NULL, "libmicrohttpd");
    puts("ready");
    fflush(stdout);
    while (bench_command(line))
        continue;
    MHD_stop_daemon(daemon);
    MHD_destroy_response(server.response);
    return 0;
}
