/* What the root half refuses: packets that are no request, requests in the wrong state, shapes and
 * sums beyond its own configuration. */
#include "bench.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/socket.h>

static void assert_refused(const struct priv_reply *reply, const char *what)
{
    cr_assert_eq(reply->code, ERR_PRIV_REFUSED, "%s: %u %s", what, reply->code, reply->message);
    cr_assert_neq(reply->message[0], '\0', "%s: no reason", what);
}

static uint32_t live(struct bench *bench)
{
    struct priv_request request = bench_request(PRIV_HOST, NULL);
    struct priv_reply reply = bench_ask(bench, &request, sizeof(request), NULL, 0);
    cr_assert_eq(reply.code, ERR_NONE);
    return reply.u.host.live;
}

static void refuse(struct bench *bench, const struct priv_request *request, const char *what)
{
    struct priv_reply reply = bench_ask(bench, request, sizeof(*request), NULL, 0);
    assert_refused(&reply, what);
    cr_assert_eq(reply.id, request->id);
}

Test(priv_server, R11_what_is_no_request_is_refused_without_effect, .timeout = 60)
{
    static const char *const ids[] = {"",
                                      "../../etc/passwd",
                                      "aaaaaaaaaaaaaaaaaaa",
                                      "aaaaaaaaaaaaaaaaaaaaa",
                                      "AAAAAAAAAAAAAAAAAAAA",
                                      "aaaaaaaaaa/aaaaaaaaa",
                                      "aaaaaaaaaaaaaaaaaaa.",
                                      "aaaaaaaaaaaaaaaaaaa1"};
    static const char good[] = "aaaaaaaaaaaaaaaaaaaa";
    struct bench bench;
    bench_init(&bench);
    bench_serve(&bench, true);
    for (uint32_t op = PRIV_GUARD; op < PRIV_LIST; op++) {
        for (size_t i = 0; i < COUNT_OF(ids); i++) {
            struct priv_request bad = bench_request((enum priv_op)op, ids[i]);
            refuse(&bench, &bad, ids[i]);
        }
        struct priv_request bad = bench_request((enum priv_op)op, good);
        bad.instance[ID_INSTANCE_LEN + 2] = 'x';
        refuse(&bench, &bad, "bytes behind the id");
        memset(bad.instance, 'a', sizeof(bad.instance));
        refuse(&bench, &bad, "an id without end");
        bad = bench_request((enum priv_op)op, good);
        bad.u.bytes[63] = 1;
        refuse(&bench, &bad, "an unused byte");
    }
    static const uint32_t unknown[] = {0, PRIV_OP_END, 1000, UINT32_MAX};
    for (size_t i = 0; i < COUNT_OF(unknown); i++) {
        struct priv_request bad = bench_request((enum priv_op)unknown[i], NULL);
        refuse(&bench, &bad, "an unknown operation");
    }
    struct priv_request bad = bench_request(PRIV_RESERVE, good);
    refuse(&bench, &bad, "an id where none belongs");
    bad = bench_request(PRIV_FORGET_SNAPSHOT, NULL);
    refuse(&bench, &bad, "no snapshot's id");
    static const uint32_t about[] = {PRIV_LAUNCH, PRIV_SNAPSHOTS, PRIV_FORGET_SNAPSHOT};
    for (size_t i = 0; i < COUNT_OF(about) * COUNT_OF(ids); i++) {
        const char *id = ids[i / COUNT_OF(about)];
        bad = bench_request(about[i % COUNT_OF(about)], i % COUNT_OF(about) == 0 ? good : NULL);
        size_t at = i % COUNT_OF(about) == 0 ? HASH_SIZE : 0;
        memcpy(bad.u.bytes + at, id, strlen(id) < 24 ? strlen(id) : 24);
        bad.u.bytes[at + ID_INSTANCE_SIZE - 1] = 'x';
        refuse(&bench, &bad, "a bad snapshot id");
    }
    bad = bench_request(PRIV_RESERVE, NULL);
    bad.protocol++;
    refuse(&bench, &bad, "another protocol");
    cr_assert_eq(live(&bench), 0u);
    bench_close(&bench);
}

