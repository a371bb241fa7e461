/* The channel: one thread receives and queues, a few work and answer. A request waits while another
 * of the same instance runs, so an operation has its instance for itself; requests of one instance
 * run in the order they came. When the queue is full nothing is received until there is room. */
#include "priv/internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

struct job {
    struct priv_request request;
    struct job *next;
};

struct loop {
    struct priv_server *server;
    int channel;
    pthread_mutex_t lock;
    pthread_cond_t ready, room;
    struct job *head;
    struct job **tail;
    size_t pending, reserving, copying;
    char busy[PRIV_WORKERS][ID_INSTANCE_SIZE];
    bool stopping;
};

struct worker {
    struct loop *loop;
    size_t index;
    pthread_t thread;
};

static void answer_init(struct priv_answer *answer, const struct priv_request *request)
{
    memset(answer, 0, sizeof(*answer));
    answer->reply.protocol = PRIV_PROTOCOL;
    answer->reply.op = request->op;
    answer->reply.id = request->id;
}

/* Most of a second for want of memory, which may pass; then the channel is over, because nobody
 * shall wait for an answer that cannot come. A peer that went away is noticed by the receiving
 * thread. */
static void send_or_end(const struct loop *loop, const struct msghdr *message)
{
    enum { TRIES = 80 };
    const struct timespec pause = {.tv_nsec = 10000000};
    for (int i = 0; i < TRIES; i++) {
        if (sendmsg(loop->channel, message, MSG_NOSIGNAL) >= 0)
            return;
        if (errno == ENOBUFS || errno == ENOMEM || errno == ETOOMANYREFS)
            nanosleep(&pause, NULL);
        else if (errno != EINTR)
            return;
    }
    priv_tell(loop->server, LOG_LEVEL_ERROR, "cannot answer the front for want of memory");
    shutdown(loop->channel, SHUT_RDWR);
}

static void send_answer(const struct loop *loop, struct priv_answer *answer)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int) * PRIV_FDS_MAX)];
        struct cmsghdr align;
    } control = {0};
    struct iovec part = {&answer->reply, sizeof(answer->reply)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (answer->fd_count > 0) {
        size_t len = sizeof(int) * answer->fd_count;
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(len);
        struct cmsghdr *header = &control.align; /* where CMSG_FIRSTHDR points, known not NULL */
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(len);
        memcpy(CMSG_DATA(header), answer->fds, len);
    }
    send_or_end(loop, &message);
    for (size_t i = 0; i < answer->fd_count; i++)
        cleanup_close_func(&answer->fds[i]);
}

static void refuse(const struct loop *loop, const struct priv_request *request,
                   enum error_code code, const char *why)
{
    struct priv_answer answer;
    answer_init(&answer, request);
    answer.reply.code = code;
    snprintf(answer.reply.message, sizeof(answer.reply.message), "%s", why);
    send_answer(loop, &answer);
}

static bool is_busy(const struct loop *loop, const char *instance)
{
    for (size_t i = 0; i < PRIV_WORKERS; i++)
        if (instance[0] != '\0' && strcmp(loop->busy[i], instance) == 0)
            return true;
    return false;
}

/* May wait for the disk, for as long as that takes. */
static bool copies(const struct priv_request *request)
{
    return request->op == PRIV_STAGE || request->op == PRIV_CAPTURE ||
           request->op == PRIV_PUBLISH ||
           (request->op == PRIV_LAUNCH && request->u.launch.snapshot[0] != '\0');
}

/* The oldest job that may run: nobody works on its instance, and not all wait for chains or the disk.
 * Lock held. */
static struct job *take_job(struct loop *loop)
{
    for (struct job **at = &loop->head; *at != NULL; at = &(*at)->next) {
        struct job *job = *at;
        if (is_busy(loop, job->request.instance) ||
            (job->request.op == PRIV_RESERVE && loop->reserving >= PRIV_RESERVING_MAX) ||
            (copies(&job->request) && loop->copying >= PRIV_COPYING_MAX))
            continue;
        loop->reserving += job->request.op == PRIV_RESERVE;
        loop->copying += copies(&job->request);
        *at = job->next;
        if (job->next == NULL)
            loop->tail = at;
        loop->pending--;
        return job;
    }
    return NULL;
}

/* Something of the instance runs, or will before what comes now. Lock held. */
static bool is_ahead(const struct loop *loop, const char *instance)
{
    for (const struct job *job = loop->head; job != NULL; job = job->next)
        if (strcmp(job->request.instance, instance) == 0)
            return true;
    return is_busy(loop, instance);
}

/* The words are ours alone: what a message says may be a guest's. */
static void tell_done(const struct loop *loop, const struct priv_request *request, uint32_t code)
{
    if (request->trace == 0)
        return; /* the front's own looks, once a second */
    priv_tell(loop->server, code == ERR_NONE ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "%s%s%s: %s",
              priv_operation_name(request->op), request->instance[0] != '\0' ? " " : "",
              request->instance,
              code == ERR_NONE ? "done" : error_code_name((enum error_code)code));
}

static void work(struct loop *loop, const struct job *job)
{
    const struct priv_request *request = &job->request;
    struct priv_answer answer;
    char trace[LOG_REQUEST_SIZE];
    snprintf(trace, sizeof(trace), "%016llx", (unsigned long long)request->trace);
    log_set_request(request->trace != 0 ? trace : NULL);
    answer_init(&answer, request);
    priv_dispatch(loop->server, request, &answer);
    tell_done(loop, request, answer.reply.code);
    send_answer(loop, &answer);
    log_set_request(NULL);
}

