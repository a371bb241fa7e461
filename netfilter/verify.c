/*
 * Is what shall stand in a table there? A chain that a packet may walk is right when it holds only
 * links of ours, exact to the last flag: a rule with our target and `-g` instead of `-j` would walk
 * past the DROP at the root's end.
 */
#include "netfilter/internal.h"

static const struct netfilter_rule drop = {.target = "DROP"};

#define DRIFT(table, err, fmt, ...)                                                                \
    error_set(err, ERR_FIREWALL_DRIFT, 0,                                                          \
              "%s table %s: " fmt "; another program has changed the firewall",                    \
              (table)->family->name, (table)->name, __VA_ARGS__)

int netfilter_verify_jumps(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           struct error *err)
{
    netfilter_name hook = "";
    const void *entry = NULL;
    for (size_t i = 0; i < NETFILTER_JUMPS; i++) {
        struct netfilter_link jump;
        netfilter_jump(plan, i, &jump);
        if (strcmp(hook, jump.parent) != 0)
            entry = netfilter_table_first(table, jump.parent);
        else if (entry != NULL)
            entry = netfilter_table_next(table, entry);
        memcpy(hook, jump.parent, sizeof(hook));
        struct netfilter_rule want = netfilter_link_rule(&jump);
        if (entry == NULL || !netfilter_table_is(table, entry, &want))
            return DRIFT(table, err,
                         "the jump from %s to %s is missing or not among the first rules",
                         jump.parent, jump.target);
    }
    return 0;
}

/* Links, then one DROP. */
int netfilter_verify_root(const struct netfilter_table *table, const struct netfilter_plan *plan,
                          const char *root, struct error *err)
{
    const void *entry = netfilter_table_first(table, root);
    while (entry != NULL && netfilter_link_expected(table, plan, root, entry))
        entry = netfilter_table_next(table, entry);
    if (entry == NULL || !netfilter_table_is(table, entry, &drop))
        return DRIFT(table, err, "chain %s does not lead to its DROP", root);
    if (netfilter_table_next(table, entry) != NULL)
        return DRIFT(table, err, "chain %s goes on after its DROP", root);
    return 0;
}

static int verify_roots(const struct netfilter_table *table, const struct netfilter_plan *plan,
                        struct error *err)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++)
        if (netfilter_verify_root(table, plan, netfilter_roots[i], err) < 0)
            return -1;
    return netfilter_verify_jumps(table, plan, err);
}

bool netfilter_is_only_drop(const struct netfilter_table *table, const char *chain)
{
    const void *entry = netfilter_table_first(table, chain);
    return entry != NULL && netfilter_table_is(table, entry, &drop) &&
           netfilter_table_next(table, entry) == NULL;
}

bool netfilter_has_link(const struct netfilter_table *table, const struct netfilter_link *link)
{
    struct netfilter_rule rule = netfilter_link_rule(link);
    const void *entry = netfilter_table_first(table, link->parent);
    while (entry != NULL && !netfilter_table_is(table, entry, &rule))
        entry = netfilter_table_next(table, entry);
    return entry != NULL;
}

/* An inner chain has no end of its own: what matches nothing in it returns to the root's DROP. */
static int verify_inner(const struct netfilter_table *table, const struct netfilter_plan *plan,
                        const char *chain, struct error *err)
{
    const void *entry = netfilter_table_first(table, chain);
    for (; entry != NULL; entry = netfilter_table_next(table, entry))
        if (!netfilter_link_expected(table, plan, chain, entry))
            return DRIFT(table, err, "chain %s holds a rule that is not ours", chain);
    return 0;
}

int netfilter_verify_chain(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           const char *chain, struct error *err)
{
    struct netfilter_inner inner;
    if (netfilter_chain_is_inner(chain, &inner))
        return verify_inner(table, plan, chain, err);
    if (netfilter_chain_is_vm(chain) && !netfilter_is_only_drop(table, chain))
        return DRIFT(table, err, "chain %s is not one DROP", chain);
    return 0;
}

