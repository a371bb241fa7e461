/*
 * One thread accepts for all listeners. No listener waits for another's crowd: each gets a few turns
 * at a time. Who cannot be let in is told so, not left in the backlog.
 */
#include "server/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

enum {
    TURNS = 16,
    PAUSE_MS = 100,  /* while the kernel has no descriptor for us */
    CATCH_UP_MS = 2, /* while the library is behind */
    REFUSAL_MAX = 1024,
};

struct server_door {
    struct server *server; /* borrowed */
    int wake;
    int reserve; /* given up for a moment to answer one for whom there is no descriptor; -1: gone */
    char refusal[REFUSAL_MAX];
    size_t refusal_len;
    pthread_t thread;
    bool running;
};

/* ---- refusing ---- */

/* Made once: when it is needed, memory may be short. */
static int make_refusal(struct server_door *door, struct error *err)
{
    struct error busy = {0};
    struct api_response response = {0};
    error_set(&busy, ERR_BUSY, 0, "the service has no room for more connections");
    api_problem(&busy, "0000000000000000", NULL, &response);
    int len = snprintf(door->refusal, sizeof(door->refusal),
                       "HTTP/1.1 %u Service Unavailable\r\nRetry-After: %u\r\nConnection: close\r\n"
                       "Content-Type: %s\r\nContent-Length: %zu\r\n\r\n%.*s",
                       response.status, response.retry_after_s, response.content_type,
                       response.body_len, (int)response.body_len,
                       response.body != NULL ? response.body : response.body_static);
    api_response_release(&response);
    if (len < 0 || (size_t)len >= sizeof(door->refusal))
        return error_set(err, ERR_INTERNAL, 0, "no room for the answer to a crowd");
    door->refusal_len = (size_t)len;
    return 0;
}

/* Takes the descriptor. What the client has sent by now is read: an unread byte would make the
 * kernel throw our answer away. */
static void refuse(const struct server_door *door, const struct server_listening *listening, int fd)
{
    char asked[4096];
    (void)recv(fd, asked, sizeof(asked), MSG_DONTWAIT);
    if (listening->kind != SERVER_TLS) /* where it would take a handshake to be told */
        (void)send(fd, door->refusal, door->refusal_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
}

static int make_reserve(void)
{
    return eventfd(0, EFD_CLOEXEC);
}

/* True when somebody was answered. */
static bool refuse_without_descriptor(struct server_door *door,
                                      const struct server_listening *listening)
{
    if (door->reserve < 0)
        return false;
    close(door->reserve);
    int fd = accept4(listening->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        refuse(door, listening, fd);
    door->reserve = make_reserve();
    return fd >= 0;
}

/* ---- letting in ---- */

static void let_in(const struct server_door *door, struct server_listening *listening, int fd,
                   const struct sockaddr_storage *peer, socklen_t len)
{
    const struct server *server = door->server;
    if (atomic_load(&listening->connections) >= server->options.connections &&
        !server_deadlines_evict(server->deadlines, listening)) {
        refuse(door, listening, fd);
        return;
    }
    atomic_fetch_add(&listening->connections, 1);
    /* Takes the descriptor, also when it fails. */
    if (MHD_add_connection(listening->daemon, fd, (const struct sockaddr *)peer, len) != MHD_YES)
        atomic_fetch_sub(&listening->connections, 1);
}

/* The library begins with new connections, and ends those that were cut, in a thread of its own. The
 * faster we were, the more would stand beyond the limit, or be refused while old ones could go. */
static bool is_behind(const struct server *server, struct server_listening *listening)
{
    unsigned room = server->options.connections, some = room / 8 + 1;
    unsigned started = atomic_load(&listening->started); /* first: it is never the greater one */
    unsigned connections = atomic_load(&listening->connections);
    return connections >= room + some || connections >= started + some;
}

/* False when the kernel has nothing to accept with, and the caller should wait a little. */
static bool take_turn(struct server_door *door, struct server_listening *listening, bool *ret_more)
{
    struct sockaddr_storage peer = {0};
    socklen_t len = sizeof(peer);
    int fd = accept4(listening->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    *ret_more = true;
    if (fd >= 0) {
        let_in(door, listening, fd, &peer, len);
        return true;
    }
    if (errno == EMFILE || errno == ENFILE) {
        server_deadlines_evict(door->server->deadlines, NULL);
        return refuse_without_descriptor(door, listening);
    }
    *ret_more = errno == EINTR || errno == ECONNABORTED;
    return *ret_more || errno == EAGAIN;
}

/* How long to wait before the next turns, in ms. */
static int take_turns(struct server_door *door, struct server_listening *listening)
{
    bool more = true;
    for (unsigned i = 0; i < TURNS && more; i++) {
        if (!take_turn(door, listening, &more))
            return PAUSE_MS;
        if (is_behind(door->server, listening))
            return CATCH_UP_MS;
    }
    return 0;
}

/* ---- the thread ---- */

static void *watch(void *context)
{
    struct server_door *door = context;
    struct server *server = door->server;
    size_t count = server->options.listener_count;
    struct pollfd events[SERVER_LISTENERS_MAX + 1] = {{.fd = door->wake, .events = POLLIN}};
    int pause_ms = 0;
    for (size_t i = 0; i < count; i++)
        events[i + 1] = (struct pollfd){.fd = server->listening[i].fd, .events = POLLIN};
    for (;;) {
        /* Listeners stay readable meanwhile: look at them after the pause only. */
        int ready = poll(events, pause_ms > 0 ? 1 : count + 1, pause_ms > 0 ? pause_ms : -1);
        if (events[0].revents != 0)
            return NULL;
        if (door->reserve < 0)
            door->reserve = make_reserve();
        bool look = pause_ms == 0 && ready > 0;
        pause_ms = 0;
        for (size_t i = 0; i < count && look; i++) {
            int wanted = events[i + 1].revents != 0 ? take_turns(door, &server->listening[i]) : 0;
            pause_ms = wanted > pause_ms ? wanted : pause_ms;
        }
    }
}

static int start(struct server_door *door, struct error *err)
{
    const struct server *server = door->server;
    door->wake = eventfd(0, EFD_CLOEXEC);
    door->reserve = make_reserve();
    if (door->wake < 0 || door->reserve < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot make the accepting thread's events");
    for (size_t i = 0; i < server->options.listener_count; i++) {
        int flags = fcntl(server->listening[i].fd, F_GETFL);
        if (flags < 0 || fcntl(server->listening[i].fd, F_SETFL, flags | O_NONBLOCK) < 0)
            return error_set(err, ERR_SYSTEM, errno, "cannot accept on descriptor %d",
                             server->listening[i].fd);
    }
    if (make_refusal(door, err) < 0)
        return -1;
    int result = pthread_create(&door->thread, NULL, watch, door);
    if (result != 0)
        return error_set(err, ERR_SYSTEM, result, "cannot start the accepting thread");
    door->running = true;
    return 0;
}

int server_door_open(struct server *server, struct server_door **ret, struct error *err)
{
    struct server_door *door = calloc(1, sizeof(*door));
    if (door == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the accepting thread");
    *door = (struct server_door){.server = server, .wake = -1, .reserve = -1};
    if (start(door, err) < 0) {
        server_door_close(door);
        return -1;
    }
    *ret = door;
    return 0;
}

void server_door_close(struct server_door *door)
{
    if (door == NULL)
        return;
    if (door->running) {
        eventfd_write(door->wake, 1);
        pthread_join(door->thread, NULL);
    }
    if (door->wake >= 0)
        close(door->wake);
    if (door->reserve >= 0)
        close(door->reserve);
    free(door);
}
