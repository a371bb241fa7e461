/*
 * What shall stand in a table, and the way there from whatever stands there now. Everything that
 * walks into one of our chains ends in a DROP, so a state in between, or one half repaired, drops
 * too much and never too little.
 */
#include "netfilter/internal.h"

static const char drop[] = "DROP", any_vm_interface[] = "mt+";

/* The jumps from the built-in chains. Those of one hook stand in this order before all other rules:
 * a foreign ACCEPT above them would open what they close. */
enum kind { BY_UID, BY_IN, BY_OUT, BY_PHYS_IN, BY_PHYS_OUT };
static const struct jump {
    const char *hook;
    enum kind kind;
    const char *root;
} jumps[] = {
    {"INPUT", BY_IN, netfilter_root_in},          {"INPUT", BY_PHYS_IN, netfilter_root_phys},
    {"FORWARD", BY_IN, netfilter_root_in},        {"FORWARD", BY_OUT, netfilter_root_out},
    {"FORWARD", BY_PHYS_IN, netfilter_root_phys}, {"FORWARD", BY_PHYS_OUT, netfilter_root_phys},
    {"OUTPUT", BY_UID, netfilter_root_uid},       {"OUTPUT", BY_OUT, netfilter_root_out},
};
static const char *const hooks[] = {"INPUT", "FORWARD", "OUTPUT"};

/* The jumps to one VM's chain. */
static const struct jump leaves[] = {
    {netfilter_root_uid, BY_UID, NULL},
    {netfilter_root_in, BY_IN, NULL},
    {netfilter_root_out, BY_OUT, NULL},
};

static struct netfilter_rule rule_by(enum kind kind, const char *interface, uint32_t uid_min,
                                     uint32_t uid_max, const char *target)
{
    struct netfilter_rule rule = {.target = target};
    switch (kind) {
    case BY_UID:
        rule.by_uid = true;
        rule.uid_min = uid_min;
        rule.uid_max = uid_max;
        break;
    case BY_IN:
        rule.in = interface;
        break;
    case BY_OUT:
        rule.out = interface;
        break;
    case BY_PHYS_IN:
        rule.phys_in = interface;
        break;
    case BY_PHYS_OUT:
        rule.phys_out = interface;
        break;
    }
    return rule;
}

static struct netfilter_rule jump_rule(const struct jump *jump, const struct netfilter_plan *plan)
{
    return rule_by(jump->kind, any_vm_interface, plan->uid_min, plan->uid_max, jump->root);
}

static struct netfilter_rule leaf_rule(const struct jump *leaf, const struct netfilter_plan *plan)
{
    return rule_by(leaf->kind, plan->interface, plan->uid, plan->uid, plan->chain);
}

static bool is_same(const char *target, const char *wanted)
{
    return strcmp(target, wanted) == 0;
}

static bool is_root(const char *target, const char *wanted)
{
    (void)wanted;
    return netfilter_chain_is_root(target);
}

static bool is_ours(const char *target, const char *wanted)
{
    (void)wanted;
    return netfilter_chain_is_root(target) || netfilter_chain_is_vm(target);
}

static bool is_no_vm(const char *target, const char *wanted)
{
    (void)wanted;
    return !netfilter_chain_is_vm(target);
}

/* ---- verify --------------------------------------------------------------------------------- */

#define DRIFT(table, err, fmt, ...)                                                                \
    error_set(err, ERR_FIREWALL_DRIFT, 0,                                                          \
              "%s table %s: " fmt "; another program has changed the firewall",                    \
              (table)->family->name, (table)->name, __VA_ARGS__)

static int verify_jumps(const struct netfilter_table *table, const struct netfilter_plan *plan,
                        struct error *err)
{
    const char *hook = "";
    const void *entry = NULL;
    for (size_t i = 0; i < COUNT_OF(jumps); i++) {
        bool same_hook = strcmp(hook, jumps[i].hook) == 0;
        hook = jumps[i].hook;
        if (!same_hook)
            entry = netfilter_table_first(table, hook);
        else if (entry != NULL)
            entry = netfilter_table_next(table, entry);
        struct netfilter_rule want = jump_rule(&jumps[i], plan);
        if (entry == NULL || !netfilter_table_is(table, entry, &want))
            return DRIFT(table, err,
                         "the jump from %s to %s is missing or not among the first "
                         "rules",
                         hook, jumps[i].root);
    }
    return 0;
}

