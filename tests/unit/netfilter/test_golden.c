/* The rules as iptables-legacy prints them, against golden/NAME.FAMILY. */
#include "inject.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>

static void compare(const char *name, bool ipv6, const char *table)
{
    char path[512], want[16384];
    snprintf(path, sizeof(path), "%s/%s.%s", GOLDEN_DIR, name, ipv6 ? "v6" : "v4");
    cleanup_free char *have = support_run("%s -S -t %s", support_iptables(ipv6), table);
    if (getenv("MOTTE_GOLDEN_WRITE") != NULL) {
        cr_assert(fs_replace_at(AT_FDCWD, path, have, strlen(have), 0644) == 0, "%s", path);
        return;
    }
    cr_assert(fs_read_at(AT_FDCWD, path, want, sizeof(want)) >= 0, "%s: %s", path, strerror(errno));
    cr_assert(strcmp(have, want) == 0, "%s: have\n%swant\n%s", path, have, want);
}

static void compare_both(const char *name, const char *table)
{
    compare(name, false, table);
    compare(name, true, table);
}

Test(netfilter_golden, R14_R15_roots_stand_from_the_start)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    cr_expect(netfilter_state(support.netfilter, false) == NETFILTER_SECURITY);
    cr_expect(netfilter_state(support.netfilter, true) == NETFILTER_SECURITY);
    compare_both("roots", "security");
}

Test(netfilter_golden, R14_R15_each_vm_is_linked_from_all_hooks)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    support_add(&support, 1);
    compare_both("one_vm", "security");
    support_add(&support, 65535);
    support_add(&support, 2);
    compare_both("three_vms", "security");
}

Test(netfilter_golden, R17_R20_removing_the_others_leaves_the_first)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    struct error err = {0};
    for (unsigned n = 1; n <= 3; n++)
        support_add(&support, n);
    for (unsigned n = 3; n >= 2; n--) {
        struct netfilter_vm vm = support_vm(n);
        cr_assert(netfilter_remove(support.netfilter, &vm, &err) == 0, "%s", err.msg);
    }
    compare_both("one_vm", "security");
}

/* What others have in the built-in chains stays, below ours. */
Test(netfilter_golden, R14_ours_come_before_rules_that_were_there)
{
    cleanup_support struct support support = support_enter();
    for (int v6 = 0; v6 < 2; v6++) {
        support_do("%s -t security -P FORWARD DROP", support_iptables(v6));
        support_do("%s -t security -A INPUT -i lo -j ACCEPT", support_iptables(v6));
        support_do("%s -t security -A OUTPUT -o lo -j ACCEPT", support_iptables(v6));
    }
    support_open(&support);
    support_add(&support, 1);
    compare_both("foreign", "security");
}

Test(netfilter_golden, R14_R15_a_kernel_without_table_security)
{
    cleanup_support struct support support = support_enter();
    support_do("iptables-legacy -w 5 -A OUTPUT -j ACCEPT");
    inject()->no_security = true;
    support_open(&support);
    support_add(&support, 1);
    cr_expect(netfilter_state(support.netfilter, false) == NETFILTER_FILTER);
    cr_expect(netfilter_state(support.netfilter, true) == NETFILTER_FILTER);
    cr_expect_str_eq(netfilter_state_name(NETFILTER_FILTER), "filter");
    compare_both("filter", "filter");
    /* First position is asserted: a rule above ours is drift, and adding again repairs it. */
    support_do("iptables-legacy -w 5 -I OUTPUT -j ACCEPT");
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    cr_assert(netfilter_check(support.netfilter, &vm, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_DRIFT, "%s", err.msg);
    support_add(&support, 1);
    support_do("iptables-legacy -w 5 -D OUTPUT -j ACCEPT"); /* the first of two equal ones */
    compare_both("filter", "filter");
}