static int verify_chains(const struct netfilter_table *table, const struct netfilter_plan *plan,
                         struct error *err)
{
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (netfilter_verify_chain(table, plan, chain, err) < 0)
            return -1;
    return 0;
}

bool netfilter_takes_uid(const struct netfilter_table *table, const struct netfilter_link *leaf,
                         const void *entry)
{
    const char *target = netfilter_table_target(table, entry);
    uint32_t uid;
    return strcmp(target, leaf->target) != 0 && netfilter_chain_is_vm(target) &&
           netfilter_rule_uid(table->family, entry, &uid) && uid == leaf->uid_min;
}

const char *netfilter_uid_owner(const struct netfilter_table *table,
                                const struct netfilter_link *leaf)
{
    const void *entry = netfilter_table_first(table, leaf->parent);
    while (entry != NULL && !netfilter_takes_uid(table, leaf, entry))
        entry = netfilter_table_next(table, entry);
    return entry != NULL ? netfilter_table_target(table, entry) : NULL;
}

static int verify_path(const struct netfilter_table *table, const struct netfilter_plan *plan,
                       enum netfilter_kind tree, const struct netfilter_place *place,
                       struct error *err)
{
    struct netfilter_link path[NETFILTER_PATH_MAX];
    size_t count = netfilter_path(plan, tree, place, path);
    for (size_t i = 0; i < count; i++) {
        /* The root is verified with the roots, and every chain once where all are looked at. */
        if (i > 0 && !plan->whole && verify_inner(table, plan, path[i].parent, err) < 0)
            return -1;
        if (!netfilter_has_link(table, &path[i]))
            return DRIFT(table, err, "the jump from %s to %s is missing", path[i].parent,
                         path[i].target);
    }
    const char *other =
        tree == NETFILTER_BY_UID ? netfilter_uid_owner(table, &path[count - 1]) : NULL;
    if (other != NULL)
        return DRIFT(table, err, "uid %u also leads to chain %s", place->uid, other);
    return 0;
}

int netfilter_verify_place(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           const struct netfilter_place *place, struct error *err)
{
    if (!netfilter_table_has(table, place->chain))
        return DRIFT(table, err, "chain %s is missing", place->chain);
    if (!netfilter_is_only_drop(table, place->chain))
        return DRIFT(table, err, "chain %s is not one DROP", place->chain);
    for (size_t i = 0; i < NETFILTER_TREES; i++)
        if (verify_path(table, plan, netfilter_trees[i], place, err) < 0)
            return -1;
    return 0;
}

static bool adds(const struct netfilter_plan *plan, const char *chain)
{
    for (size_t i = 0; i < plan->add_count; i++)
        if (strcmp(plan->add[i].chain, chain) == 0)
            return true;
    return false;
}

static int verify_removed(const struct netfilter_table *table, const struct netfilter_plan *plan,
                          struct error *err)
{
    for (size_t i = 0; i < plan->remove.count; i++)
        if (netfilter_table_has(table, plan->remove.list[i]) && !adds(plan, plan->remove.list[i]))
            return DRIFT(table, err, "chain %s is there again", plan->remove.list[i]);
    return 0;
}

static int verify(const struct netfilter_table *table, const struct netfilter_plan *plan,
                  struct error *err)
{
    if (plan->roots && verify_roots(table, plan, err) < 0)
        return -1;
    if (plan->whole && verify_chains(table, plan, err) < 0)
        return -1;
    for (size_t i = 0; i < plan->add_count; i++)
        if (netfilter_verify_place(table, plan, &plan->add[i], err) < 0)
            return -1;
    return verify_removed(table, plan, err);
}

static int verify_nothing(const struct netfilter_table *table, const struct netfilter_plan *plan,
                          struct error *err)
{
    (void)plan;
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (netfilter_chain_is_ours(chain))
            return DRIFT(table, err, "chain %s is there again", chain);
    return 0;
}

int netfilter_verify(const struct netfilter_table *table, const struct netfilter_plan *plan,
                     struct error *err)
{
    return plan->nothing ? verify_nothing(table, plan, err) : verify(table, plan, err);
}
