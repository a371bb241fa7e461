/*
 * A captured front: whatever it sends, in whatever order, it gets no VMM without its guards, no uid
 * twice, no change outside Motte's names, and no end of the root half. Real server, Firecracker,
 * jailer, firewall and cgroups.
 */
#include "watch.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>

enum {
    UIDS = 80, /* few, so that they come round again and again */
    LANES = 24,
    WINDOW = 48, /* packets without an answer yet */
    NOISE = 100000,
    KNOWN = 24,
    DEATHS = 40,
    NOISE_LOOKS = 2500, /* packets between two looks at the host */
    ORDER_LOOKS = 25,   /* sequences between two */
};

static const enum priv_op operations[] = {PRIV_GUARD, PRIV_LAUNCH, PRIV_OPEN,
                                          PRIV_CHECK, PRIV_USAGE,  PRIV_KILL};

struct answer {
    struct priv_reply reply;
    size_t fd_count;
};

/* The descriptors are counted and closed. */
static struct answer receive(struct bench *bench)
{
    struct answer answer = {0};
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

static struct priv_request make_request(const struct bench *bench, enum priv_op op,
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

static void ask(struct bench *bench, const struct priv_request *request, struct answer *ret)
{
    pair_send(bench->raw, request, sizeof(*request), NULL, 0);
    *ret = receive(bench);
    CHECK(ret->reply.op == request->op && ret->reply.id == request->id);
}

static struct priv_host host(struct bench *bench)
{
    struct answer answer;
    struct priv_request request = make_request(bench, PRIV_HOST, NULL);
    ask(bench, &request, &answer);
    CHECK(answer.reply.code == ERR_NONE);
    return answer.reply.u.host;
}

/* All the server knows; no uid may be there twice. Kills them if so asked. Nothing may be in
 * flight. */
static void list_all(struct bench *bench, bool end_them)
{
    static char instances[UIDS][ID_INSTANCE_SIZE];
    uint32_t uids[UIDS];
    size_t count = 0;
    struct answer answer;
    for (;; count++) {
        struct priv_request request = make_request(bench, PRIV_LIST, NULL);
        request.u.list.index = (uint32_t)count;
        ask(bench, &request, &answer);
        const struct priv_instance *listed = &answer.reply.u.list;
        if (listed->instance[0] == '\0')
            break;
        CHECK(count < UIDS && id_instance_valid(listed->instance));
        for (size_t i = 0; i < count; i++)
            CHECK(uids[i] != listed->uid && strcmp(instances[i], listed->instance) != 0);
        uids[count] = listed->uid;
        memcpy(instances[count], listed->instance, ID_INSTANCE_SIZE);
    }
    for (size_t i = 0; end_them && i < count; i++) {
        struct priv_request request = make_request(bench, PRIV_KILL, instances[i]);
        ask(bench, &request, &answer);
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

static void bench_begin(struct bench *bench, struct watch *watch)
{
    private_run();
    bench_init(bench);
    /* A range of this test's own: what runs under it is this test's. */
    bench->config.uid_base += (1u << 20) + (uint32_t)getpid() % 10000 * UIDS;
    bench->config.uid_count = UIDS;
    bench->config.max_vms = UIDS - 16;
    watch_open(watch, bench);
    bench_serve(bench, true);
}

static void bench_end(struct bench *bench, struct watch *watch)
{
    list_all(bench, true);
    watch_nothing_left(watch);
    watch_foreign(watch);
    CHECK(host(bench).live == 0);
    bench_close(bench);
    watch_close(watch);
}

/* ---- every order ---------------------------------------------------------------------------- */

enum { KINDS = COUNT_OF(operations), ORDER = 5, ALL_OF_FOUR = 6 * 6 * 6 * 6, LAUNCHED = 6 * 6 * 6 };

/* All orders of four operations with KILL as the fifth, then GUARD, LAUNCH and all orders of three
 * more. An order is a number to base KINDS, its first operation the lowest digit. */
static int order_number(int n)
{
    const int guard_launch = 0 + 1 * KINDS, kill = 5;
    return n < ALL_OF_FOUR ? n + kill * ALL_OF_FOUR
                           : guard_launch + KINDS * KINDS * (n - ALL_OF_FOUR);
}

/* One instance and the operations it is still to see; many lanes run at once. */
struct lane {
    char instance[ID_INSTANCE_SIZE];
    int order, at; /* at: 0 RESERVE, 1 … ORDER, then KILL */
    enum priv_op sent;
    enum priv_state state; /* as it must be */
};

struct orders {
    struct bench *bench;
    struct watch *watch;
    struct lane lanes[LANES];
    int next;        /* order */
    size_t launched; /* VMMs */
};

static void send_next(struct orders *orders, size_t index)
{
    struct lane *lane = &orders->lanes[index];
    int digit = lane->order;
    for (int i = 1; i < lane->at; i++)
        digit /= KINDS;
    lane->sent = lane->at == 0       ? PRIV_RESERVE
                 : lane->at <= ORDER ? operations[digit % KINDS]
                                     : PRIV_KILL;
    struct priv_request request =
        make_request(orders->bench, lane->sent, lane->at == 0 ? NULL : lane->instance);
    request.id = index;
    pair_send(orders->bench->raw, &request, sizeof(request), NULL, 0);
}

/* The state machine of messages.h, said again: may this operation run now? */
static bool permitted(const struct lane *lane)
{
    switch ((int)lane->sent) {
    case PRIV_RESERVE:
    case PRIV_KILL:
        return true;
    case PRIV_GUARD:
        return lane->state == PRIV_RESERVED;
    case PRIV_LAUNCH:
        return lane->state == PRIV_GUARDED;
    case PRIV_USAGE:
        return lane->state == PRIV_GUARDED || lane->state == PRIV_LAUNCHED;
    default:
        return lane->state == PRIV_LAUNCHED;
    }
}

static void check_answer(const struct lane *lane, const struct answer *answer)
{
    bool done = answer->reply.code == ERR_NONE;
    size_t fds = 0;
    if (!permitted(lane)) {
        CHECK(answer->reply.code == ERR_PRIV_REFUSED && answer->reply.message[0] != '\0');
    } else if (lane->sent == PRIV_CHECK) {
        CHECK(answer->reply.code == ERR_GUARD); /* its main thread has no filter yet */
    } else if (!done) {
        fprintf(stderr, "operation %d: %s\n", (int)lane->sent, answer->reply.message);
        CHECK(done);
    }
    fds += done && lane->sent == PRIV_LAUNCH ? 3 : 0;
    fds += done && lane->sent == PRIV_OPEN ? 1 : 0;
    CHECK(answer->fd_count == fds);
}

static void step_state(struct orders *orders, struct lane *lane, const struct answer *answer)
{
    bool done = answer->reply.code == ERR_NONE;
    if (done && lane->sent == PRIV_RESERVE) {
        memcpy(lane->instance, answer->reply.u.reserve.instance, ID_INSTANCE_SIZE);
        lane->state = PRIV_RESERVED;
    } else if (done && lane->sent == PRIV_GUARD) {
        lane->state = PRIV_GUARDED;
    } else if (done && lane->sent == PRIV_LAUNCH) {
        lane->state = PRIV_LAUNCHED;
        orders->launched++;
    } else if (done && lane->sent == PRIV_KILL) {
        lane->state = PRIV_DEAD;
    }
}

/* True while the lane has something in flight. */
static bool start_order(struct orders *orders, size_t index)
{
    if (orders->next == ALL_OF_FOUR + LAUNCHED)
        return false;
    if (orders->next % ORDER_LOOKS == 0)
        watch_guards(orders->watch);
    orders->lanes[index] = (struct lane){.order = order_number(orders->next++)};
    send_next(orders, index);
    return true;
}

Test(priv_hostile_front, R41_every_order_of_valid_messages_does_only_what_it_may)
{
    static struct orders orders;
    struct bench bench;
    struct watch watch;
    size_t busy = 0;
    bench_begin(&bench, &watch);
    orders.bench = &bench;
    orders.watch = &watch;
    for (size_t i = 0; i < LANES; i++)
        busy += start_order(&orders, i);
    while (busy > 0) {
        struct answer answer = receive(&bench);
        CHECK(answer.reply.id < LANES);
        struct lane *lane = &orders.lanes[answer.reply.id];
        CHECK(answer.reply.op == lane->sent);
        check_answer(lane, &answer);
        step_state(&orders, lane, &answer);
        if (lane->at++ <= ORDER)
            send_next(&orders, answer.reply.id);
        else
            busy -= !start_order(&orders, answer.reply.id);
    }
    bench_end(&bench, &watch);
    cr_log_info("%zu launches, %zu looks at a VMM", orders.launched, watch.seen);
    cr_assert_gt(orders.launched, 300);
    cr_assert_gt(watch.seen, 20);
}

/* ---- noise ---------------------------------------------------------------------------------- */

struct noise {
    struct bench *bench;
    uint64_t random;
    uint64_t expected[WINDOW]; /* ids of packets without an answer */
    size_t in_flight;
    uint64_t last_id;
    char known[KNOWN][ID_INSTANCE_SIZE];
    size_t known_count;
    size_t slow_opens, launched;
};

static uint64_t below(struct noise *noise, uint64_t limit)
{
    return pair_random(&noise->random) % limit;
}

static void fill_random(struct noise *noise, void *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)bytes)[i] = (uint8_t)(pair_random(&noise->random) >> 24);
}

static void take_answer(struct noise *noise)
{
    struct answer answer = receive(noise->bench);
    size_t i = 0;
    while (i < noise->in_flight && noise->expected[i] != answer.reply.id)
        i++;
    CHECK(i < noise->in_flight); /* each packet is answered exactly once */
    noise->expected[i] = noise->expected[--noise->in_flight];
    CHECK(answer.reply.code == ERR_NONE || answer.fd_count == 0);
    if (answer.reply.code == ERR_NONE && answer.reply.op == PRIV_RESERVE) {
        size_t slot = noise->known_count < KNOWN ? noise->known_count++ : below(noise, KNOWN);
        memcpy(noise->known[slot], answer.reply.u.reserve.instance, ID_INSTANCE_SIZE);
    }
    noise->launched += answer.reply.code == ERR_NONE && answer.reply.op == PRIV_LAUNCH;
}

static void drain(struct noise *noise, size_t left)
{
    while (noise->in_flight > left)
        take_answer(noise);
}

static void send_packet(struct noise *noise, const void *bytes, size_t len, size_t fd_count)
{
    static const int fds[] = {0, 0, 0, 0, 0};
    uint64_t id = 0;
    drain(noise, WINDOW - 1);
    if (len > offsetof(struct priv_request, id)) {
        size_t have = len - offsetof(struct priv_request, id);
        memcpy(&id, (const char *)bytes + offsetof(struct priv_request, id), have < 8 ? have : 8);
    }
    noise->expected[noise->in_flight++] = id;
    pair_send(noise->bench->raw, bytes, len, fds, fd_count);
}

static const char *any_instance(struct noise *noise, char made[static ID_INSTANCE_SIZE])
{
    struct error err = {0};
    if (noise->known_count > 0 && below(noise, 10) != 0)
        return noise->known[below(noise, noise->known_count)];
    CHECK(id_instance_make(made, &err) == 0);
    return made;
}

static void random_shape(struct noise *noise, struct priv_shape *shape)
{
    static const uint32_t odd[] = {0, 1, 2, 3, 31, 32, 33, 127, 128, 4096, 4097, UINT32_MAX};
    if (below(noise, 3) == 0) {
        shape->vcpus = odd[below(noise, COUNT_OF(odd))];
        shape->memory_mib = odd[below(noise, COUNT_OF(odd))];
        shape->disk_mib = odd[below(noise, COUNT_OF(odd))];
        shape->seccomp = odd[below(noise, COUNT_OF(odd))];
    }
}

static void random_open(struct noise *noise, struct priv_request *request)
{
    static const uint32_t quick[] = {PRIV_SOCKET_API, PRIV_SOCKET_CONSOLE, PRIV_SOCKET_PIDFD, 0, 6,
                                     UINT32_MAX};
    request->u.open.what = quick[below(noise, COUNT_OF(quick))];
    /* Nobody listens on these: the root half waits its 5 s. */
    if (below(noise, 20) == 0 && noise->slow_opens < 12) {
        noise->slow_opens++;
        request->u.open.what = PRIV_SOCKET_VSOCK;
    }
}

/* A request that may well be valid, and what it may do is done. */
static struct priv_request plausible(struct noise *noise)
{
    static const uint8_t weights[PRIV_OP_END] = {
        /* in 100 */
        [PRIV_HOST] = 7,    [PRIV_RESERVE] = 12, [PRIV_GUARD] = 20,
        [PRIV_LAUNCH] = 20, [PRIV_OPEN] = 10,    [PRIV_CHECK] = 7,
        [PRIV_USAGE] = 7,   [PRIV_KILL] = 10,    [PRIV_LIST] = 7};
    char made[ID_INSTANCE_SIZE];
    uint64_t pick = below(noise, 100);
    unsigned op = PRIV_HOST;
    for (; op < PRIV_LIST && pick >= weights[op]; op++)
        pick -= weights[op];
    bool named = op != PRIV_HOST && op != PRIV_RESERVE && op != PRIV_LIST;
    struct priv_request request =
        make_request(noise->bench, (enum priv_op)op, named ? any_instance(noise, made) : NULL);
    request.id = UINT64_C(1) << 56 | ++noise->last_id;
    if (op == PRIV_GUARD)
        random_shape(noise, &request.u.guard);
    if (op == PRIV_LAUNCH && below(noise, 10) == 0)
        fill_random(noise, request.u.launch.image, HASH_SIZE);
    if (op == PRIV_OPEN)
        random_open(noise, &request);
    if (op == PRIV_LIST)
        request.u.list.index = (uint32_t)below(noise, 2 * UIDS);
    return request;
}

/* One to three bytes changed, but for the id: its answer must be told from others. */
static void spoil(struct noise *noise, struct priv_request *request)
{
    for (uint64_t n = 1 + below(noise, 3); n > 0; n--) {
        size_t at = below(noise, sizeof(*request));
        if (at < offsetof(struct priv_request, id) || at >= offsetof(struct priv_request, instance))
            ((uint8_t *)request)[at] ^= (uint8_t)(1 + below(noise, 255));
    }
}

static void send_one(struct noise *noise)
{
    uint8_t garbage[2 * sizeof(struct priv_request)];
    struct priv_request request = plausible(noise);
    switch (below(noise, 10)) {
    case 0:
    case 1:
    case 2:
        fill_random(noise, garbage, sizeof(garbage));
        send_packet(noise, garbage, below(noise, sizeof(garbage)), below(noise, 20) == 0 ? 5 : 0);
        break;
    case 3:
    case 4:
    case 5:
        spoil(noise, &request);
        send_packet(noise, &request, sizeof(request), 0);
        break;
    case 6:
        send_packet(noise, &request, sizeof(request), 1 + below(noise, 5));
        break;
    case 7:
        memcpy(garbage, &request, sizeof(request));
        send_packet(noise, garbage, sizeof(request) - 1 + 2 * below(noise, 2), 0);
        break;
    default:
        send_packet(noise, &request, sizeof(request), 0);
    }
}

Test(priv_hostile_front, R41_noise_moves_no_guard_and_does_not_stop_the_root_half)
{
    static struct noise noise;
    struct bench bench;
    struct watch watch;
    noise.random = pair_seed();
    noise.bench = &bench;
    bench_begin(&bench, &watch);
    uint32_t fds = host(&bench).fds;
    for (int i = 0; i < NOISE; i++) {
        send_one(&noise);
        if (i % NOISE_LOOKS == 0) {
            watch_guards(&watch);
            drain(&noise, 0);
            list_all(&bench, i % (4 * NOISE_LOOKS) == 0);
            watch_foreign(&watch);
        }
    }
    drain(&noise, 0);
    list_all(&bench, true);
    CHECK(host(&bench).fds == fds); /* none of those that were sent along stayed */
    bench_end(&bench, &watch);
    cr_log_info("%zu launches, %zu looks at a VMM", noise.launched, watch.seen);
    cr_assert_gt(noise.launched, 100);
    cr_assert_gt(watch.seen, 100);
}

/* ---- the front dies in the middle ----------------------------------------------------------- */

Test(priv_hostile_front, R41_a_front_that_dies_at_any_moment_leaves_guarded_vms_only)
{
    static struct noise noise;
    struct bench bench;
    struct watch watch;
    noise.random = pair_seed();
    noise.bench = &bench;
    bench_begin(&bench, &watch);
    for (int round = 0; round < DEATHS; round++) {
        for (uint64_t n = 100 + below(&noise, 800); n > 0; n--)
            send_one(&noise);
        bench_stop(&bench); /* with up to WINDOW requests in flight */
        watch_guards(&watch);
        noise.in_flight = 0;
        bench_serve(&bench, true);
        watch_guards(&watch);
        list_all(&bench, false);
    }
    watch_foreign(&watch);
    bench_end(&bench, &watch);
    cr_log_info("%zu looks at a VMM", watch.seen);
    cr_assert_gt(watch.seen, 20);
}
