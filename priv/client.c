/*
 * The front's end of the channel. A call puts itself on a list under its id, sends, and sleeps; one
 * reader thread hands each reply to the call with that id. Whatever breaks the protocol ends the
 * channel, because the reply that was meant may never come.
 */
#include "priv/client_internal.h"
#include <errno.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>

/* The slowest answer is LAUNCH on a loaded host: seconds. A root half that is silent for longer is
 * stuck, and a request that waits for ever helps nobody. */
enum { ANSWER_SECONDS = 60 };

struct priv_client {
    int fd;      /* owned */
    int lost_fd; /* owned */
    pthread_t reader;
    pthread_mutex_t lock;    /* guards all below */
    struct priv_call *calls; /* borrowed from the callers' stacks */
    uint64_t last_id;
    bool lost;
};

/* ---- reader thread -------------------------------------------------------------------------- */

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
}

struct packet {
    struct priv_reply reply;
    int fds[PRIV_FDS_MAX];
    size_t fd_count;
};

static void take_fds(struct msghdr *message, struct packet *packet)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(packet->fds, CMSG_DATA(c), count * sizeof(int));
        packet->fd_count = count;
    }
}

/* Some descriptors were dropped on the way. Where there was room in the message this process has
 * none: that concerns the one who asked for them. */
static void lose_fds(struct packet *packet)
{
    close_all(packet->fds, packet->fd_count);
    packet->fd_count = 0;
    if (packet->reply.code == ERR_NONE) {
        packet->reply.code = ERR_SYSTEM;
        packet->reply.sys = EMFILE;
        snprintf(packet->reply.message, sizeof(packet->reply.message),
                 "too many open files to take what the root half (motted) sent");
    }
}

/* False when the channel ended or what came is no reply; then nothing is held. */
static bool receive(int fd, struct packet *packet)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PRIV_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &packet->reply, .iov_len = sizeof(packet->reply)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    ssize_t n;
    do {
        n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    packet->fd_count = 0;
    if (n < 0) {
        return false;
    }
    take_fds(&message, packet);
    if (n != (ssize_t)sizeof(packet->reply) || packet->reply.protocol != PRIV_PROTOCOL ||
        (message.msg_flags & MSG_TRUNC) != 0) {
        close_all(packet->fds, packet->fd_count);
        return false;
    }
    if ((message.msg_flags & MSG_CTRUNC) != 0) {
        bool too_many = packet->fd_count == PRIV_FDS_MAX;
        lose_fds(packet);
        return !too_many;
    }
    return true;
}

static struct priv_call **find(struct priv_client *client, uint64_t id)
{
    struct priv_call **at = &client->calls;
    while (*at != NULL && (*at)->id != id) {
        at = &(*at)->next;
    }
    return at;
}

/* False when the reply answers nothing that was ever asked. */
static bool deliver(struct priv_client *client, const struct packet *packet)
{
    struct priv_call **at = find(client, packet->reply.id), *call = *at;
    if (call == NULL) {
        /* Its caller stopped waiting. */
        close_all(packet->fds, packet->fd_count);
        return packet->reply.id != 0 && packet->reply.id <= client->last_id;
    }
    if (packet->reply.op != call->op) {
        close_all(packet->fds, packet->fd_count);
        return false;
    }
    *at = call->next;
    call->reply = packet->reply;
    call->fd_count = packet->fd_count;
    memcpy(call->fds, packet->fds, sizeof(call->fds));
    call->done = true;
    pthread_cond_signal(&call->answered);
    return true;
}

static void lose(struct priv_client *client)
{
    client->lost = true;
    while (client->calls != NULL) {
        struct priv_call *call = client->calls;
        client->calls = call->next;
        call->done = call->lost = true;
        pthread_cond_signal(&call->answered);
    }
    eventfd_write(client->lost_fd, 1);
    /* The root half must not go on working for a front that no longer listens. */
    shutdown(client->fd, SHUT_RDWR);
}

static void *read_replies(void *argument)
{
    struct priv_client *client = argument;
    struct packet packet = {0};
    bool alive = true;
    while (alive) {
        alive = receive(client->fd, &packet);
        pthread_mutex_lock(&client->lock);
        alive = alive && deliver(client, &packet);
        if (!alive) {
            lose(client);
        }
        pthread_mutex_unlock(&client->lock);
    }
    return NULL;
}

/* ---- life ----------------------------------------------------------------------------------- */