/* A root holds jumps to VMs' chains, then one DROP: with anything else in it a packet might leave.
 */
static int verify_root(const struct netfilter_table *table, const char *root, struct error *err)
{
    const void *entry = netfilter_table_first(table, root);
    while (entry != NULL && netfilter_chain_is_vm(netfilter_table_target(table, entry)))
        entry = netfilter_table_next(table, entry);
    if (entry == NULL ||
        !netfilter_table_is(table, entry, &(struct netfilter_rule){.target = drop}))
        return DRIFT(table, err, "chain %s does not lead to its DROP", root);
    if (netfilter_table_next(table, entry) != NULL)
        return DRIFT(table, err, "chain %s goes on after its DROP", root);
    return 0;
}

static int verify_roots(const struct netfilter_table *table, const struct netfilter_plan *plan,
                        struct error *err)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++)
        if (verify_root(table, netfilter_roots[i], err) < 0)
            return -1;
    return verify_jumps(table, plan, err);
}

static bool has_only_drop(const struct netfilter_table *table, const char *chain)
{
    const void *entry = netfilter_table_first(table, chain);
    return entry != NULL &&
           netfilter_table_is(table, entry, &(struct netfilter_rule){.target = drop}) &&
           netfilter_table_next(table, entry) == NULL;
}

static bool has_rule(const struct netfilter_table *table, const char *chain,
                     const struct netfilter_rule *rule)
{
    const void *entry = netfilter_table_first(table, chain);
    while (entry != NULL && !netfilter_table_is(table, entry, rule))
        entry = netfilter_table_next(table, entry);
    return entry != NULL;
}

static int verify_vm(const struct netfilter_table *table, const struct netfilter_plan *plan,
                     struct error *err)
{
    if (verify_roots(table, plan, err) < 0)
        return -1;
    if (!netfilter_table_has(table, plan->chain))
        return DRIFT(table, err, "chain %s is missing", plan->chain);
    if (!has_only_drop(table, plan->chain))
        return DRIFT(table, err, "chain %s is not one DROP", plan->chain);
    for (size_t i = 0; i < COUNT_OF(leaves); i++) {
        struct netfilter_rule want = leaf_rule(&leaves[i], plan);
        if (!has_rule(table, leaves[i].hook, &want))
            return DRIFT(table, err, "the jump from %s to %s is missing", leaves[i].hook,
                         plan->chain);
    }
    return 0;
}

static int verify_no_vm(const struct netfilter_table *table, const struct netfilter_plan *plan,
                        struct error *err)
{
    if (netfilter_table_has(table, plan->chain))
        return DRIFT(table, err, "chain %s is there again", plan->chain);
    return 0;
}

static int verify_nothing(const struct netfilter_table *table, const struct netfilter_plan *plan,
                          struct error *err)
{
    (void)plan;
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (is_ours(chain, NULL))
            return DRIFT(table, err, "chain %s is there again", chain);
    return 0;
}

/* ---- apply ---------------------------------------------------------------------------------- */

static int repair_root(struct netfilter_table *table, const char *root, struct error *err)
{
    if (!netfilter_table_has(table, root) && netfilter_table_make(table, root, err) < 0)
        return -1;
    if (netfilter_table_delete(table, root, is_no_vm, NULL, err) < 0)
        return -1;
    return netfilter_table_append(table, root, &(struct netfilter_rule){.target = drop}, err);
}

static int repair_jumps(struct netfilter_table *table, const struct netfilter_plan *plan,
                        struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(hooks); i++)
        if (netfilter_table_delete(table, hooks[i], is_root, NULL, err) < 0)
            return -1;
    for (size_t i = COUNT_OF(jumps); i-- > 0;) { /* backwards, each to the top of its hook */
        struct netfilter_rule rule = jump_rule(&jumps[i], plan);
        if (netfilter_table_insert(table, jumps[i].hook, 0, &rule, err) < 0)
            return -1;
    }
    return 0;
}

