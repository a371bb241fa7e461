#include "tests/unit/vmm/root.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

size_t root_open_fds(void)
{
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++)
        count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

/* ---- the operations; the lock is not held ---- */

struct answer {
    struct priv_reply reply;
    int fds[PRIV_FDS_MAX]; /* owned */
    size_t fd_count;
};

static void refuse(struct answer *answer, enum error_code code)
{
    answer->reply.code = code;
    snprintf(answer->reply.message, sizeof(answer->reply.message), "scripted refusal");
}

static void give(struct answer *answer, int fd)
{
    CHECK(fd >= 0);
    answer->fds[answer->fd_count++] = fd;
}

static int copy(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static struct guest *find_locked(struct root *root, const char *instance)
{
    struct guest *guest = root->guests;
    while (guest != NULL && strcmp(guest->instance, instance) != 0)
        guest = guest->next;
    return guest;
}

/* For the root half's own thread, which alone ends guests. */
static struct guest *find(struct root *root, const char *instance)
{
    pthread_mutex_lock(&root->lock);
    struct guest *guest = find_locked(root, instance);
    pthread_mutex_unlock(&root->lock);
    return guest;
}

static void op_host(const struct root *root, struct answer *answer)
{
    answer->reply.u.host = (struct priv_host){.hypervisor = root->hypervisor,
                                              .max_vms = 1000,
                                              .max_vcpus = 32,
                                              .max_memory_mib = ROOT_MEMORY_MIB,
                                              .total_memory_mib = ROOT_MEMORY_MIB};
}

static void op_reserve(struct root *root, struct answer *answer)
{
    struct error err = {0};
    struct guest *guest = calloc(1, sizeof(*guest));
    CHECK(guest != NULL && id_instance_make(guest->instance, &err) == 0);
    guest->dir = root->dir;
    guest->said = -1;
    guest->state = PRIV_RESERVED;
    pthread_mutex_lock(&root->lock);
    guest->plan = root->next;
    if (root->choose != NULL)
        root->choose(root->choose_context, &guest->plan);
    guest->looks = guest->plan;
    bool fail = guest->plan.fail == AT_RESERVE;
    if (!fail) {
        guest->next = root->guests;
        root->guests = guest;
    }
    pthread_mutex_unlock(&root->lock);
    memcpy(answer->reply.u.reserve.instance, guest->instance, ID_INSTANCE_SIZE);
    snprintf(answer->reply.u.reserve.chain, PRIV_CHAIN_SIZE, "MOTTE_%s", guest->instance);
    if (fail) {
        refuse(answer, ERR_CAPACITY);
        free(guest);
    }
}

static void op_launch(struct guest *guest, struct answer *answer)
{
    guest_launch(guest);
    answer->reply.u.launch.generation = guest->generation;
    guest->state = PRIV_LAUNCHED;
    give(answer, copy(guest->pidfd));
    give(answer, copy(guest->console));
    give(answer, TAKE_FD(guest->hello));
    give(answer, copy(guest->log));
    if (guest->plan.die == AT_LAUNCH)
        guest_die(guest);
}

/* True: refused. */
static bool looked_at(struct guest *guest, enum moment now, enum error_code code,
                      struct answer *answer)
{
    struct plan *plan = &guest->looks;
    if (plan->die == now)
        guest_die(guest);
    bool fail = plan_moment(plan, guest->instance, now);
    if (fail && plan->times > 0 && --plan->times == 0)
        plan->fail = NEVER;
    if (!fail && !guest_ended(guest))
        return false;
    refuse(answer, guest_ended(guest) ? ERR_VMM_EXITED : code);
    if (fail && plan->code != ERR_NONE) {
        answer->reply.code = plan->code;
        answer->reply.sys = plan->sys;
    }
    return true;
}

/* What a front that was restarted asks for; there of a VMM that has ended too. */
static void op_reopen(struct guest *guest, enum moment now, int fd, struct answer *answer)
{
    if (guest->looks.fail != now || !looked_at(guest, now, ERR_HYPERVISOR, answer))
        give(answer, copy(fd));
}

static void op_open(struct guest *guest, uint32_t what, struct answer *answer)
{
    char path[108];
    if ((what == PRIV_SOCKET_LOG && guest->plan.no_log) || what == PRIV_SOCKET_EVENTS) {
        refuse(answer, ERR_HYPERVISOR);
    } else if (what == PRIV_SOCKET_PIDFD) {
        op_reopen(guest, AT_OPEN_PIDFD, guest->pidfd, answer);
    } else if (what == PRIV_SOCKET_CONSOLE) {
        op_reopen(guest, AT_OPEN_CONSOLE, guest->console, answer);
    } else if (what == PRIV_SOCKET_LOG) {
        op_reopen(guest, AT_OPEN_LOG, guest->log, answer);
    } else if (!looked_at(guest, what == PRIV_SOCKET_API ? AT_OPEN_API : AT_OPEN_VSOCK,
                          ERR_HYPERVISOR, answer)) {
        guest_path(guest, what == PRIV_SOCKET_API ? "api" : "vsock", path);
        give(answer, open(path, O_PATH | O_CLOEXEC));
    }
}

static void op_check(struct guest *guest, struct answer *answer)
{
    (void)looked_at(guest, AT_CHECK, ERR_GUARD, answer);
    eventfd_write(guest->checked, 1);
}

static void op_kill(struct root *root, struct guest *guest, struct answer *answer)
{
    if (guest == NULL)
        return;
    pthread_mutex_lock(&root->lock);
    bool fail = guest->plan.kill_failures > 0;
    guest->plan.kill_failures -= fail;
    for (struct guest **at = &root->guests; !fail && *at != NULL;)
        if (*at == guest)
            *at = guest->next;
        else
            at = &(*at)->next;
    pthread_mutex_unlock(&root->lock);
    if (fail) {
        refuse(answer, ERR_FIREWALL_LOCK);
        return;
    }
    answer->reply.u.kill.oom_kills = guest->plan.oom_kills;
    if (guest->state == PRIV_LAUNCHED) {
        answer->reply.u.kill.was_running = !guest_ended(guest);
        int status = guest_reap(guest);
        answer->reply.u.kill.has_status = !guest->plan.no_status;
        if (!guest->plan.no_status)
            answer->reply.u.kill.status = guest->plan.status != 0 ? guest->plan.status : status;
    }
    free(guest);
}

static void op_list(struct root *root, uint32_t index, struct answer *answer)
{
    pthread_mutex_lock(&root->lock);
    struct guest *guest = root->guests;
    bool no_list = root->no_list;
    while (guest != NULL && index-- > 0)
        guest = guest->next;
    pthread_mutex_unlock(&root->lock);
    if (no_list)
        refuse(answer, ERR_INTERNAL);
    if (no_list || guest == NULL)
        return;
    answer->reply.u.list = (struct priv_instance){
        .state = guest->state,
        .hypervisor = PRIV_FIRECRACKER,
        .alive = guest->state == PRIV_LAUNCHED && !guest_ended(guest),
    };
    memcpy(answer->reply.u.list.instance, guest->instance, ID_INSTANCE_SIZE);
    memcpy(answer->reply.u.list.snapshot, guest->snapshot, ID_INSTANCE_SIZE);
    answer->reply.u.list.generation = guest->generation;
}

static void op_guard(struct guest *guest, struct answer *answer)
{
    if (guest_moment(guest, AT_GUARD))
        refuse(answer, ERR_FIREWALL_COMMIT);
    else
        guest->state = PRIV_GUARDED;
}

static void op_launch_or_not(struct root *root, struct guest *guest, const char *snapshot,
                             struct answer *answer)
{
    memcpy(guest->snapshot, snapshot, sizeof(guest->snapshot));
    guest->generation = root_generation(root, snapshot);
    if (guest_moment(guest, AT_LAUNCH))
        refuse(answer, ERR_LAUNCH);
    else if (snapshot[0] != '\0' && root->no_restore != ERR_NONE)
        refuse(answer, root->no_restore);
    else if (snapshot[0] != '\0' && guest->generation == 0)
        refuse(answer, ERR_SNAPSHOT_UNKNOWN);
    else
        op_launch(guest, answer);
}

static void op_snapshot(struct root *root, struct guest *guest, const struct priv_request *request,
                        struct answer *answer)
{
    enum error_code code = root_snapshot_op(root, guest, request, &answer->reply);
    if (code != ERR_NONE)
        refuse(answer, code);
}

static void dispatch(struct root *root, const struct priv_request *request, struct answer *answer)
{
    struct guest *guest = find(root, request->instance);
    if (request->op == PRIV_HOST)
        op_host(root, answer);
    else if (request->op == PRIV_RESERVE)
        op_reserve(root, answer);
    else if (request->op == PRIV_KILL)
        op_kill(root, guest, answer);
    else if (request->op == PRIV_LIST)
        op_list(root, request->u.list.index, answer);
    else if (root_does_snapshots(request->op))
        op_snapshot(root, guest, request, answer);
    else if (guest == NULL)
        refuse(answer, ERR_PRIV_REFUSED);
    else if (request->op == PRIV_GUARD)
        op_guard(guest, answer);
    else if (request->op == PRIV_LAUNCH)
        op_launch_or_not(root, guest, request->u.launch.snapshot, answer);
    else if (request->op == PRIV_OPEN)
        op_open(guest, request->u.open.what, answer);
    else
        op_check(guest, answer);
}

/* ---- the channel ---- */

static void reply(int fd, struct answer *answer)
{
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PRIV_FDS_MAX * sizeof(int))];
    } control = {0};
    struct iovec iov = {.iov_base = &answer->reply, .iov_len = sizeof(answer->reply)};
    struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
    if (answer->fd_count > 0) {
        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(answer->fd_count * sizeof(int));
        struct cmsghdr *c = &control.align;
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(answer->fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), answer->fds, answer->fd_count * sizeof(int));
    }
    CHECK(sendmsg(fd, &message, MSG_NOSIGNAL) > 0 || errno == EPIPE);
    for (size_t i = 0; i < answer->fd_count; i++)
        close(answer->fds[i]);
}

