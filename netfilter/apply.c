/* The way from what stands in a table to what shall stand there. Everything that walks into one of
 * our chains ends in a DROP, so what is half repaired drops too much and never too little. */
#include "netfilter/internal.h"

static const struct netfilter_rule drop = {.target = "DROP"};

struct work {
    struct netfilter_table *table;
    const struct netfilter_plan *plan;
    /* For the choosers of rules: */
    const char *chain;                   /* the one they stand in */
    const struct netfilter_link *leaf;   /* the one they may not contradict */
    const struct netfilter_names *names; /* those they lead to; sorted */
};

/* ---- what is there too much ----------------------------------------------------------------- */

static bool is_foreign(const struct work *work, const void *entry)
{
    return !netfilter_link_expected(work->table, work->plan, work->chain, entry);
}

static bool leads_to_root(const struct work *work, const void *entry)
{
    return netfilter_chain_is_root(netfilter_table_target(work->table, entry));
}

static bool leads_to_names(const struct work *work, const void *entry)
{
    return netfilter_names_have(work->names, netfilter_table_target(work->table, entry));
}

static bool takes_uid(const struct work *work, const void *entry)
{
    return netfilter_takes_uid(work->table, work->leaf, entry);
}

typedef bool chooser(const struct work *work, const void *entry);

static int delete_rules(const struct work *work, const char *chain, chooser *chosen,
                        struct error *err)
{
    struct work here = {work->table, work->plan, chain, work->leaf, work->names};
    unsigned at = 0;
    const void *entry = netfilter_table_first(work->table, chain);
    while (entry != NULL) {
        if (!chosen(&here, entry)) {
            at++;
            entry = netfilter_table_next(work->table, entry);
            continue;
        }
        if (netfilter_table_remove(work->table, chain, at, err) < 0)
            return -1;
        /* The iterator died with the rule: walk again to where we were. */
        entry = netfilter_table_first(work->table, chain);
        for (unsigned i = 0; i < at && entry != NULL; i++)
            entry = netfilter_table_next(work->table, entry);
    }
    return 0;
}

/* Jumps are looked for in every chain: one that somebody else made would hold the chain for ever.
 */
static int delete_everywhere(const struct work *work, chooser *chosen, struct error *err)
{
    const char *chain = netfilter_table_first_chain(work->table);
    for (; chain != NULL; chain = netfilter_table_next_chain(work->table))
        if (delete_rules(work, chain, chosen, err) < 0)
            return -1;
    return 0;
}

/* ---- the roots ------------------------------------------------------------------------------ */

static int repair_root(const struct work *work, const char *root, struct error *err)
{
    if (!netfilter_table_has(work->table, root) && netfilter_table_make(work->table, root, err) < 0)
        return -1;
    if (delete_rules(work, root, is_foreign, err) < 0)
        return -1;
    return netfilter_table_append(work->table, root, &drop, err);
}

static int repair_jumps(const struct work *work, struct error *err)
{
    static const char *const hooks[] = {"INPUT", "FORWARD", "OUTPUT"};
    for (size_t i = 0; i < COUNT_OF(hooks); i++)
        if (delete_rules(work, hooks[i], leads_to_root, err) < 0)
            return -1;
    for (size_t i = NETFILTER_JUMPS; i-- > 0;) { /* backwards, each to the top of its hook */
        struct netfilter_link jump;
        netfilter_jump(work->plan, i, &jump);
        struct netfilter_rule rule = netfilter_link_rule(&jump);
        if (netfilter_table_insert(work->table, jump.parent, 0, &rule, err) < 0)
            return -1;
    }
    return 0;
}

static int make_roots(const struct work *work, size_t *repairs, struct error *err)
{
    for (size_t i = 0; netfilter_roots[i] != NULL; i++) {
        struct error found = {0};
        if (netfilter_verify_root(work->table, work->plan, netfilter_roots[i], &found) == 0)
            continue;
        if (repair_root(work, netfilter_roots[i], err) < 0)
            return -1;
        ++*repairs;
    }
    struct error found = {0};
    if (netfilter_verify_jumps(work->table, work->plan, &found) == 0)
        return 0;
    ++*repairs;
    return repair_jumps(work, err);
}

/* ---- a VM ----------------------------------------------------------------------------------- */

static int make_chain(struct netfilter_table *table, const char *chain, struct error *err)
{
    if (!netfilter_table_has(table, chain)) {
        if (netfilter_table_make(table, chain, err) < 0)
            return -1;
    } else if (netfilter_is_only_drop(table, chain)) {
        return 0; /* keep its counter */
    } else if (netfilter_table_flush(table, chain, err) < 0) {
        return -1;
    }
    return netfilter_table_append(table, chain, &drop, err);
}

/* Two chains for one uid: the packets of both would be counted under the first. */
static int clear_uid(const struct work *work, const struct netfilter_link *leaf, struct error *err)
{
    const char *other = netfilter_uid_owner(work->table, leaf);
    if (other == NULL)
        return 0;
    struct work here = {.table = work->table, .plan = work->plan, .leaf = leaf};
    if (work->plan->whole) /* the list is right */
        return delete_rules(&here, leaf->parent, takes_uid, err);
    return error_set(err, ERR_FIREWALL_COMMIT, 0,
                     "%s table %s: uid %u already belongs to chain %s, remove that first",
                     work->table->family->name, work->table->name, leaf->uid_min, other);
}