static int start_reader(struct priv_client *client)
{
    /* Signals are the front's main thread's business. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&client->reader, NULL, read_replies, client);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r;
}

int priv_client_new(int fd, struct priv_client **ret, struct error *err)
{
    cleanup_close int channel = fd;
    cleanup_close int lost_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (lost_fd < 0) {
        return error_set(err, ERR_SYSTEM, errno, "cannot make an event descriptor");
    }
    cleanup_free struct priv_client *client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for the channel to the root half");
    }
    pthread_mutex_init(&client->lock, NULL);
    client->fd = channel;
    client->lost_fd = lost_fd;
    int r = start_reader(client);
    if (r != 0) {
        pthread_mutex_destroy(&client->lock);
        return error_set(err, ERR_SYSTEM, r, "cannot start a thread for the root half's replies");
    }
    (void)TAKE_FD(channel);
    (void)TAKE_FD(lost_fd);
    *ret = TAKE_PTR(client);
    return 0;
}

void priv_client_free(struct priv_client *client)
{
    if (client == NULL) {
        return;
    }
    shutdown(client->fd, SHUT_RDWR);
    pthread_join(client->reader, NULL);
    pthread_mutex_destroy(&client->lock);
    close(client->fd);
    close(client->lost_fd);
    free(client);
}

int priv_client_lost_fd(const struct priv_client *client)
{
    return client->lost_fd;
}

/* ---- one call ------------------------------------------------------------------------------- */

void priv_call_init(struct priv_call *call, enum priv_op op)
{
    *call = (struct priv_call){.op = op, .patience_s = ANSWER_SECONDS};
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&call->answered, &attributes);
    pthread_condattr_destroy(&attributes);
}

void priv_call_release(struct priv_call *call)
{
    close_all(call->fds, call->fd_count);
    pthread_cond_destroy(&call->answered);
}

int priv_call_take_fd(struct priv_call *call, size_t index)
{
    return TAKE_FD(call->fds[index]);
}

static int lost_error(struct error *err)
{
    return error_set(err, ERR_PRIV_LOST, 0,
                     "the root half (motted) is gone; the service must be started again");
}

/* Its reply, should one come, is nobody's. Called and left with the lock held. */
static void forget(struct priv_client *client, struct priv_call *call)
{
    if (!call->done) {
        *find(client, call->id) = call->next;
    }
}

/* Called and left with the lock held. */
static void wait_answer(struct priv_client *client, struct priv_call *call)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += call->patience_s;
    int r = 0;
    while (!call->done && r == 0) {
        r = pthread_cond_timedwait(&call->answered, &client->lock, &until);
    }
    forget(client, call);
}

/* A packet is sent whole or not at all. Replies are taken meanwhile by the reader, so this cannot
 * deadlock with a root half that waits for room in its own direction. Returns an errno, or 0. */
static int send_request(int fd, const struct priv_request *request)
{
    ssize_t n;
    do {
        n = send(fd, request, sizeof(*request), MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? errno : 0;
}

/* For want of memory the kernel did not take the packet: the channel is as it was. */
static bool is_shortage(int error)
{
    return error == ENOBUFS || error == ENOMEM;
}

static bool enlist(struct priv_client *client, struct priv_call *call)
{
    pthread_mutex_lock(&client->lock);
    bool alive = !client->lost;
    if (alive) {
        call->id = ++client->last_id;
        call->next = client->calls;
        client->calls = call;
    }
    pthread_mutex_unlock(&client->lock);
    return alive;
}

static int refused(const struct priv_reply *reply, struct error *err)
{
    bool known = reply->code < ERR_COUNT;
    error_set(err, known ? (enum error_code)reply->code : ERR_INTERNAL, 0, "%.*s",
              (int)sizeof(reply->message) - 1, reply->message);
    err->sys = reply->sys;
    return -1;
}

int priv_call_ask(struct priv_call *call, struct priv_client *client, struct priv_request *request,
                  size_t min_fds, size_t max_fds, struct error *err)
{
    if (!enlist(client, call)) {
        return lost_error(err);
    }
    request->protocol = PRIV_PROTOCOL;
    request->op = call->op;
    request->id = call->id;
    request->trace = strtoull(log_request_id(), NULL, 16);
    int unsent = send_request(client->fd, request);
    pthread_mutex_lock(&client->lock);
    if (is_shortage(unsent)) {
        forget(client, call);
    } else {
        if (unsent != 0 && !client->lost) {
            lose(client);
        }
        wait_answer(client, call);
    }
    pthread_mutex_unlock(&client->lock);
    if (call->lost) {
        return lost_error(err);
    }
    if (is_shortage(unsent)) {
        return error_set(err, ERR_NO_MEMORY, unsent, "cannot speak to the root half (motted)");
    }
    if (!call->done) {
        return error_set(err, ERR_BUSY, 0,
                         "the root half (motted) did not answer within %d s; its log tells more",
                         call->patience_s);
    }
    if (call->reply.code != ERR_NONE) {
        return refused(&call->reply, err);
    }
    if (call->fd_count < min_fds || call->fd_count > max_fds) {
        return error_set(err, ERR_INTERNAL, 0,
                         "the root half (motted) sent %zu descriptors with operation %u",
                         call->fd_count, (unsigned)call->op);
    }
    return 0;
}