static void *root_main(void *context)
{
    struct root *root = context;
    struct priv_request request;
    while (recv(root->fd, &request, sizeof(request), 0) == (ssize_t)sizeof(request)) {
        struct answer answer = {
            .reply = {.protocol = PRIV_PROTOCOL, .op = request.op, .id = request.id}};
        dispatch(root, &request, &answer);
        reply(root->fd, &answer);
    }
    return NULL;
}

struct priv_client *root_resume(struct root *root)
{
    int fds[2];
    struct priv_client *client = NULL;
    struct error err = {0};
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    CHECK(priv_client_new(fds[0], &client, &err) == 0);
    root->fd = fds[1];
    root_unstage_all(root);
    CHECK(pthread_create(&root->thread, NULL, root_main, root) == 0);
    return client;
}

struct priv_client *root_start(struct root *root)
{
    *root = (struct root){.dir = "/tmp/motte-root-XXXXXX", .hypervisor = PRIV_FIRECRACKER};
    CHECK(mkdtemp(root->dir) != NULL);
    pthread_mutex_init(&root->lock, NULL);
    return root_resume(root);
}

void root_stop(struct root *root, struct priv_client *client)
{
    priv_client_free(client);
    CHECK(pthread_join(root->thread, NULL) == 0);
    close(root->fd);
}

