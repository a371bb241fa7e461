/* Many VMs in one commit, against a model: whatever was added and removed in whatever batches, each
 * packet meets the DROP that it would meet had the rules been built afresh. */
#include "inject.h"
#include "support.h"
#include "walk.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sys/random.h>

enum { POOL = 40, STEPS = 40, BATCH_MAX = 14 };

struct model {
    struct netfilter_vm vms[POOL];
    bool present[POOL];
};

static unsigned fresh_seed(void)
{
    unsigned seed;
    cr_assert(getrandom(&seed, sizeof(seed), 0) == (ssize_t)sizeof(seed));
    cr_log_info("seed %u", seed);
    return seed;
}

/* Some uids are neighbours, some are far apart; the range's ends are among them. */
static void make_pool(struct model *model, unsigned *seed)
{
    static const uint32_t offsets[] = {0, 15, 16, 255, 256, 4095, 4096, UID_COUNT - 1};
    for (unsigned i = 0; i < POOL; i++) {
        uint32_t offset = i < COUNT_OF(offsets) ? offsets[i]
                          : i % 2 == 0          ? 100 + i
                                                : 8192 + i * 1000;
        model->vms[i] = support_vm((unsigned)rand_r(seed));
        model->vms[i].uid = UID_BASE + offset;
    }
}

static char *rules_of(bool ipv6)
{
    return support_run("%s -S -t security", support_iptables(ipv6));
}

static void expect_drop(const char *rules, const char *hook, uint32_t uid, const char *in,
                        const char *out, const char *chain)
{
    netfilter_name met;
    walk(rules, &(struct walk_packet){hook, uid, in, out}, met);
    cr_assert(strcmp(met, chain) == 0, "%s uid %u in '%s' out '%s': '%s', not '%s'\n%s", hook, uid,
              in, out, met, chain, rules);
}

static void expect_model(const struct model *model)
{
    for (int v6 = 0; v6 < 2; v6++) {
        cleanup_free char *rules = rules_of(v6);
        for (size_t i = 0; i < POOL; i++) {
            netfilter_name chain;
            char name[NETFILTER_INTERFACE_MAX + 1];
            bool present = model->present[i];
            netfilter_chain_name(model->vms[i].instance, chain);
            netfilter_interface_name(model->vms[i].instance, name);
            expect_drop(rules, "OUTPUT", model->vms[i].uid, "", "lo",
                        present ? chain : "MOTTE_uid");
            expect_drop(rules, "INPUT", 0, name, "", present ? chain : "MOTTE_in");
            expect_drop(rules, "FORWARD", 0, name, "eth0", present ? chain : "MOTTE_in");
            expect_drop(rules, "FORWARD", 0, "eth0", name, present ? chain : "MOTTE_out");
            expect_drop(rules, "OUTPUT", 0, "", name, present ? chain : "MOTTE_out");
        }
        expect_drop(rules, "OUTPUT", UID_BASE + 60000, "", "lo", "MOTTE_uid");
        expect_drop(rules, "INPUT", 0, "mtx", "", "MOTTE_in");
        expect_drop(rules, "OUTPUT", UID_BASE - 1, "", "lo", "");
        expect_drop(rules, "OUTPUT", UID_BASE + UID_COUNT, "", "lo", "");
        expect_drop(rules, "FORWARD", UID_OTHER, "eth0", "eth1", "");
    }
}