static void *run_worker(void *context)
{
    const struct worker *worker = context;
    struct loop *loop = worker->loop;
    char *busy = loop->busy[worker->index];
    pthread_mutex_lock(&loop->lock);
    for (;;) {
        struct job *job = take_job(loop);
        if (job == NULL && loop->stopping && loop->head == NULL)
            break;
        if (job == NULL) {
            pthread_cond_wait(&loop->ready, &loop->lock);
            continue;
        }
        memcpy(busy, job->request.instance, ID_INSTANCE_SIZE);
        pthread_cond_signal(&loop->room);
        pthread_mutex_unlock(&loop->lock);
        work(loop, job);
        pthread_mutex_lock(&loop->lock);
        loop->reserving -= job->request.op == PRIV_RESERVE;
        loop->copying -= copies(&job->request);
        free(job);
        memset(busy, 0, ID_INSTANCE_SIZE);
        pthread_cond_broadcast(&loop->ready); /* a job of that instance may go on */
    }
    pthread_mutex_unlock(&loop->lock);
    return NULL;
}

static void enqueue(struct loop *loop, const struct priv_request *request)
{
    struct job *job = malloc(sizeof(*job));
    if (job == NULL) {
        refuse(loop, request, ERR_NO_MEMORY, "the root half is out of memory");
        return;
    }
    job->request = *request;
    job->next = NULL;
    pthread_mutex_lock(&loop->lock);
    while (loop->pending >= PRIV_QUEUE_MAX)
        pthread_cond_wait(&loop->room, &loop->lock);
    bool waits = request->op == PRIV_KILL && is_ahead(loop, request->instance);
    *loop->tail = job;
    loop->tail = &job->next;
    loop->pending++;
    pthread_cond_signal(&loop->ready);
    pthread_mutex_unlock(&loop->lock);
    if (waits)
        priv_slot_hurry(loop->server, request->instance);
}

/* An empty packet and the end of the channel both read as 0 bytes. */
static bool hung_up(int channel)
{
    struct pollfd p = {.fd = channel, .events = POLLRDHUP};
    return poll(&p, 1, 0) != 0 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0;
}

/* No room for control data: the kernel drops descriptors that are sent to us and says so. 1: one
 * packet is done; 0: the channel ended; -1 failed. */
static int receive(struct loop *loop, struct error *err)
{
    struct {
        struct priv_request request;
        char more; /* so that a longer packet shows */
    } packet = {0};
    struct iovec part = {&packet, sizeof(packet.request) + 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n = recvmsg(loop->channel, &message, 0);
    if (n < 0 && errno == EINTR)
        return 1;
    if (n < 0 && errno == ECONNRESET)
        return 0;
    if (n < 0)
        return error_set(err, ERR_SYSTEM, errno, "receiving from the front");
    if (n == 0 && hung_up(loop->channel))
        return 0;
    const char *refusal = NULL;
    if (message.msg_flags & MSG_CTRUNC)
        refusal = "a request carries no descriptor";
    else if (n != (ssize_t)sizeof(packet.request) || (message.msg_flags & MSG_TRUNC))
        refusal = "a request of another size";
    else
        refusal = priv_request_refusal(&packet.request);
    if (refusal == NULL)
        enqueue(loop, &packet.request);
    else
        refuse(loop, &packet.request, ERR_PRIV_REFUSED, refusal);
    return 1;
}

static void stop(struct loop *loop, struct worker *workers, size_t count)
{
    pthread_mutex_lock(&loop->lock);
    loop->stopping = true;
    while (loop->head != NULL) { /* nobody waits for their answers */
        struct job *job = loop->head;
        loop->head = job->next;
        free(job);
    }
    loop->tail = &loop->head;
    pthread_cond_broadcast(&loop->ready);
    pthread_mutex_unlock(&loop->lock);
    eventfd_write(loop->server->stop, 1);
    if (loop->server->firewall != NULL)
        priv_firewall_wake(loop->server->firewall);
    for (size_t i = 0; i < count; i++)
        pthread_join(workers[i].thread, NULL);
    eventfd_t value;
    eventfd_read(loop->server->stop, &value);
    if (loop->server->firewall != NULL)
        priv_firewall_stop(loop->server->firewall);
}

int priv_server_run(struct priv_server *server, int channel, struct error *err)
{
    struct loop loop = {.server = server,
                        .channel = channel,
                        .lock = PTHREAD_MUTEX_INITIALIZER,
                        .ready = PTHREAD_COND_INITIALIZER,
                        .room = PTHREAD_COND_INITIALIZER};
    struct worker workers[PRIV_WORKERS];
    size_t count = 0;
    int result = 0;
    loop.tail = &loop.head;
    if (server->firewall != NULL && priv_firewall_start(server->firewall, err) < 0)
        return -1;
    for (; count < PRIV_WORKERS && result == 0; count++) {
        workers[count] = (struct worker){.loop = &loop, .index = count};
        result = pthread_create(&workers[count].thread, NULL, run_worker, &workers[count]);
    }
    if (result != 0) {
        count--;
        error_set(err, ERR_SYSTEM, result, "starting the root half's workers");
        result = -1;
    } else {
        do
            result = receive(&loop, err);
        while (result > 0);
    }
    stop(&loop, workers, count);
    return result;
}
