/* R19: what other programs do to our rules is noticed, and adding again repairs it; what they do
 * between our read and our commit is not lost. */
#include "inject.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static void expect_drift(struct support *support, const char *what)
{
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    cr_assert(netfilter_check(support->netfilter, &vm, &err) == -1, "not noticed: %s", what);
    cr_expect(err.code == ERR_FIREWALL_DRIFT, "%s: %s", what, err.msg);
}

static void expect_in_sync(struct support *support, const char *what)
{
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    cr_assert(netfilter_check(support->netfilter, &vm, &err) == 0, "%s: %s", what, err.msg);
}

Test(netfilter_drift, R19_edits_are_noticed_and_repaired)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    support_add(&support, 1);
    support_add(&support, 2);
    struct netfilter_vm vm = support_vm(1);
    netfilter_name chain;
    char interface[NETFILTER_INTERFACE_MAX + 1], uid_jump[96], in_jump[96], drop[64], accept[64];
    netfilter_chain_name(vm.instance, chain);
    netfilter_interface_name(vm.instance, interface);
    snprintf(uid_jump, sizeof(uid_jump), "-D MOTTE_u_7000000 -m owner --uid-owner %u -j %s", vm.uid,
             chain);
    snprintf(in_jump, sizeof(in_jump), "-D MOTTE_i_%.2s -i %s -j %s", interface + 2, interface,
             chain);
    snprintf(drop, sizeof(drop), "-D %s -j DROP", chain);
    snprintf(accept, sizeof(accept), "-I %s -p udp -j ACCEPT", chain);
    const char *const all[] = {
        uid_jump,
        in_jump,
        drop,
        accept,
        "-F",
        "-F OUTPUT",
        "-D INPUT 1",
        "-D FORWARD 4",
        "-F MOTTE_uid",
        "-F MOTTE_phys",
        "-D MOTTE_out -j DROP",
        "-F MOTTE_u_70000",
        "-I MOTTE_uid -j ACCEPT",
        "-I MOTTE_u_700000 -j ACCEPT",
        "-A MOTTE_u_7000000 -j ACCEPT",
        "-I MOTTE_u_7000000 -m owner --uid-owner 1879048193 -j RETURN",
        "-I MOTTE_uid -g MOTTE_u_70000", /* what it returns goes past the root's DROP */
        "-I MOTTE_u_700000 -p udp -j MOTTE_u_7000000",
        "-R MOTTE_u_70000 1 -m owner --uid-owner 1879048192-1879048200 -j MOTTE_u_700000",
        "-I MOTTE_in -j RETURN",
        "-A MOTTE_in -j ACCEPT",
        "-I OUTPUT -j ACCEPT",
        "-R MOTTE_out 3 -p tcp -j DROP", /* same number of rules */
        "-R OUTPUT 1 -m owner --uid-owner 5 -j MOTTE_uid",
    };
    cleanup_free char *whole = support_all_rules();
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        for (int v6 = 0; v6 < 2; v6++) {
            expect_in_sync(&support, all[i]);
            support_do("%s -t security %s", support_iptables(v6), all[i]);
            expect_drift(&support, all[i]);
            support_add(&support, 1);
            support_add(&support, 2);
            expect_in_sync(&support, all[i]);
        }
    }
    for (int v6 = 0; v6 < 2; v6++) /* the one foreign edit that is not ours to remove */
        support_do("%s -t security -D OUTPUT -j ACCEPT", support_iptables(v6));
    struct error err = {0};
    for (unsigned n = 1; n <= 2; n++) { /* order among VMs is free, so make it the same again */
        struct netfilter_vm again = support_vm(n);
        cr_assert(netfilter_remove(support.netfilter, &again, &err) == 0, "%s", err.msg);
        support_add(&support, n);
    }
    cleanup_free char *repaired = support_all_rules();
    cr_expect(strcmp(whole, repaired) == 0, "want\n%shave\n%s", whole, repaired);
}

