/* VMs come and go: nobody else's rules or counters change, nothing stays behind. */
#include "inject.h"
#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>

enum { MANY = 200 };

static int send_one(const void *context)
{
    const uint16_t *port = context;
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(*port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    return sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)) == 1 ? 0 : errno;
}

/* Foreign rules in two tables, with packets on their counters. */
static void make_foreign(void)
{
    static const char *const tables[] = {"security", "filter"};
    uint16_t port = 4000;
    for (size_t i = 0; i < COUNT_OF(tables); i++) {
        for (int v6 = 0; v6 < 2; v6++) {
            support_do("%s -t %s -N FOREIGN", support_iptables(v6), tables[i]);
            support_do("%s -t %s -A FOREIGN -p udp --dport 4000", support_iptables(v6), tables[i]);
            support_do("%s -t %s -A INPUT -i lo -j FOREIGN", support_iptables(v6), tables[i]);
            support_do("%s -t %s -A OUTPUT -m mark --mark 7", support_iptables(v6), tables[i]);
        }
    }
    for (int i = 0; i < 5; i++)
        cr_assert(send_one(&port) == 0);
}

static char *all_counted(const char *without)
{
    cleanup_free char *a = support_counted_rules(false, "security", without);
    cleanup_free char *b = support_counted_rules(true, "security", without);
    cleanup_free char *c = support_counted_rules(false, "filter", without);
    cleanup_free char *d = support_counted_rules(true, "filter", without);
    char *all = NULL;
    cr_assert(asprintf(&all, "%s--\n%s--\n%s--\n%s", a, b, c, d) > 0);
    return all;
}

static void must_remove(struct support *support, unsigned n)
{
    struct netfilter_vm vm = support_vm(n);
    struct error err = {0};
    cr_assert(netfilter_remove(support->netfilter, &vm, &err) == 0, "%s", err.msg);
}

Test(netfilter_vms, R17_removing_one_of_many_touches_no_other)
{
    cleanup_support struct support support = support_enter();
    make_foreign();
    support_open(&support);
    for (unsigned n = 0; n < MANY; n++)
        support_add(&support, n);
    uint16_t port = 4000;
    for (unsigned n = 50; n < 150; n += 10) /* so that counters would be seen to change */
        cr_expect(support_as(UID_BASE + n, send_one, &port) == EPERM, "VM %u sent", n);

    struct netfilter_vm gone = support_vm(100);
    netfilter_name chain;
    netfilter_chain_name(gone.instance, chain);
    cleanup_free char *others = all_counted(chain);
    cr_assert(strstr(others, "[5:") != NULL && strstr(others, "[1:") != NULL);
    must_remove(&support, 100);
    cleanup_free char *left = all_counted(NULL);
    /* The removed VM's one packet stays on the root's jump: only its own lines are gone. */
    cr_expect(strcmp(others, left) == 0, "want\n%shave\n%s", others, left);
    for (unsigned n = 0; n < MANY; n += 33) {
        struct netfilter_vm vm = support_vm(n);
        struct error err = {0};
        cr_expect(netfilter_check(support.netfilter, &vm, &err) == 0, "%s", err.msg);
    }
    cr_expect(support_count(&support, 90) == 1);
    cr_expect(support_count(&support, 91) == 0);
}

Test(netfilter_vms, R17_adding_again_changes_nothing)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    support_add(&support, 1);
    uint16_t port = 4000;
    cr_expect(support_as(UID_BASE + 1, send_one, &port) == EPERM);
    cleanup_free char *before = all_counted(NULL);
    int replaces = inject()->replaces;
    support_add(&support, 1);
    cr_expect(inject()->replaces == replaces, "a commit for nothing");
    cleanup_free char *after = all_counted(NULL);
    cr_expect_str_eq(before, after);
    cr_expect(support_count(&support, 1) == 1);
}

