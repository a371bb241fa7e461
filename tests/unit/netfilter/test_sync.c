/* The cheap probe, the whole check, and what they find; counters of many; the preflight. */
#include "inject.h"
#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>

enum { VMS = 30 };

static void make_vms(struct support *support, struct netfilter_vm vms[VMS])
{
    struct error err = {0};
    for (unsigned i = 0; i < VMS; i++)
        vms[i] = support_vm(i * 5);
    support_open(support);
    cr_assert(netfilter_change(support->netfilter, vms, VMS, NULL, 0, &err) == 0, "%s", err.msg);
}

static bool probe_is_calm(struct support *support)
{
    struct error err = {0};
    if (netfilter_probe(support->netfilter, &err) == 0)
        return true;
    cr_expect(err.code == ERR_FIREWALL_DRIFT, "%s", err.msg);
    return false;
}

static size_t sync_vms(struct support *support, const struct netfilter_vm *vms, size_t count)
{
    struct error err = {0};
    size_t repairs = 0;
    cr_assert(netfilter_sync(support->netfilter, vms, count, &repairs, &err) == 0, "%s", err.msg);
    return repairs;
}

Test(netfilter_sync, R19_the_probe_sees_what_changes_a_tables_size)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS];
    make_vms(&support, vms);
    cr_expect(probe_is_calm(&support));
    static const char *const edits[] = {"-A INPUT -s 192.0.2.1", "-F", "-D OUTPUT 1",
                                        "-F MOTTE_u_7000000", "-N FOREIGN"};
    for (size_t i = 0; i < COUNT_OF(edits); i++) {
        for (int v6 = 0; v6 < 2; v6++) {
            if (v6 && i == 0)
                continue; /* an IPv4 address */
            support_do("%s -t security %s", support_iptables(v6), edits[i]);
            cr_expect(!probe_is_calm(&support), "%s", edits[i]);
            sync_vms(&support, vms, VMS);
            cr_expect(probe_is_calm(&support), "%s", edits[i]);
        }
    }
}

/* A commit of ours between an edit and the probe must not make the edit look like ours. */
Test(netfilter_sync, R19_what_others_did_outlasts_our_own_commits)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS], next = support_vm(999);
    make_vms(&support, vms);
    support_do("ip6tables-legacy -w 5 -t security -F MOTTE_u_7000001");
    support_add(&support, 999);
    cr_expect(!probe_is_calm(&support));
    cr_expect(!probe_is_calm(&support), "it forgot");
    cr_expect(sync_vms(&support, vms, VMS) > 0);
    cr_expect(probe_is_calm(&support));
    struct error err = {0};
    cr_expect(netfilter_check(support.netfilter, &next, &err) == 0, "not in the list, yet gone: %s",
              err.msg);
}

/* Number of places that differ in one family after this edit. */
static void expect_repairs(struct support *support, const struct netfilter_vm vms[VMS],
                           const char *edit, size_t at_least, size_t at_most)
{
    for (int v6 = 0; v6 < 2; v6++) {
        cleanup_free char *before = support_all_rules();
        support_do("%s -t security %s", support_iptables(v6), edit);
        inject()->replaces = 0;
        size_t repairs = sync_vms(support, vms, VMS);
        cr_expect(repairs >= at_least && repairs <= at_most, "%s: %zu repairs", edit, repairs);
        cr_expect(inject()->replaces == 1, "%s: %d commits", edit, inject()->replaces);
        cr_expect(sync_vms(support, vms, VMS) == 0, "%s: not repaired", edit);
        cr_expect(inject()->replaces == 1, "%s: a commit for nothing", edit);
        cleanup_free char *after = support_all_rules();
        cr_expect(strlen(before) == strlen(after), "%s: want\n%shave\n%s", edit, before, after);
    }
}

Test(netfilter_sync, R19_sync_repairs_every_edit_of_ours)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS];
    netfilter_name chain, other;
    char edits[9][160];
    make_vms(&support, vms);
    netfilter_chain_name(vms[0].instance, chain);
    netfilter_chain_name(vms[1].instance, other);
    snprintf(edits[0], sizeof(edits[0]), "-F %s", chain);
    snprintf(edits[1], sizeof(edits[1]), "-I %s -j ACCEPT", chain);
    /* Same size, so only this check finds them: another VM's chain for its uid, another verdict. */
    snprintf(edits[2], sizeof(edits[2]), "-R MOTTE_u_7000000 4 -m owner --uid-owner %u -j %s",
             vms[0].uid, other);
    snprintf(edits[3], sizeof(edits[3]), "-R %s 1 -j ACCEPT", chain);
    snprintf(edits[4], sizeof(edits[4]), "-I MOTTE_u_7000000 -g %s", chain);
    snprintf(edits[5], sizeof(edits[5]), "-I MOTTE_phys -j ACCEPT");
    snprintf(edits[6], sizeof(edits[6]), "-N MOTTE_u_7000abc");
    snprintf(edits[7], sizeof(edits[7]), "-D OUTPUT 2");
    snprintf(edits[8], sizeof(edits[8]), "-I MOTTE_u_7000000 -m owner --uid-owner %u -j %s",
             vms[0].uid, other);
    cleanup_free char *fourth =
        support_run("iptables-legacy -w 5 -t security -S MOTTE_u_7000000 4");
    cr_assert(strstr(fourth, chain) != NULL, "%s", fourth); /* edits[2] replaces its link */
    for (size_t i = 0; i < COUNT_OF(edits); i++)
        expect_repairs(&support, vms, edits[i], i == 6 ? 0 : 1, 2);
    expect_repairs(&support, vms, "-F", 4, 200);
    expect_repairs(&support, vms, "-F MOTTE_u_7000001", 3, 4);
}