Test(netfilter_drift, R19_each_of_many_is_judged_by_itself)
{
    enum { VMS = 5 };
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[VMS];
    struct error found[VMS];
    netfilter_name chains[VMS];
    support_open(&support);
    for (unsigned i = 0; i < VMS; i++) {
        vms[i] = support_vm(i);
        netfilter_chain_name(vms[i].instance, chains[i]);
        if (i != 3)
            support_add(&support, i);
    }
    support_do("iptables-legacy -w 5 -t security -F %s", chains[1]);
    support_do("ip6tables-legacy -w 5 -t security -F %s", chains[2]);
    vms[4].uid = UID_BASE + UID_COUNT;
    netfilter_check_each(support.netfilter, vms, VMS, found);
    static const enum error_code wanted[VMS] = {ERR_NONE, ERR_FIREWALL_DRIFT, ERR_FIREWALL_DRIFT,
                                                ERR_FIREWALL_DRIFT, ERR_INTERNAL};
    for (unsigned i = 0; i < VMS; i++)
        cr_expect(found[i].code == wanted[i], "%u: %s", i, found[i].msg);
    cr_expect(strstr(found[1].msg, "IPv4") != NULL && strstr(found[2].msg, "IPv6") != NULL);
    support_do("ip6tables-legacy -w 5 -t security -D OUTPUT 1"); /* all have lost their way */
    netfilter_check_each(support.netfilter, vms, VMS, found);
    for (unsigned i = 0; i < VMS; i++)
        cr_expect(found[i].code != ERR_NONE, "%u", i);
}

Test(netfilter_drift, R19_a_restart_repairs_the_roots)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    cleanup_free char *before = support_all_rules();
    support_do("iptables-legacy -w 5 -t security -F");
    support_do("ip6tables-legacy -w 5 -t security -D OUTPUT 2");
    netfilter_free(support.netfilter);
    support_open(&support);
    cleanup_free char *after = support_all_rules();
    cr_expect(strcmp(before, after) == 0, "want\n%shave\n%s", before, after);
}

/* Another range of uids after a restart: the old jump goes, the new one comes, in one commit. */
Test(netfilter_drift, R19_another_range_replaces_the_first)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    netfilter_free(support.netfilter);
    struct netfilter_config config = support_config(&support);
    config.uid_base = 300000;
    config.uid_count = 16;
    struct error err = {0};
    int replaces = inject()->replaces;
    cr_assert(netfilter_open(&config, &support.netfilter, &err) == 0, "%s", err.msg);
    cr_expect(inject()->replaces == replaces + 2);
    cleanup_free char *output = support_run("iptables-legacy -w 5 -t security -S OUTPUT");
    cr_expect(strstr(output, "--uid-owner 300000-300015 -j MOTTE_uid") != NULL, "%s", output);
    cr_expect(strstr(output, "1879048192") == NULL, "%s", output);
}

/* ---- other writers -------------------------------------------------------------------------- */

/* Edits without our lock, before our first commits get to the kernel: it answers EAGAIN to them. */
static void foreign_edit(int nth)
{
    if (nth >= 3)
        return;
    support_do("XTABLES_LOCKFILE=/dev/null iptables-legacy -t security -A INPUT -s 192.0.2.%d",
               nth + 1);
}

Test(netfilter_drift, R17_a_writer_that_was_faster_loses_nothing)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    inject()->replaces = 0;
    inject()->before_replace = foreign_edit;
    support_add(&support, 1);
    inject()->before_replace = NULL;
    cr_expect(inject()->replaces == 5, "3 refused, 1 for each family, not %d", inject()->replaces);
    struct error err = {0};
    cr_expect(netfilter_probe(support.netfilter, &err) == -1, "the other writer was not noticed");
    expect_in_sync(&support, "raced");
    cleanup_free char *input = support_run("iptables-legacy -w 5 -t security -S INPUT");
    for (int i = 1; i <= 3; i++) {
        char rule[64];
        snprintf(rule, sizeof(rule), "-A INPUT -s 192.0.2.%d/32", i);
        cr_expect(strstr(input, rule) != NULL, "%s lost:\n%s", rule, input);
    }
}

/* The second half of the commit then fails with EINVAL, though our rules are in. */
static void edit_once(void)
{
    inject()->before_counters = NULL;
    support_do("XTABLES_LOCKFILE=/dev/null iptables-legacy -t security -A INPUT -s 192.0.2.9");
}

Test(netfilter_drift, R17_a_writer_between_rules_and_counters)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    inject()->before_counters = edit_once;
    inject()->replaces = 0;
    support_add(&support, 1);
    cr_expect(inject()->replaces == 2, "not %d: ours were in", inject()->replaces);
    expect_in_sync(&support, "raced");
    cleanup_free char *input = support_run("iptables-legacy -w 5 -t security -S INPUT");
    cr_expect(strstr(input, "-A INPUT -s 192.0.2.9/32") != NULL, "%s", input);
}