static int make_link(const struct work *work, const struct netfilter_link *link, struct error *err)
{
    struct netfilter_rule rule = netfilter_link_rule(link);
    /* An inner chain is made when the first needs it; the roots are right already. */
    if (!netfilter_table_has(work->table, link->target) &&
        netfilter_table_make(work->table, link->target, err) < 0)
        return -1;
    if (!netfilter_chain_is_root(link->parent) &&
        delete_rules(work, link->parent, is_foreign, err) < 0)
        return -1;
    if (netfilter_has_link(work->table, link))
        return 0;
    return netfilter_table_insert(work->table, link->parent, 0, &rule, err);
}

static int make_path(const struct work *work, enum netfilter_kind tree,
                     const struct netfilter_place *place, struct error *err)
{
    struct netfilter_link path[NETFILTER_PATH_MAX];
    size_t count = netfilter_path(work->plan, tree, place, path);
    for (size_t i = 0; i < count; i++)
        if (make_link(work, &path[i], err) < 0)
            return -1;
    return tree == NETFILTER_BY_UID ? clear_uid(work, &path[count - 1], err) : 0;
}

static int make_place(const struct work *work, const struct netfilter_place *place, size_t *repairs,
                      struct error *err)
{
    struct error found = {0};
    if (netfilter_verify_place(work->table, work->plan, place, &found) == 0)
        return 0;
    ++*repairs;
    if (make_chain(work->table, place->chain, err) < 0)
        return -1;
    for (size_t i = 0; i < NETFILTER_TREES; i++)
        if (make_path(work, netfilter_trees[i], place, err) < 0)
            return -1;
    return 0;
}

/* ---- all chains ----------------------------------------------------------------------------- */

static int repair_chain(const struct work *work, const char *chain, size_t *repairs,
                        struct error *err)
{
    struct error found = {0};
    if (netfilter_verify_chain(work->table, work->plan, chain, &found) == 0)
        return 0;
    ++*repairs;
    if (netfilter_chain_is_vm(chain))
        return make_chain(work->table, chain, err);
    return delete_rules(work, chain, is_foreign, err);
}

static int repair_chains(const struct work *work, size_t *repairs, struct error *err)
{
    const char *chain = netfilter_table_first_chain(work->table);
    for (; chain != NULL; chain = netfilter_table_next_chain(work->table))
        if (repair_chain(work, chain, repairs, err) < 0)
            return -1;
    return 0;
}

static int remove_chains(const struct work *work, const struct netfilter_names *names,
                         struct error *err)
{
    struct work here = {.table = work->table, .plan = work->plan, .names = names};
    bool any = false;
    for (size_t i = 0; i < names->count; i++)
        any = any || netfilter_table_has(work->table, names->list[i]);
    if (!any)
        return 0;
    if (delete_everywhere(&here, leads_to_names, err) < 0)
        return -1;
    for (size_t i = 0; i < names->count; i++)
        if (netfilter_table_has(work->table, names->list[i]) &&
            (netfilter_table_flush(work->table, names->list[i], err) < 0 ||
             netfilter_table_destroy(work->table, names->list[i], err) < 0))
            return -1;
    return 0;
}

static int list_empty(const struct netfilter_table *table, struct netfilter_names *ret,
                      struct error *err)
{
    struct netfilter_inner inner;
    const char *chain = netfilter_table_first_chain(table);
    for (; chain != NULL; chain = netfilter_table_next_chain(table))
        if (netfilter_chain_is_inner(chain, &inner) &&
            netfilter_table_first(table, chain) == NULL && netfilter_names_add(ret, chain, err) < 0)
            return -1;
    netfilter_names_sort(ret);
    return 0;
}

/* Removes the inner chains that hold nothing, then those that held nothing but them. */
static int prune(const struct work *work, struct error *err)
{
    for (;;) {
        cleanup(netfilter_names_release) struct netfilter_names names = {0};
        if (list_empty(work->table, &names, err) < 0)
            return -1;
        if (names.count == 0)
            return 0;
        if (remove_chains(work, &names, err) < 0)
            return -1;
    }
}

/* ---- the plan ------------------------------------------------------------------------------- */

static int apply(const struct work *work, struct netfilter_outcome *outcome, struct error *err)
{
    const struct netfilter_plan *plan = work->plan;
    if (plan->roots && make_roots(work, &outcome->repairs, err) < 0)
        return -1;
    if (plan->whole && repair_chains(work, &outcome->repairs, err) < 0)
        return -1;
    /* First, so that one that is removed and added starts afresh. */
    if (remove_chains(work, &plan->remove, err) < 0)
        return -1;
    for (size_t i = 0; i < plan->add_count; i++) {
        if (!netfilter_table_has(work->table, plan->add[i].chain))
            outcome->made[i] = true;
        if (make_place(work, &plan->add[i], &outcome->repairs, err) < 0)
            return -1;
    }
    return plan->whole || plan->remove.count > 0 ? prune(work, err) : 0;
}

/* Foreign rules and chains stay. */
static int apply_nothing(const struct work *work, struct error *err)
{
    cleanup(netfilter_names_release) struct netfilter_names names = {0};
    const char *chain = netfilter_table_first_chain(work->table);
    for (; chain != NULL; chain = netfilter_table_next_chain(work->table)) {
        if (!netfilter_chain_is_ours(chain))
            continue;
        if (netfilter_names_add(&names, chain, err) < 0 ||
            netfilter_table_flush(work->table, chain, err) < 0)
            return -1;
    }
    netfilter_names_sort(&names);
    return remove_chains(work, &names, err);
}

int netfilter_apply(struct netfilter_table *table, const struct netfilter_plan *plan,
                    struct netfilter_outcome *outcome, struct error *err)
{
    struct work work = {.table = table, .plan = plan};
    return plan->nothing ? apply_nothing(&work, err) : apply(&work, outcome, err);
}