Test(netfilter_vms, R17_a_uid_belongs_to_one_vm)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    support_add(&support, 1);
    cleanup_free char *before = support_all_rules();
    struct netfilter_vm thief = support_vm(2);
    thief.uid = UID_BASE + 1;
    struct error err = {0};
    cr_assert(netfilter_add(support.netfilter, &thief, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_COMMIT, "%s", err.msg);
    cleanup_free char *after = support_all_rules();
    cr_expect_str_eq(before, after);
}

Test(netfilter_vms, R11_odd_ids_and_foreign_uids_are_refused)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    cleanup_free char *before = support_all_rules();
    struct netfilter_vm vms[6];
    for (unsigned i = 0; i < COUNT_OF(vms); i++)
        vms[i] = support_vm(i);
    vms[0].uid = 0;
    vms[1].uid = UID_BASE - 1;
    vms[2].uid = UID_BASE + UID_COUNT;
    memset(vms[3].instance, 'a', sizeof(vms[3].instance)); /* no NUL */
    memset(vms[4].instance, 0, sizeof(vms[4].instance));
    vms[5].instance[0] = '/';
    for (unsigned i = 0; i < COUNT_OF(vms); i++) {
        struct error err = {0};
        cr_expect(netfilter_add(support.netfilter, &vms[i], &err) == -1, "%u", i);
        cr_expect(err.code == (i < 3 ? ERR_INTERNAL : ERR_ID_INVALID), "%u: %s", i, err.msg);
    }
    static const netfilter_name chains[] = {"INPUT",
                                            "MOTTE_uid",
                                            "",
                                            "MOTTE_0123456789abcdef012",
                                            "MOTTE_0123456789abcdef01234",
                                            "MOTTE_0123456789ABCDEF0123"};
    for (size_t i = 0; i < COUNT_OF(chains); i++) {
        struct error err = {0};
        cr_expect(netfilter_remove_chains(support.netfilter, &chains[i], 1, &err) == -1, "%s",
                  chains[i]);
        cr_expect(err.code == ERR_NOT_FOUND);
    }
    cleanup_free char *after = support_all_rules();
    cr_expect_str_eq(before, after);
}

Test(netfilter_vms, uid_ranges_that_cannot_be)
{
    cleanup_support struct support support = support_enter();
    static const uint32_t ranges[][2] = {{0, 10}, {UID_BASE, 0}, {UINT32_MAX, 1}, {2, UINT32_MAX}};
    for (size_t i = 0; i < COUNT_OF(ranges); i++) {
        struct netfilter_config config = support_config(&support);
        config.uid_base = ranges[i][0];
        config.uid_count = ranges[i][1];
        struct error err = {0};
        cr_expect(netfilter_open(&config, &support.netfilter, &err) == -1);
        cr_expect(err.code == ERR_CONFIG, "%s", err.msg);
    }
}

Test(netfilter_vms, R20_everything_removed_is_as_before)
{
    cleanup_support struct support support = support_enter();
    make_foreign();
    cleanup_free char *rules = support_all_rules();
    cleanup_free char *counted = all_counted(NULL);
    struct error err = {0};
    support_open(&support);
    for (unsigned n = 0; n < 20; n++)
        support_add(&support, n);
    for (unsigned n = 0; n < 10; n++)
        for (int twice = 0; twice < 2; twice++)
            must_remove(&support, n);
    for (int twice = 0; twice < 2; twice++) {
        cr_assert(netfilter_remove_all(support.netfilter, &err) == 0, "%s", err.msg);
        cleanup_free char *left = support_all_rules();
        cr_expect(strcmp(rules, left) == 0, "want\n%shave\n%s", rules, left);
        must_remove(&support, 15);
    }
    cleanup_free char *counted_left = all_counted(NULL);
    cr_expect(strcmp(counted, counted_left) == 0, "want\n%shave\n%s", counted, counted_left);
}

/* Whatever part is left: jumps without content, content without jumps, one family only, and a jump
 * that somebody else made, which would hold the chain. */
