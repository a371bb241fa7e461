/*
 * A captured front sends anything at all, and dies in the middle of it: no guard moves, the root
 * half lives, and each packet is answered exactly once.
 */
#include "hostile.h"

#include <criterion/criterion.h>

enum {
    WINDOW = 48, /* packets without an answer yet */
    PACKETS = 100000,
    LOOKS = 2500, /* packets between two looks at the host */
    KNOWN = 24,
    DEATHS = 40,
};

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
    struct hostile_answer answer = hostile_receive(noise->bench);
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
    static const uint32_t quick[] = {PRIV_SOCKET_API,
                                     PRIV_SOCKET_CONSOLE,
                                     PRIV_SOCKET_PIDFD,
                                     PRIV_SOCKET_LOG,
                                     PRIV_SOCKET_EVENTS,
                                     0,
                                     8,
                                     UINT32_MAX};
    request->u.open.what = quick[below(noise, COUNT_OF(quick))];
    /* Nobody listens on these: the root half waits its 5 s. */
    if (below(noise, 20) == 0 && noise->slow_opens < 12) {
        noise->slow_opens++;
        request->u.open.what = PRIV_SOCKET_VSOCK;
    }
}

static unsigned random_op(struct noise *noise)
{
    static const uint8_t weights[PRIV_OP_END] = {
        /* in 100 */
        [PRIV_HOST] = 4,           [PRIV_RESERVE] = 12, [PRIV_GUARD] = 19,  [PRIV_LAUNCH] = 19,
        [PRIV_OPEN] = 7,           [PRIV_CHECK] = 4,    [PRIV_REPORT] = 4,  [PRIV_USAGE] = 4,
        [PRIV_STAGE] = 5,          [PRIV_CAPTURE] = 2,  [PRIV_PUBLISH] = 2, [PRIV_UNSTAGE] = 2,
        [PRIV_KILL] = 10,          [PRIV_LIST] = 2,     [PRIV_DROPS] = 2,   [PRIV_SNAPSHOTS] = 1,
        [PRIV_FORGET_SNAPSHOT] = 1};
    uint64_t pick = below(noise, 100);
    unsigned op = PRIV_HOST;
    for (; op < PRIV_FORGET_SNAPSHOT && pick >= weights[op]; op++)
        pick -= weights[op];
    return op;
}

static void random_launch(struct noise *noise, struct priv_request *request)
{
    char made[ID_INSTANCE_SIZE];
    if (below(noise, 10) == 0)
        fill_random(noise, request->u.launch.image, HASH_SIZE);
    if (below(noise, 10) == 0)
        memcpy(request->u.launch.snapshot, any_instance(noise, made), ID_INSTANCE_LEN);
}

/* A request that may well be valid, and what it may do is done. */
static struct priv_request plausible(struct noise *noise)
{
    char made[ID_INSTANCE_SIZE];
    const unsigned op = random_op(noise);
    bool named = op != PRIV_HOST && op != PRIV_RESERVE && op <= PRIV_KILL;
    struct priv_request request =
        hostile_request(noise->bench, (enum priv_op)op, named ? any_instance(noise, made) : NULL);
    request.id = UINT64_C(1) << 56 | ++noise->last_id;
    fill_random(noise, (uint8_t *)&request.trace, sizeof(request.trace));
    if (op == PRIV_GUARD)
        random_shape(noise, &request.u.guard);
    if (op == PRIV_LAUNCH)
        random_launch(noise, &request);
    if (op == PRIV_FORGET_SNAPSHOT || (op == PRIV_SNAPSHOTS && below(noise, 2) == 0))
        memcpy(request.u.forget.snapshot, any_instance(noise, made), ID_INSTANCE_LEN);
    if (op == PRIV_OPEN)
        random_open(noise, &request);
    if (op == PRIV_REPORT)
        request.u.report.index = (uint32_t)below(noise, 2 * PRIV_LINES_MAX);
    if (op == PRIV_LIST || op == PRIV_DROPS)
        request.u.list.index = (uint32_t)below(noise, 2 * HOSTILE_UIDS);
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
    hostile_begin(&bench, &watch);
    bench_settle(&bench);
    uint32_t fds = hostile_host(&bench).fds;
    for (int i = 0; i < PACKETS; i++) {
        send_one(&noise);
        if (i % LOOKS == 0) {
            watch_guards(&watch);
            drain(&noise, 0);
            hostile_list(&bench, i % (4 * LOOKS) == 0);
            watch_foreign(&watch);
        }
    }
    drain(&noise, 0);
    hostile_list(&bench, true);
    /* None of those that were sent along stayed; the firewall's thread has some now and then. */
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (hostile_host(&bench).fds != fds)
        CHECK(clock_left_ms(deadline) > 0);
    hostile_end(&bench, &watch);
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
    hostile_begin(&bench, &watch);
    for (int round = 0; round < DEATHS; round++) {
        for (uint64_t n = 100 + below(&noise, 800); n > 0; n--)
            send_one(&noise);
        bench_stop(&bench); /* with up to WINDOW requests in flight */
        watch_guards(&watch);
        noise.in_flight = 0;
        bench_serve(&bench, true);
        bench_settle(&bench); /* else all is refused before there is a chain to be had */
        watch_guards(&watch);
        hostile_list(&bench, false);
    }
    watch_foreign(&watch);
    hostile_end(&bench, &watch);
    cr_log_info("%zu looks at a VMM", watch.seen);
    cr_assert_gt(watch.seen, 20);
}