static int make_roots(struct netfilter_table *table, const struct netfilter_plan *plan,
                      struct error *err)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++) {
        struct error found = {0};
        if (verify_root(table, netfilter_roots[i], &found) < 0 &&
            repair_root(table, netfilter_roots[i], err) < 0)
            return -1;
    }
    struct error found = {0};
    return verify_jumps(table, plan, &found) < 0 ? repair_jumps(table, plan, err) : 0;
}

/* Two chains for one uid: the packets of both would be counted under the first. */
static int refuse_taken_uid(const struct netfilter_table *table, const struct netfilter_plan *plan,
                            struct error *err)
{
    const void *entry = netfilter_table_first(table, netfilter_root_uid);
    for (; entry != NULL; entry = netfilter_table_next(table, entry)) {
        const char *target = netfilter_table_target(table, entry);
        struct netfilter_rule rule = rule_by(BY_UID, NULL, plan->uid, plan->uid, target);
        if (strcmp(target, plan->chain) != 0 && netfilter_table_is(table, entry, &rule))
            return error_set(err, ERR_FIREWALL_COMMIT, 0,
                             "%s table %s: uid %u already belongs to chain %s, remove that first",
                             table->family->name, table->name, plan->uid, target);
    }
    return 0;
}

static int make_chain(struct netfilter_table *table, const char *chain, struct error *err)
{
    if (!netfilter_table_has(table, chain)) {
        if (netfilter_table_make(table, chain, err) < 0)
            return -1;
    } else if (has_only_drop(table, chain)) {
        return 0; /* keep its counter */
    } else if (netfilter_table_flush(table, chain, err) < 0) {
        return -1;
    }
    return netfilter_table_append(table, chain, &(struct netfilter_rule){.target = drop}, err);
}

static int make_vm(struct netfilter_table *table, const struct netfilter_plan *plan,
                   struct error *err)
{
    struct error found = {0};
    if (verify_vm(table, plan, &found) == 0)
        return 0;
    if (make_roots(table, plan, err) < 0 || refuse_taken_uid(table, plan, err) < 0 ||
        make_chain(table, plan->chain, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT_OF(leaves); i++) {
        struct netfilter_rule rule = leaf_rule(&leaves[i], plan);
        if (netfilter_table_delete(table, leaves[i].hook, is_same, plan->chain, err) < 0 ||
            netfilter_table_insert(table, leaves[i].hook, 0, &rule, err) < 0)
            return -1;
    }
    return 0;
}

/* Jumps are looked for in every chain: one that somebody else made would hold the chain for ever.
 */
static int unlink_everywhere(struct netfilter_table *table,
                             bool (*chosen)(const char *target, const char *wanted),
                             const char *wanted, struct error *err)
{
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (netfilter_table_delete(table, chain, chosen, wanted, err) < 0)
            return -1;
    return 0;
}

static int unmake_vm(struct netfilter_table *table, const struct netfilter_plan *plan,
                     struct error *err)
{
    if (!netfilter_table_has(table, plan->chain))
        return 0;
    if (unlink_everywhere(table, is_same, plan->chain, err) < 0 ||
        netfilter_table_flush(table, plan->chain, err) < 0)
        return -1;
    return netfilter_table_destroy(table, plan->chain, err);
}

static const char *first_of_ours(const struct netfilter_table *table)
{
    const char *chain = netfilter_table_first_chain(table);
    while (chain != NULL && !is_ours(chain, NULL))
        chain = netfilter_table_next_chain(table);
    return chain;
}

static int unmake_all(struct netfilter_table *table, const struct netfilter_plan *plan,
                      struct error *err)
{
    (void)plan;
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (is_ours(chain, NULL) && netfilter_table_flush(table, chain, err) < 0)
            return -1;
    if (unlink_everywhere(table, is_ours, NULL, err) < 0)
        return -1;
    while ((chain = first_of_ours(table)) != NULL)
        if (netfilter_table_destroy(table, chain, err) < 0)
            return -1;
    return 0;
}

const struct netfilter_change netfilter_make_roots = {make_roots, verify_roots};
const struct netfilter_change netfilter_make_vm = {make_vm, verify_vm};
const struct netfilter_change netfilter_unmake_vm = {unmake_vm, verify_no_vm};
const struct netfilter_change netfilter_unmake_all = {unmake_all, verify_nothing};