/* One that never stops must not keep us for ever. */
static void edit_always(int nth)
{
    (void)nth;
    support_do("XTABLES_LOCKFILE=/dev/null iptables-legacy -t security -A INPUT");
}

Test(netfilter_drift, R18_a_writer_that_never_stops)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    inject()->before_replace = edit_always;
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    cr_assert(netfilter_add(support.netfilter, &vm, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_COMMIT && err.sys == EAGAIN, "%s", err.msg);
}

/* The lock is ours whenever something reaches the kernel. */
static void expect_locked(int nth)
{
    (void)nth;
    cleanup_close int fd = open(getenv("XTABLES_LOCKFILE"), O_RDONLY | O_CLOEXEC);
    cr_assert(fd >= 0);
    /* Even to be shared: ours must be exclusive. */
    cr_expect(flock(fd, LOCK_SH | LOCK_NB) == -1 && errno == EWOULDBLOCK, "not locked");
}

Test(netfilter_drift, R17_every_commit_holds_the_lock)
{
    cleanup_support struct support support = support_enter();
    inject()->before_replace = expect_locked;
    support_open(&support);
    support_add(&support, 1);
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    cr_assert(netfilter_remove(support.netfilter, &vm, &err) == 0, "%s", err.msg);
    cr_assert(netfilter_remove_all(support.netfilter, &err) == 0, "%s", err.msg);
    cr_expect(inject()->replaces == 8, "%d commits", inject()->replaces);
    cleanup_close int fd = open(support.lock, O_RDONLY | O_CLOEXEC);
    cr_expect(flock(fd, LOCK_EX | LOCK_NB) == 0, "still locked");
}

/* Only adds: with as many rules before as after, the kernel cannot tell, and a program that ignores
 * the lock undoes what we did; see the check above for that. */
Test(netfilter_drift, R17_a_busy_writer_without_our_lock)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    pid_t writer = fork();
    cr_assert(writer >= 0);
    if (writer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-c",
              "export XTABLES_LOCKFILE=/dev/null; while :; do for i in iptables ip6tables; do "
              "$i-legacy -t security -A INPUT -i foreign -j ACCEPT; "
              "$i-legacy -t security -D INPUT -i foreign -j ACCEPT; done; done 2>/dev/null",
              (char *)NULL);
        _exit(1);
    }
    for (unsigned n = 1; n <= 60; n++)
        support_add(&support, n);
    cr_assert(kill(writer, SIGKILL) == 0);
    cr_assert(waitpid(writer, NULL, 0) == writer);
    for (unsigned n = 1; n <= 60; n++) {
        struct netfilter_vm vm = support_vm(n);
        struct error err = {0};
        cr_expect(netfilter_check(support.netfilter, &vm, &err) == 0, "VM %u: %s", n, err.msg);
    }
}

/* With the lock nothing is lost on either side, though each commit writes the whole table. */
Test(netfilter_drift, R17_a_busy_writer_with_our_lock_and_we_lose_nothing)
{
    enum { RULES = 12 };
    cleanup_support struct support support = support_enter();
    int status = -1;
    support_open(&support);
    pid_t writer = fork();
    cr_assert(writer >= 0);
    if (writer == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execl("/bin/sh", "sh", "-ec",
              "n=0; while [ $n -lt 12 ]; do for i in iptables ip6tables; do "
              "$i-legacy -w 20 -t security -A INPUT -i f$n -j ACCEPT; "
              "[ $n = 0 ] || $i-legacy -w 20 -t security -D INPUT -i f$((n-1)) -j ACCEPT; "
              "$i-legacy -w 20 -t security -A FORWARD -i f$n -j ACCEPT; done; n=$((n+1)); done",
              (char *)NULL);
        _exit(1);
    }
    unsigned added = 0;
    while (waitpid(writer, &status, WNOHANG) == 0)
        support_add(&support, ++added);
    cr_assert(status == 0, "the other program failed: %d", status);
    cr_assert(added > 1);
    for (int ipv6 = 0; ipv6 < 2; ipv6++) {
        cleanup_free char *rules =
            support_run("%s -t security -S | grep -c -- '-i f'", support_iptables(ipv6));
        cr_expect(atoi(rules) == RULES + 1, "%d foreign rules", atoi(rules));
    }
    for (unsigned n = 1; n <= added; n++) {
        struct netfilter_vm vm = support_vm(n);
        struct error err = {0};
        cr_expect(netfilter_check(support.netfilter, &vm, &err) == 0, "VM %u: %s", n, err.msg);
    }
}