Test(netfilter_vms, R20_halves_are_removed)
{
    cleanup_support struct support support = support_enter();
    cleanup_free char *rules = support_all_rules();
    support_open(&support);
    cleanup_free char *roots = support_all_rules();
    netfilter_name chains[4];
    for (unsigned n = 0; n < 4; n++) {
        struct netfilter_vm vm = support_vm(n);
        netfilter_chain_name(vm.instance, chains[n]);
        support_add(&support, n);
    }
    support_do("iptables-legacy -w 5 -t security -F %s", chains[0]);
    support_do("ip6tables-legacy -w 5 -t security -D MOTTE_u_7000000 -m owner --uid-owner %u -j %s",
               UID_BASE + 1, chains[1]);
    support_do("iptables-legacy -w 5 -t security -N MINE");
    support_do("iptables-legacy -w 5 -t security -A MINE -p tcp -j %s", chains[2]);
    inject()->no_memory_for[0] = true; /* VM 3 goes from IPv6 only, and that is said */
    struct error err = {0};
    cr_expect(netfilter_remove_chains(support.netfilter, (const netfilter_name *)&chains[3], 1,
                                      &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_COMMIT, "%s", err.msg);
    inject()->no_memory_for[0] = false;
    cleanup_free char *v6 = support_run("ip6tables-legacy -w 5 -t security -S");
    cr_expect(strstr(v6, chains[3]) == NULL);

    for (unsigned n = 0; n < 4; n++)
        must_remove(&support, n);
    support_do("iptables-legacy -w 5 -t security -X MINE");
    cleanup_free char *left = support_all_rules();
    cr_expect(strcmp(roots, left) == 0, "want\n%shave\n%s", roots, left);

    support_do("iptables-legacy -w 5 -t security -F");
    support_do("ip6tables-legacy -w 5 -t security -D INPUT 1");
    struct error failure = {0};
    cr_expect(netfilter_remove_all(support.netfilter, &failure) == 0, "%s", failure.msg);
    cleanup_free char *nothing = support_all_rules();
    cr_expect(strcmp(rules, nothing) == 0, "want\n%shave\n%s", rules, nothing);
}

Test(netfilter_vms, R04_half_of_it_failing_undoes_the_other_half)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    cleanup_free char *before = support_all_rules();
    for (int v6 = 0; v6 < 2; v6++) {
        inject()->no_memory_for[v6] = true;
        struct netfilter_vm vm = support_vm(1);
        struct error err = {0};
        cr_assert(netfilter_add(support.netfilter, &vm, &err) == -1);
        cr_expect(err.code == ERR_FIREWALL_COMMIT && err.sys == ENOMEM, "%s", err.msg);
        cleanup_free char *after = support_all_rules();
        cr_expect_str_eq(before, after);
        inject()->no_memory_for[v6] = false;
    }
    support_add(&support, 1);
}

Test(netfilter_vms, R20_chains_of_an_earlier_run_are_found)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    for (unsigned n = 0; n < 100; n++)
        support_add(&support, n);
    netfilter_free(support.netfilter); /* the rules stay */
    support_open(&support);

    netfilter_name only_v6;
    netfilter_chain_name("somebody", only_v6);
    support_do("ip6tables-legacy -w 5 -t security -N %s", only_v6);
    support_do("ip6tables-legacy -w 5 -t security -N MOTTE_no_vm");
    cleanup_free netfilter_name *names = NULL;
    size_t count = 0;
    struct error err = {0};
    cr_assert(netfilter_list(support.netfilter, &names, &count, &err) == 0, "%s", err.msg);
    cr_assert(count == 101, "%zu", count);
    bool found = false;
    for (size_t i = 0; i < count; i++) {
        cr_expect(i == 0 || strcmp(names[i - 1], names[i]) < 0);
        found = found || strcmp(names[i], only_v6) == 0;
    }
    cr_expect(found);
    inject()->replaces = 0;
    cr_assert(
        netfilter_remove_chains(support.netfilter, (const netfilter_name *)names, count, &err) == 0,
        "%s", err.msg);
    cr_expect(inject()->replaces == 2, "%d commits", inject()->replaces);
    cleanup_free netfilter_name *none = NULL;
    cr_assert(netfilter_list(support.netfilter, &none, &count, &err) == 0, "%s", err.msg);
    cr_expect(count == 0);
}