/* The daemon ends, somebody flushes, the daemon comes back with what its store knows. */
Test(netfilter_sync, R19_sync_after_a_restart)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS];
    make_vms(&support, vms);
    netfilter_free(support.netfilter);
    support.netfilter = NULL;
    support_do("iptables-legacy -w 5 -t security -F");
    support_do("iptables-legacy -w 5 -t security -X");
    support_open(&support);
    cr_expect(probe_is_calm(&support));
    cr_expect(sync_vms(&support, vms, VMS) == VMS);
    for (size_t i = 0; i < VMS; i++) {
        struct error err = {0};
        cr_expect(netfilter_check(support.netfilter, &vms[i], &err) == 0, "%s", err.msg);
    }
}

Test(netfilter_sync, R18_a_probe_that_gets_no_answer_says_so)
{
    cleanup_support struct support support = support_enter();
    struct error err = {0};
    support_open(&support);
    inject()->no_security = true;
    cr_expect(netfilter_probe(support.netfilter, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_TABLE && err.sys == ENOENT, "%s", err.msg);
}

/* ---- counters ------------------------------------------------------------------------------- */

static int send_both(const void *context)
{
    const int *times = context;
    struct sockaddr_in v4 = {
        .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 v6 = {
        .sin6_family = AF_INET6, .sin6_port = htons(9), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    cleanup_close int a = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    cleanup_close int b = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int i = 0; i < *times; i++)
        sendto(a, "x", 1, 0, (struct sockaddr *)&v4, sizeof(v4));
    sendto(b, "x", 1, 0, (struct sockaddr *)&v6, sizeof(v6));
    return 0;
}

Test(netfilter_sync, R16_counters_of_many_from_one_read)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS + 1];
    uint64_t packets[VMS + 1];
    struct error err = {0};
    make_vms(&support, vms);
    vms[VMS] = support_vm(5000); /* nobody's */
    for (int i = 0; i < 5; i++)
        cr_assert(support_as(vms[i * 6].uid, send_both, &i) == 0);
    cr_assert(netfilter_counts(support.netfilter, vms, VMS + 1, packets, &err) == 0, "%s", err.msg);
    for (int i = 0; i < VMS; i++)
        cr_expect(packets[i] == (i % 6 == 0 ? (uint64_t)i / 6 + 1 : 0), "VM %d: %lu", i,
                  (unsigned long)packets[i]);
    cr_expect(packets[VMS] == NETFILTER_UNCOUNTED);
    cr_expect(netfilter_count(support.netfilter, &vms[VMS], packets, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_DRIFT, "%s", err.msg);
    /* Neither a batch nor a repair elsewhere costs a counter. */
    support_do("iptables-legacy -w 5 -t security -F MOTTE_uid");
    cr_expect(sync_vms(&support, vms, VMS) > 0);
    support_add(&support, 6000);
    cr_assert(netfilter_counts(support.netfilter, vms, VMS, packets, &err) == 0, "%s", err.msg);
    cr_expect(packets[24] == 5, "%lu", (unsigned long)packets[24]);
}

/* ---- preflight ------------------------------------------------------------------------------ */

Test(netfilter_sync, R14_preflight_says_when_bridged_packets_are_not_seen)
{
    static const char *const names[] = {"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"};
    cleanup_support struct support support = support_enter();
    char warning[NETFILTER_WARNING_SIZE];
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        support_do("echo 1 >/proc/sys/net/bridge/%s", names[i]);
        netfilter_preflight(warning);
        cr_expect_str_empty(warning);
        support_do("echo 0 >/proc/sys/net/bridge/%s", names[i]);
        netfilter_preflight(warning);
        cr_expect(strstr(warning, names[i]) != NULL, "'%s'", warning);
        support_do("echo 1 >/proc/sys/net/bridge/%s", names[i]);
    }
}
