/* See hostile.h. */
#include "hostile.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

/* The descriptors are counted and closed. */
struct hostile_answer hostile_receive(struct bench *bench)
{
    struct hostile_answer answer = {0};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(PRIV_FDS_MAX * sizeof(int))];
    } control;
    struct iovec iov = {.iov_base = &answer.reply, .iov_len = sizeof(answer.reply)};
    struct msghdr message = {.msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    struct pollfd ready = {.fd = bench->raw, .events = POLLIN};
    CHECK(poll(&ready, 1, PATIENCE_MS) == 1);
    CHECK(recvmsg(bench->raw, &message, MSG_CMSG_CLOEXEC) == (ssize_t)sizeof(answer.reply));
    CHECK((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c != NULL; c = CMSG_NXTHDR(&message, c)) {
        int fds[PRIV_FDS_MAX];
        answer.fd_count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(c), answer.fd_count * sizeof(int));
        for (size_t i = 0; i < answer.fd_count; i++)
            close(fds[i]);
    }
    CHECK(answer.reply.protocol == PRIV_PROTOCOL);
    return answer;
}

struct priv_request hostile_request(const struct bench *bench, enum priv_op op,
                                    const char *instance)
{
    struct priv_request request = bench_request(op, instance);
    if (op == PRIV_GUARD)
        request.u.guard = BENCH_SHAPE;
    if (op == PRIV_LAUNCH)
        memcpy(request.u.launch.image, bench->image, HASH_SIZE);
    if (op == PRIV_OPEN)
        request.u.open.what = PRIV_SOCKET_API;
    return request;
}

void hostile_ask(struct bench *bench, const struct priv_request *request,
                 struct hostile_answer *ret)
{
    pair_send(bench->raw, request, sizeof(*request), NULL, 0);
    *ret = hostile_receive(bench);
    CHECK(ret->reply.op == request->op && ret->reply.id == request->id);
}

struct priv_host hostile_host(struct bench *bench)
{
    struct hostile_answer answer;
    struct priv_request request = hostile_request(bench, PRIV_HOST, NULL);
    hostile_ask(bench, &request, &answer);
    CHECK(answer.reply.code == ERR_NONE);
    return answer.reply.u.host;
}

/* All the server knows; no uid may be there twice. Kills them if so asked. Nothing may be in
 * flight. */
void hostile_list(struct bench *bench, bool end_them)
{
    static char instances[HOSTILE_UIDS][ID_INSTANCE_SIZE];
    uint32_t uids[HOSTILE_UIDS];
    size_t count = 0;
    struct hostile_answer answer;
    for (;; count++) {
        struct priv_request request = hostile_request(bench, PRIV_LIST, NULL);
        request.u.list.index = (uint32_t)count;
        hostile_ask(bench, &request, &answer);
        const struct priv_instance *listed = &answer.reply.u.list;
        if (listed->instance[0] == '\0')
            break;
        CHECK(count < HOSTILE_UIDS && id_instance_valid(listed->instance));
        for (size_t i = 0; i < count; i++)
            CHECK(uids[i] != listed->uid && strcmp(instances[i], listed->instance) != 0);
        uids[count] = listed->uid;
        memcpy(instances[count], listed->instance, ID_INSTANCE_SIZE);
    }
    for (size_t i = 0; end_them && i < count; i++) {
        struct priv_request request = hostile_request(bench, PRIV_KILL, instances[i]);
        hostile_ask(bench, &request, &answer);
        CHECK(answer.reply.code == ERR_NONE);
    }
}

/* A /run of one's own, in which the firewall's lock is ours alone: other tests hold the real one.
 */
static void private_run(void)
{
    CHECK(unshare(CLONE_NEWNS) == 0);
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
    CHECK(mount("run", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0755") == 0);
}

void hostile_begin(struct bench *bench, struct watch *watch)
{
    private_run();
    bench_init(bench);
    /* A range of this test's own: what runs under it is this test's. */
    bench->config.uid_base += (1u << 20) + (uint32_t)getpid() % 10000 * HOSTILE_UIDS;
    bench->config.uid_count = HOSTILE_UIDS;
    bench->config.max_vms = HOSTILE_UIDS - 16;
    bench->config.max_snapshots = HOSTILE_UIDS;
    watch_open(watch, bench);
    bench_serve(bench, true);
}

void hostile_end(struct bench *bench, struct watch *watch)
{
    hostile_list(bench, true);
    CHECK(hostile_host(bench).live == 0);
    bench_stop(bench);
    watch_nothing_left(watch);
    watch_foreign(watch);
    bench_close(bench);
    watch_close(watch);
}