void root_release(struct root *root)
{
    CHECK(root->guests == NULL);
    root_forget_all(root);
    CHECK(rmdir(root->dir) == 0);
    pthread_mutex_destroy(&root->lock);
}

void root_plan(struct root *root, struct plan plan)
{
    pthread_mutex_lock(&root->lock);
    root->next = plan;
    pthread_mutex_unlock(&root->lock);
}

void root_choose(struct root *root, void (*choose)(void *, struct plan *), void *context)
{
    pthread_mutex_lock(&root->lock);
    root->choose = choose;
    root->choose_context = context;
    pthread_mutex_unlock(&root->lock);
}

void root_plan_of_the_first(void *context, struct plan *ret)
{
    struct plan *plan = context;
    *ret = *plan;
    *plan = (struct plan){0};
}

void root_kill_failures(struct root *root, const char *instance, int failures)
{
    pthread_mutex_lock(&root->lock);
    struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    guest->plan.kill_failures = failures;
    pthread_mutex_unlock(&root->lock);
}

void root_replan(struct root *root, const char *instance, struct plan plan)
{
    pthread_mutex_lock(&root->lock);
    struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    guest->looks = plan;
    pthread_mutex_unlock(&root->lock);
}

void root_say(struct root *root, const char *instance, const char *text)
{
    pthread_mutex_lock(&root->lock);
    const struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    CHECK(write(guest->console_end, text, strlen(text)) == (ssize_t)strlen(text));
    pthread_mutex_unlock(&root->lock);
}

void root_crash(struct root *root, const char *instance)
{
    pthread_mutex_lock(&root->lock); /* it is not ended meanwhile */
    struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    guest_die(guest);
    pthread_mutex_unlock(&root->lock);
}

/* With the root's lock, which the caller gives back. */
static const struct guest *hold(struct root *root, const char *instance)
{
    pthread_mutex_lock(&root->lock);
    const struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    return guest;
}

bool root_paused(struct root *root, const char *instance)
{
    bool paused = hold(root, instance)->paused;
    pthread_mutex_unlock(&root->lock);
    return paused;
}

enum phase root_phase(struct root *root, const char *instance)
{
    pthread_mutex_lock(&root->lock);
    const struct guest *guest = find_locked(root, instance);
    CHECK(guest != NULL);
    enum phase phase = (enum phase)guest->phase;
    pthread_mutex_unlock(&root->lock);
    return phase;
}

unsigned root_asked(struct root *root, const char *instance)
{
    unsigned asked = hold(root, instance)->asked;
    pthread_mutex_unlock(&root->lock);
    return asked;
}

unsigned root_met(struct root *root, const char *instance)
{
    unsigned met = atomic_load(&hold(root, instance)->met);
    pthread_mutex_unlock(&root->lock);
    return met;
}

size_t root_live(struct root *root)
{
    size_t count = 0;
    pthread_mutex_lock(&root->lock);
    for (const struct guest *guest = root->guests; guest != NULL; guest = guest->next)
        count++;
    pthread_mutex_unlock(&root->lock);
    return count;
}
