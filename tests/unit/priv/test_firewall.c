/* The firewall inside the root half: chains made ahead, failures told by their own errors, changes by
 * other programs, and what a start and a stop leave. */
#include "bench.h"
#include "tests/unit/netfilter/inject.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <time.h>

enum { MOST = 256, NEVER_MS = 3600000 };

static struct bench bench;

static struct priv_host host(void)
{
    struct priv_host host;
    struct error err = {0};
    cr_assert_eq(priv_host(bench.client, &host, &err), 0, "%s", err.msg);
    return host;
}

static bool is_in_sync(const struct priv_host *now, uint64_t wanted)
{
    return now->firewall_in_sync == wanted;
}

static bool has_spares(const struct priv_host *now, uint64_t wanted)
{
    return now->firewall_spares == wanted;
}

static bool has_repaired(const struct priv_host *now, uint64_t more_than)
{
    return now->firewall_in_sync && now->firewall_repairs > more_than;
}

static struct priv_host wait_host(bool (*is)(const struct priv_host *, uint64_t), uint64_t wanted)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    for (;;) {
        struct priv_host now = host();
        if (is(&now, wanted))
            return now;
        cr_assert_gt(clock_left_ms(deadline), 0, "in sync %u, spares %u, repairs %llu",
                     now.firewall_in_sync, now.firewall_spares,
                     (unsigned long long)now.firewall_repairs);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

static void up(uint32_t uids)
{
    bench_init(&bench);
    bench.config.max_vms = MOST;
    bench.config.uid_count = uids;
    bench_serve(&bench, false);
    wait_host(has_spares, uids < 64 ? uids : 64);
}

static enum error_code reserve(struct bench_vm *vm, char message[static ERROR_MESSAGE_MAX])
{
    struct error err = {0};
    char chain[PRIV_CHAIN_SIZE];
    if (priv_reserve(bench.client, vm->instance, chain, &vm->uid, &err) == 0)
        return ERR_NONE;
    memcpy(message, err.msg, ERROR_MESSAGE_MAX);
    return err.code;
}

static enum error_code guard(const struct bench_vm *vm)
{
    struct error err = {0};
    return priv_guard(bench.client, vm->instance, &BENCH_SHAPE, &err) == 0 ? ERR_NONE : err.code;
}

static void end(const struct bench_vm *vm)
{
    struct error err = {0};
    cr_assert_eq(priv_kill(bench.client, vm->instance, NULL, &err), 0, "%s", err.msg);
}

static int hold_lock(void)
{
    int fd = open("/run/xtables.lock", O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0 && flock(fd, LOCK_EX) == 0);
    return fd;
}

/* By a program that heeds no lock. */
static void tables(const char *arguments)
{
    char command[256];
    snprintf(command, sizeof(command), "XTABLES_LOCKFILE=%s/other-lock iptables-legacy -t %s",
             bench.directory, arguments);
    cr_assert_eq(system(command), 0, "%s", command);
}

/* Every chain of a VM, with the server and without. */
static size_t list(netfilter_name **ret)
{
    struct netfilter_config config = {.uid_base = bench.config.uid_base,
                                      .uid_count = bench.config.uid_count};
    struct netfilter *own = NULL;
    struct error err = {0};
    size_t count = 0;
    if (bench.server == NULL)
        cr_assert_eq(netfilter_open(&config, &own, &err), 0, "%s", err.msg);
    const struct netfilter *tables =
        own != NULL ? own : priv_firewall_tables(bench.server->firewall);
    cr_assert_eq(netfilter_list(tables, ret, &count, &err), 0, "%s", err.msg);
    netfilter_free(own);
    return count;
}

static bool stands(const char *instance)
{
    cleanup_free netfilter_name *names = NULL;
    char chain[NETFILTER_CHAIN_MAX + 1];
    bool found = false;
    size_t count = list(&names);
    netfilter_chain_name(instance, chain);
    for (size_t i = 0; i < count; i++)
        found |= strcmp(names[i], chain) == 0;
    return found;
}

/* ---- chains made ahead ----------------------------------------------------------------------- */

Test(priv_firewall, R17_many_spawns_share_commits, .timeout = 60)
{
    enum { VMS = 192, FAMILIES = 2 };
    static struct bench_vm vms[VMS];
    up(65536);
    inject()->replaces = 0;
    for (size_t i = 0; i < VMS; i++) {
        bench_reserve(&bench, &vms[i]);
        cr_assert(stands(vms[i].instance));
        for (size_t j = 0; j < i; j++)
            cr_assert_neq(vms[i].uid, vms[j].uid);
    }
    cr_expect_leq(inject()->replaces, FAMILIES * VMS / 16, "%d commits for %d VMs",
                  inject()->replaces, VMS);
    inject()->replaces = 0;
    for (size_t i = 0; i < VMS; i++)
        end(&vms[i]);
    char traces[128];
    for (size_t i = 0; i < VMS; i++)
        bench_traces(&bench, vms[i].instance, traces, sizeof(traces));
    cr_expect_leq(inject()->replaces, FAMILIES * VMS / 8, "%d commits for %d ends",
                  inject()->replaces, VMS);
    bench_close(&bench);
}

Test(priv_firewall, R41_a_uid_is_given_again_when_its_chain_is_gone, .timeout = 60)
{
    struct bench_vm first, second;
    char message[ERROR_MESSAGE_MAX];
    up(1);
    bench_reserve(&bench, &first);
    int lock = hold_lock();
    end(&first);
    cr_assert_eq(reserve(&second, message), ERR_FIREWALL_LOCK);
    cr_assert(stands(first.instance));
    close(lock);
    bench_reserve(&bench, &second);
    cr_assert_eq(second.uid, first.uid);
    cr_assert_str_neq(second.instance, first.instance);
    cr_assert_not(stands(first.instance));
    bench_close(&bench);
}

/* A captured front asks for ever more: VMs can be ended all the same. */
Test(priv_firewall, R41_waiting_for_chains_does_not_hold_up_ends, .timeout = 60)
{
    enum { ASKED = 40 };
    struct bench_vm vm;
    struct priv_reply reply;
    up(2);
    bench_reserve(&bench, &vm);
    bench_stop(&bench);
    bench_serve(&bench, true);
    struct priv_request request = bench_request(PRIV_RESERVE, NULL);
    for (int i = 0; i < 2; i++) {
        reply = bench_ask(&bench, &request, sizeof(request), NULL, 0);
        cr_assert_eq(reply.code, ERR_NONE, "%s", reply.message);
    }
    struct priv_request kill = bench_request(PRIV_KILL, reply.u.reserve.instance);
    int lock = hold_lock();
    bench_ask(&bench, &kill, sizeof(kill), NULL, 0); /* its uid is not free: RESERVE has to wait */
    for (uint64_t i = 0; i < ASKED; i++) {
        request.id = i;
        pair_send(bench.raw, &request, sizeof(request), NULL, 0);
    }
    kill.id = ASKED;
    pair_send(bench.raw, &kill, sizeof(kill), NULL, 0);
    cr_assert_eq(recv(bench.raw, &reply, sizeof(reply), 0), (ssize_t)sizeof(reply));
    cr_assert(reply.id == ASKED && reply.code == ERR_NONE, "%u: %s", reply.op, reply.message);
    close(lock);
    for (int i = 0, served = 0; i < ASKED; i++) {
        cr_assert_eq(recv(bench.raw, &reply, sizeof(reply), 0), (ssize_t)sizeof(reply));
        served += reply.code == ERR_NONE;
        cr_assert(reply.code == ERR_NONE || reply.code == ERR_CAPACITY ||
                      reply.code == ERR_FIREWALL_LOCK,
                  "%s", reply.message);
        cr_assert_leq(served, 1);
    }
    bench_close(&bench);
}

/* ---- failures -------------------------------------------------------------------------------- */

Test(priv_firewall, R18_each_failure_is_told_by_its_own_error, .timeout = 60)
{
    struct bench_vm vms[2], more;
    char message[ERROR_MESSAGE_MAX];
    up(2);
    bench_reserve(&bench, &vms[0]);
    bench_reserve(&bench, &vms[1]);
    cr_assert_eq(reserve(&more, message), ERR_CAPACITY);
    cr_assert_not_null(strstr(message, "uid-count"), "%s", message);
    inject()->no_memory_for[1] = true;
    end(&vms[1]);
    cr_assert_eq(reserve(&more, message), ERR_FIREWALL_COMMIT, "%s", message);
    inject()->no_memory_for[1] = false;
    bench_reserve(&bench, &vms[1]);
    int lock = hold_lock();
    end(&vms[1]);
    cr_assert_eq(reserve(&more, message), ERR_FIREWALL_LOCK, "%s", message);
    cr_assert_not_null(strstr(message, "xtables.lock"), "%s", message);
    cr_assert_eq(guard(&vms[0]), ERR_NONE); /* a read-back needs no lock */
    close(lock);
    bench_reserve(&bench, &vms[1]);
    cr_assert_eq(guard(&vms[1]), ERR_NONE);
    bench_close(&bench);
}

/* ---- other programs -------------------------------------------------------------------------- */

Test(priv_firewall, R19_reserve_and_guard_refuse_until_a_flush_is_repaired, .timeout = 60)
{
    struct bench_vm vm, more;
    char message[ERROR_MESSAGE_MAX];
    up(65536);
    bench_reserve(&bench, &vm);
    uint64_t drifts = host().firewall_drifts;
    int lock = hold_lock();
    tables("security -F");
    wait_host(is_in_sync, 0);
    cr_assert_eq(guard(&vm), ERR_FIREWALL_DRIFT);
    cr_assert_eq(reserve(&more, message), ERR_FIREWALL_DRIFT, "%s", message);
    close(lock);
    struct priv_host after = wait_host(is_in_sync, 1);
    cr_assert_gt(after.firewall_repairs, 0u);
    cr_assert_eq(after.firewall_drifts, drifts + 1);
    bench_reserve(&bench, &more);
    cr_assert_eq(guard(&more), ERR_NONE);
    bench_close(&bench);
}

/* Before the probe sees anything: the read-back alone. */
Test(priv_firewall, R19_a_guard_that_finds_its_chain_edited_has_it_repaired, .timeout = 60)
{
    struct bench_vm vm, more;
    char chain[NETFILTER_CHAIN_MAX + 1], command[80];
    bench_init(&bench);
    bench.config.firewall_probe_ms = bench.config.firewall_check_ms = NEVER_MS;
    bench_serve(&bench, false);
    wait_host(has_spares, 64);
    bench_reserve(&bench, &vm);
    netfilter_chain_name(vm.instance, chain);
    snprintf(command, sizeof(command), "security -R %s 1 -j ACCEPT", chain);
    tables(command);
    cr_assert_eq(guard(&vm), ERR_FIREWALL_DRIFT);
    wait_host(has_repaired, 0);
    bench_reserve(&bench, &more);
    cr_assert_eq(guard(&more), ERR_NONE);
    bench_close(&bench);
}

Test(priv_firewall, R19_an_edit_that_keeps_the_size_is_found_by_the_check, .timeout = 60)
{
    bench_init(&bench);
    bench.config.firewall_check_ms = 100;
    bench_serve(&bench, false);
    wait_host(has_spares, 64);
    cr_assert_eq(host().firewall_repairs, 0u);
    tables("security -R MOTTE_phys 1 -j ACCEPT");
    struct priv_host after = wait_host(has_repaired, 0);
    cr_assert_eq(after.firewall_drifts, 1u);
    tables("security -C MOTTE_phys -j DROP");
    bench_close(&bench);
}

Test(priv_firewall, R19_a_chain_that_nobody_has_is_removed_by_the_check, .timeout = 60)
{
    bench_init(&bench);
    bench.config.firewall_check_ms = 100;
    bench_serve(&bench, false);
    wait_host(has_spares, 64);
    tables("security -N MOTTE_00112233445566778899");
    wait_host(has_repaired, 0);
    cleanup_free netfilter_name *names = NULL;
    cr_assert_eq(list(&names), 64u);
    bench_close(&bench);
}

/* A kernel without `security`: there a flush of `filter` hits us. */
Test(priv_firewall, R19_a_flush_of_filter_is_repaired_where_the_rules_are_there, .timeout = 60)
{
    struct bench_vm vm;
    inject()->no_security = true;
    up(65536);
    bench_reserve(&bench, &vm);
    cr_assert_eq(guard(&vm), ERR_NONE);
    cr_assert_eq(host().firewall_v4, NETFILTER_FILTER);
    tables("filter -F");
    wait_host(has_repaired, 0);
    tables("filter -C MOTTE_uid -j DROP");
    cr_assert(stands(vm.instance));
    bench_close(&bench);
}

/* ---- start and stop -------------------------------------------------------------------------- */

Test(priv_firewall, R20_a_stop_leaves_the_chains_of_recorded_instances_only, .timeout = 60)
{
    struct bench_vm recorded, reserved, killed;
    up(65536);
    bench_reserve(&bench, &recorded);
    bench_reserve(&bench, &reserved);
    bench_reserve(&bench, &killed);
    cr_assert_eq(guard(&recorded), ERR_NONE);
    cr_assert_eq(guard(&killed), ERR_NONE);
    end(&killed);
    bench_stop(&bench);
    cleanup_free netfilter_name *names = NULL;
    cr_assert_eq(list(&names), 1u);
    cr_assert(stands(recorded.instance));
    bench_close(&bench);
}

/* As after a kill: chains that were made for instances which nobody knows. */
Test(priv_firewall, R20_a_start_repairs_the_recorded_and_removes_the_others, .timeout = 60)
{
    enum { STRAYS = 70 };
    struct bench_vm recorded;
    struct netfilter *own = NULL;
    struct netfilter_vm strays[STRAYS];
    struct error err = {0};
    up(65536);
    bench_reserve(&bench, &recorded);
    cr_assert_eq(guard(&recorded), ERR_NONE);
    bench_stop(&bench);
    struct netfilter_config config = {.uid_base = bench.config.uid_base,
                                      .uid_count = bench.config.uid_count};
    cr_assert_eq(netfilter_open(&config, &own, &err), 0, "%s", err.msg);
    for (uint32_t i = 0; i < STRAYS; i++) {
        cr_assert_eq(id_instance_make(strays[i].instance, &err), 0);
        strays[i].uid = bench.config.uid_base + 1000 + i;
    }
    cr_assert_eq(netfilter_change(own, strays, STRAYS, NULL, 0, &err), 0, "%s", err.msg);
    netfilter_free(own);
    tables("security -F");
    inject()->replaces = 0;
    bench_serve(&bench, false);
    cr_expect_leq(inject()->replaces, 8, "%d commits to start", inject()->replaces);
    for (size_t i = 0; i < STRAYS; i++)
        cr_assert_not(stands(strays[i].instance));
    struct netfilter_vm kept = {.uid = recorded.uid};
    memcpy(kept.instance, recorded.instance, ID_INSTANCE_SIZE);
    cr_assert_eq(netfilter_check(priv_firewall_tables(bench.server->firewall), &kept, &err), 0,
                 "%s", err.msg);
    cr_assert_eq(host().firewall_repairs, 0u, "only what is found while it runs is counted");
    bench_close(&bench);
}