Test(priv_server, R11_other_sizes_and_descriptors_are_refused_and_not_kept, .timeout = 60)
{
    struct bench bench;
    char bytes[sizeof(struct priv_request) + 64] = {0};
    bench_init(&bench);
    bench_serve(&bench, true);
    struct priv_request reserve = bench_request(PRIV_RESERVE, NULL);
    memcpy(bytes, &reserve, sizeof(reserve));
    for (size_t len = 0; len <= sizeof(bytes); len++) {
        if (len == sizeof(reserve))
            continue;
        struct priv_reply reply = bench_ask(&bench, bytes, len, NULL, 0);
        assert_refused(&reply, "another size");
    }
    bench_settle(&bench);
    size_t before = bench_fds();
    int fds[] = {STDIN_FILENO, STDERR_FILENO};
    for (size_t i = 0; i < 50; i++) {
        struct priv_reply reply = bench_ask(&bench, &reserve, sizeof(reserve), fds, 1 + i % 2);
        assert_refused(&reply, "a descriptor");
    }
    cr_assert(bench_fds_are(before), "descriptors were kept");
    cr_assert_eq(live(&bench), 0u);
    bench_close(&bench);
}

Test(priv_server, R41_random_bytes_change_nothing, .timeout = 60)
{
    enum { PACKETS = 20000 };
    struct bench bench;
    uint64_t state = pair_seed();
    bench_init(&bench);
    bench_serve(&bench, true);
    for (int i = 0; i < PACKETS; i++) {
        union {
            struct priv_request request;
            uint64_t words[sizeof(struct priv_request) / 8];
        } bad;
        for (size_t w = 0; w < COUNT_OF(bad.words); w++)
            bad.words[w] = pair_random(&state);
        if (i % 2 == 0) { /* every other gets past the first look */
            bad.request.protocol = PRIV_PROTOCOL;
            bad.request.op %= PRIV_OP_END;
        }
        struct priv_reply reply = bench_ask(&bench, &bad, sizeof(bad), NULL, 0);
        assert_refused(&reply, "random bytes");
    }
    cr_assert_eq(live(&bench), 0u);
    bench_close(&bench);
}

static enum error_code guard(struct bench *bench, const char *instance, struct priv_shape shape)
{
    struct error err = {0};
    return priv_guard(bench->client, instance, &shape, &err) == 0 ? ERR_NONE : err.code;
}

static enum error_code launch(struct bench *bench, const char *instance, const uint8_t *image)
{
    struct error err = {0};
    struct priv_launched launched;
    if (priv_launch(bench->client, instance, image, &launched, &err) < 0)
        return err.code;
    close(launched.pidfd);
    close(launched.console);
    close(launched.hello);
    close(launched.log);
    return ERR_NONE;
}

static enum error_code open_api(struct bench *bench, const char *instance)
{
    struct error err = {0};
    int fd = priv_open(bench->client, instance, PRIV_SOCKET_API, 0, &err);
    cleanup_close_func(&fd);
    return err.code;
}

Test(priv_server, R41_nothing_is_done_out_of_order, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_usage usage;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    cr_assert_eq(launch(&bench, vm.instance, bench.image), ERR_PRIV_REFUSED, "launch unguarded");
    cr_assert_eq(open_api(&bench, vm.instance), ERR_PRIV_REFUSED);
    cr_assert_eq(priv_usage(bench.client, vm.instance, &usage, &err), -1);
    cr_assert_eq(guard(&bench, vm.instance, BENCH_SHAPE), ERR_NONE);
    cr_assert_eq(guard(&bench, vm.instance, BENCH_SHAPE), ERR_PRIV_REFUSED, "guarded twice");
    cr_assert_eq(open_api(&bench, vm.instance), ERR_PRIV_REFUSED);
    cr_assert_eq(launch(&bench, vm.instance, bench.image), ERR_NONE);
    cr_assert_eq(launch(&bench, vm.instance, bench.image), ERR_PRIV_REFUSED, "launched twice");
    cr_assert_eq(guard(&bench, vm.instance, BENCH_SHAPE), ERR_PRIV_REFUSED);
    bench_kill(&bench, &vm, NULL);
    cr_assert_eq(guard(&bench, vm.instance, BENCH_SHAPE), ERR_PRIV_REFUSED, "after death");
    cr_assert_eq(launch(&bench, vm.instance, bench.image), ERR_PRIV_REFUSED);
    err = (struct error){0};
    cr_assert_eq(priv_kill(bench.client, vm.instance, NULL, &err), 0, "killing what is gone");
    bench_close(&bench);
}