static int compare_lines(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* The order among links is free. */
static void sort_lines(char *text)
{
    char *lines[2048], *rest = NULL;
    size_t count = 0;
    cleanup_free char *copy = strdup(text);
    for (char *line = strtok_r(copy, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        cr_assert(count < COUNT_OF(lines));
        lines[count++] = line;
    }
    qsort(lines, count, sizeof(*lines), compare_lines);
    *text = '\0';
    for (size_t i = 0; i < count; i++)
        text += sprintf(text, "%s\n", lines[i]);
}

static void change(struct support *support, const struct netfilter_vm *add, size_t adds,
                   const struct netfilter_vm *remove, size_t removes)
{
    struct error err = {0};
    inject()->replaces = 0;
    cr_assert(netfilter_change(support->netfilter, add, adds, remove, removes, &err) == 0, "%s",
              err.msg);
    cr_assert(inject()->replaces <= 2, "%d commits for one batch", inject()->replaces);
}

/* All that are present, in one batch into empty tables. */
static void expect_as_built_afresh(struct support *support, const struct model *model)
{
    struct netfilter_vm present[POOL];
    struct error err = {0};
    size_t count = 0;
    cleanup_free char *have = support_all_rules();
    for (size_t i = 0; i < POOL; i++)
        if (model->present[i])
            present[count++] = model->vms[i];
    cr_assert(netfilter_remove_all(support->netfilter, &err) == 0, "%s", err.msg);
    change(support, present, count, NULL, 0);
    cleanup_free char *want = support_all_rules();
    sort_lines(have);
    sort_lines(want);
    cr_assert(strcmp(have, want) == 0, "want\n%shave\n%s", want, have);
}

static void random_step(struct support *support, struct model *model, unsigned *seed)
{
    struct netfilter_vm add[BATCH_MAX], remove[BATCH_MAX];
    size_t adds = 0, removes = 0, wanted = (size_t)rand_r(seed) % BATCH_MAX + 1;
    bool taken[POOL] = {false};
    for (size_t i = 0; i < wanted; i++) {
        size_t at = (size_t)rand_r(seed) % POOL;
        if (taken[at])
            continue;
        taken[at] = true;
        /* Also what is there already, and what is not. */
        model->present[at] = rand_r(seed) % 2 == 0;
        if (model->present[at])
            add[adds++] = model->vms[at];
        else
            remove[removes++] = model->vms[at];
    }
    change(support, add, adds, remove, removes);
}

Test(netfilter_batches, R14_R17_R20_random_batches_lead_each_vm_to_its_chain)
{
    cleanup_support struct support support = support_enter();
    cleanup_free char *before = support_all_rules();
    unsigned seed = fresh_seed();
    struct model model = {0};
    struct error err = {0};
    make_pool(&model, &seed);
    support_open(&support);
    cleanup_free char *roots = support_all_rules();
    for (int step = 0; step < STEPS; step++) {
        random_step(&support, &model, &seed);
        expect_model(&model);
        cr_assert(netfilter_probe(support.netfilter, &err) == 0, "%s", err.msg);
    }
    expect_as_built_afresh(&support, &model);
    change(&support, NULL, 0, model.vms, POOL);
    cleanup_free char *empty = support_all_rules();
    cr_expect(strcmp(roots, empty) == 0, "want\n%shave\n%s", roots, empty);
    cr_assert(netfilter_remove_all(support.netfilter, &err) == 0, "%s", err.msg);
    cleanup_free char *after = support_all_rules();
    cr_expect(strcmp(before, after) == 0, "want\n%shave\n%s", before, after);
}

/* The ways at each step of the uid tree. */
Test(netfilter_batches, no_chain_of_the_uid_tree_has_more_than_16_ways)
{
    enum { MANY = 300 };
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[MANY];
    for (unsigned i = 0; i < MANY; i++)
        vms[i] = support_vm(i < MANY - 16 ? i : (i - MANY + 16) * 4096 + 4095);
    support_open(&support);
    change(&support, vms, MANY, NULL, 0);
    cleanup_free char *ways =
        support_run("iptables-legacy -w 5 -t security -S | grep -- --uid-owner "
                    "| cut -d' ' -f2 | sort | uniq -c | sort -n | tail -1");
    cr_expect(strtoul(ways, NULL, 10) == 16, "%s", ways);
    cleanup_free netfilter_name *names = NULL;
    size_t count = 0;
    struct error err = {0};
    cr_assert(netfilter_list(support.netfilter, &names, &count, &err) == 0, "%s", err.msg);
    cr_expect(count == MANY, "%zu: inner chains are no VM's", count);
}

/* Ranges that lie across the digits, and those too small for a tree. */
Test(netfilter_batches, R14_odd_ranges)
{
    static const uint32_t ranges[][2] = {
        {300001, 1}, {300007, 16}, {300000, 17}, {99990, 300}, {4096, 1 << 20}, {1, UINT32_MAX - 2},
    };
    cleanup_support struct support support = support_enter();
    for (size_t i = 0; i < COUNT_OF(ranges); i++) {
        uint32_t first = ranges[i][0], last = first + ranges[i][1] - 1;
        struct netfilter_vm vms[2] = {support_vm(1), support_vm(2)};
        struct netfilter_config config = support_config(&support);
        struct error err = {0};
        netfilter_name chains[2];
        config.uid_base = first;
        config.uid_count = ranges[i][1];
        cr_assert(netfilter_open(&config, &support.netfilter, &err) == 0, "%s", err.msg);
        vms[0].uid = first;
        vms[1].uid = last;
        size_t count = first == last ? 1 : 2;
        change(&support, vms, count, NULL, 0);
        cleanup_free char *rules = rules_of(false);
        for (size_t vm = 0; vm < count; vm++) {
            netfilter_chain_name(vms[vm].instance, chains[vm]);
            expect_drop(rules, "OUTPUT", vms[vm].uid, "", "lo", chains[vm]);
        }
        expect_drop(rules, "OUTPUT", first - 1, "", "lo", "");
        expect_drop(rules, "OUTPUT", last + 1, "", "lo", "");
        cr_assert(netfilter_remove_all(support.netfilter, &err) == 0, "%s", err.msg);
        netfilter_free(support.netfilter);
        support.netfilter = NULL;
    }
}

Test(netfilter_batches, R04_a_batch_that_fails_adds_nothing)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_vm vms[20];
    for (unsigned i = 0; i < COUNT_OF(vms); i++)
        vms[i] = support_vm(i * 7);
    support_open(&support);
    change(&support, vms, 5, NULL, 0);
    cleanup_free char *before = support_all_rules();
    for (int v6 = 0; v6 < 2; v6++) {
        struct error err = {0};
        inject()->no_memory_for[v6] = true;
        cr_assert(netfilter_change(support.netfilter, vms, 20, NULL, 0, &err) == -1);
        cr_expect(err.code == ERR_FIREWALL_COMMIT && err.sys == ENOMEM, "%s", err.msg);
        cleanup_free char *after = support_all_rules();
        cr_expect(strcmp(before, after) == 0, "want\n%shave\n%s", before, after);
        inject()->no_memory_for[v6] = false;
        cr_expect(netfilter_probe(support.netfilter, &err) == 0, "no drift: %s", err.msg);
    }
    struct netfilter_vm thieves[] = {support_vm(1000), support_vm(1001)};
    struct error err = {0};
    thieves[1].uid = thieves[0].uid; /* one uid twice in a batch */
    cr_assert(netfilter_change(support.netfilter, thieves, 2, NULL, 0, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_COMMIT, "%s", err.msg);
    cleanup_free char *after = support_all_rules();
    cr_expect_str_eq(before, after);
    cr_expect(netfilter_probe(support.netfilter, &err) == 0, "no drift: %s", err.msg);
    /* A uid is free for the next when its chain goes in the same batch. */
    thieves[0].uid = vms[0].uid;
    change(&support, thieves, 1, vms, 1);
    cr_expect(netfilter_check(support.netfilter, &thieves[0], &err) == 0, "%s", err.msg);
}