Test(priv_server, R09_shapes_and_sums_beyond_the_host_are_refused, .timeout = 60)
{
    static const struct priv_shape bad[] = {
        {0, 128, 0, PRIV_SECCOMP_MINIMAL},
        {3, 128, 0, PRIV_SECCOMP_MINIMAL},
        {34, 128, 0, PRIV_SECCOMP_MINIMAL},
        {UINT32_MAX - 1, 128, 0, PRIV_SECCOMP_MINIMAL},
        {1, 127, 0, PRIV_SECCOMP_MINIMAL},
        {1, 4097, 0, PRIV_SECCOMP_MINIMAL},
        {1, UINT32_MAX, 0, PRIV_SECCOMP_MINIMAL},
        {1, 128, 1025, PRIV_SECCOMP_MINIMAL},
        {1, 128, 0, 0},
        {1, 128, 0, PRIV_SECCOMP_PERMISSIVE + 1},
    };
    struct bench bench;
    struct bench_vm first, second, third;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE], traces[128];
    char chain[PRIV_CHAIN_SIZE];
    uint32_t uid;
    bench_init(&bench);
    bench.config.total_memory_mib = 256;
    bench.config.max_vms = 3;
    bench_serve(&bench, false);
    bench_reserve(&bench, &first);
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(guard(&bench, first.instance, bad[i]), ERR_PRIV_REFUSED, "shape %zu", i);
    struct priv_shape shape = BENCH_SHAPE;
    shape.seccomp = PRIV_SECCOMP_PERMISSIVE;
    cr_assert_eq(guard(&bench, first.instance, shape), ERR_SECCOMP_LEVEL);
    bench_traces(&bench, first.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "chain ", "a refused shape left %s", traces);
    bench_guard(&bench, &first, &BENCH_SHAPE);
    bench_reserve(&bench, &second);
    bench_guard(&bench, &second, &BENCH_SHAPE);
    bench_reserve(&bench, &third);
    cr_assert_eq(guard(&bench, third.instance, BENCH_SHAPE), ERR_CAPACITY, "the third 128 of 256");
    cr_assert_eq(priv_reserve(bench.client, instance, chain, &uid, &err), -1);
    cr_assert_eq(err.code, ERR_CAPACITY, "the fourth of three VMs");
    bench_kill(&bench, &first, NULL);
    cr_assert_eq(guard(&bench, third.instance, BENCH_SHAPE), ERR_NONE, "after one is gone");
    bench_close(&bench);
}

Test(priv_server, R11_an_unknown_image_is_refused_and_undone, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    uint8_t unknown[HASH_SIZE] = {1};
    char traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    cr_assert_eq(launch(&bench, vm.instance, unknown), ERR_IMAGE_UNKNOWN);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "chain ", "left of a failed launch: %s", traces);
    cr_assert_eq(launch(&bench, vm.instance, bench.image), ERR_PRIV_REFUSED, "a dead one");
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "", "left after all: %s", traces);
    bench_close(&bench);
}

Test(priv_server, R41_uids_are_not_shared, .timeout = 60)
{
    enum { MANY = 40 };
    struct bench bench;
    struct bench_vm vms[MANY];
    bench_init(&bench);
    bench.config.uid_count = MANY;
    bench_serve(&bench, false);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < MANY; i++) {
            bench_reserve(&bench, &vms[i]);
            cr_assert(vms[i].uid >= bench.config.uid_base &&
                      vms[i].uid < bench.config.uid_base + MANY);
            for (int j = 0; j < i; j++) {
                cr_assert_neq(vms[i].uid, vms[j].uid);
                cr_assert_str_neq(vms[i].instance, vms[j].instance);
            }
        }
        /* The next that is asked for is the first one's neighbour: only the one given back is free.
         */
        for (int i = 0; i < MANY; i += 2) {
            uint32_t given_back = vms[i + 1].uid;
            bench_kill(&bench, &vms[i + 1], NULL);
            bench_reserve(&bench, &vms[i + 1]);
            cr_assert_eq(vms[i + 1].uid, given_back);
        }
        for (int i = 0; i < MANY; i++)
            bench_kill(&bench, &vms[i], NULL);
    }
    bench_close(&bench);
}
