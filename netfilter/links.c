/*
 * The shape of the tree: which rule leads from which chain to which. Inner chains bear in their
 * names the leading hex digits of what they lead to, a uid or an interface's name, so that any rule
 * found in a table can be judged by its own names.
 */
#include "netfilter/internal.h"

static const char any_vm_interface[] = "mt+";

/* Those of one hook stand in this order before all other rules: a foreign ACCEPT above them would
 * open what they close. */
static const struct {
    const char *hook;
    enum netfilter_kind kind;
    const char *root;
} jumps[NETFILTER_JUMPS] = {
    {"INPUT", NETFILTER_BY_IN, netfilter_root_in},
    {"INPUT", NETFILTER_BY_PHYS_IN, netfilter_root_phys},
    {"FORWARD", NETFILTER_BY_IN, netfilter_root_in},
    {"FORWARD", NETFILTER_BY_OUT, netfilter_root_out},
    {"FORWARD", NETFILTER_BY_PHYS_IN, netfilter_root_phys},
    {"FORWARD", NETFILTER_BY_PHYS_OUT, netfilter_root_phys},
    {"OUTPUT", NETFILTER_BY_UID, netfilter_root_uid},
    {"OUTPUT", NETFILTER_BY_OUT, netfilter_root_out},
};
const enum netfilter_kind netfilter_trees[NETFILTER_TREES] = {NETFILTER_BY_UID, NETFILTER_BY_IN,
                                                              NETFILTER_BY_OUT};

/* A large table is judged rule by rule: snprintf would be half of the work. */
static char *put(char *at, const char *text, size_t len)
{
    len = strnlen(text, len);
    memcpy(at, text, len);
    at[len] = '\0';
    return at + len;
}

static void set_name(netfilter_name name, const char *value)
{
    put(name, value, NETFILTER_CHAIN_MAX);
}

struct netfilter_rule netfilter_link_rule(const struct netfilter_link *link)
{
    struct netfilter_rule rule = {.target = link->target};
    switch (link->kind) {
    case NETFILTER_BY_UID:
        rule.by_uid = true;
        rule.uid_min = link->uid_min;
        rule.uid_max = link->uid_max;
        break;
    case NETFILTER_BY_IN:
        rule.in = link->interface;
        break;
    case NETFILTER_BY_OUT:
        rule.out = link->interface;
        break;
    case NETFILTER_BY_PHYS_IN:
        rule.phys_in = link->interface;
        break;
    case NETFILTER_BY_PHYS_OUT:
        rule.phys_out = link->interface;
        break;
    }
    return rule;
}

void netfilter_jump(const struct netfilter_plan *plan, size_t nth, struct netfilter_link *ret)
{
    *ret = (struct netfilter_link){
        .kind = jumps[nth].kind, .uid_min = plan->uid_min, .uid_max = plan->uid_max};
    set_name(ret->parent, jumps[nth].hook);
    set_name(ret->target, jumps[nth].root);
    put(ret->interface, any_vm_interface, NETFILTER_INTERFACE_MAX);
}

/* ---- the uid tree --------------------------------------------------------------------------- */

/* How many digits lie below the root: as few as leave it 16 ways. */
static unsigned uid_levels(const struct netfilter_plan *plan)
{
    unsigned levels = 0;
    while ((plan->uid_max >> 4 * levels) - (plan->uid_min >> 4 * levels) >= 16)
        levels++;
    return levels;
}

static void uid_chain(uint32_t uid, unsigned open_digits, netfilter_name ret)
{
    char *at = put(ret, "MOTTE_u_", NETFILTER_CHAIN_MAX);
    for (unsigned i = NETFILTER_UID_DIGITS; i-- > open_digits;)
        *at++ = "0123456789abcdef"[uid >> 4 * i & 15];
    *at = '\0';
}

/* `open_digits` of the uid are open behind the link: 0 leads to the VM. Its range is empty, minimum
 * above maximum, where the uid lies outside the plan's. */
static void uid_link(const struct netfilter_plan *plan, const struct netfilter_place *place,
                     unsigned open_digits, struct netfilter_link *ret)
{
    uint32_t below = (1U << 4 * open_digits) - 1;
    uint32_t first = place->uid & ~below, last = place->uid | below;
    /* Not beyond the range: the kernel refuses the last of all uids. */
    *ret = (struct netfilter_link){.kind = NETFILTER_BY_UID,
                                   .uid_min = first > plan->uid_min ? first : plan->uid_min,
                                   .uid_max = last < plan->uid_max ? last : plan->uid_max};
    if (open_digits == uid_levels(plan))
        set_name(ret->parent, netfilter_root_uid);
    else
        uid_chain(place->uid, open_digits + 1, ret->parent);
    if (open_digits == 0)
        set_name(ret->target, place->chain);
    else
        uid_chain(place->uid, open_digits, ret->target);
}

/* ---- the name trees ------------------------------------------------------------------------- */

static void name_link(enum netfilter_kind kind, const struct netfilter_place *place, bool to_vm,
                      struct netfilter_link *ret)
{
    bool in = kind == NETFILTER_BY_IN;
    const char *digits = place->interface + strlen("mt");
    netfilter_name inner;
    put(put(inner, in ? "MOTTE_i_" : "MOTTE_o_", NETFILTER_CHAIN_MAX), digits,
        NETFILTER_NAME_DIGITS);
    *ret = (struct netfilter_link){.kind = kind};
    set_name(ret->target, to_vm ? place->chain : inner);
    if (to_vm) {
        set_name(ret->parent, inner);
        put(ret->interface, place->interface, NETFILTER_INTERFACE_MAX);
    } else {
        set_name(ret->parent, in ? netfilter_root_in : netfilter_root_out);
        put(put(put(ret->interface, "mt", 2), digits, NETFILTER_NAME_DIGITS), "+", 1);
    }
}

/* ---- both ----------------------------------------------------------------------------------- */

size_t netfilter_path(const struct netfilter_plan *plan, enum netfilter_kind tree,
                      const struct netfilter_place *place,
                      struct netfilter_link ret[static NETFILTER_PATH_MAX])
{
    if (tree != NETFILTER_BY_UID) {
        name_link(tree, place, false, &ret[0]);
        name_link(tree, place, true, &ret[1]);
        return 2;
    }
    unsigned levels = uid_levels(plan);
    for (unsigned i = 0; i <= levels; i++)
        uid_link(plan, place, levels - i, &ret[i]);
    return levels + 1;
}

/* The link that leads to an inner chain. */
static bool link_to_inner(const struct netfilter_plan *plan, const struct netfilter_inner *inner,
                          struct netfilter_link *ret)
{
    struct netfilter_place place = {0};
    if (inner->kind == NETFILTER_BY_UID) {
        unsigned open_digits = NETFILTER_UID_DIGITS - inner->digits;
        if (open_digits > uid_levels(plan))
            return false;
        place.uid = inner->value << 4 * open_digits;
        uid_link(plan, &place, open_digits, ret);
        return ret->uid_min <= ret->uid_max;
    }
    (void)snprintf(place.interface, sizeof(place.interface), "mt%0*x", (int)NETFILTER_NAME_DIGITS,
                   inner->value);
    name_link(inner->kind, &place, false, ret);
    return true;
}

/* The link from `chain` to a VM's chain: the uid stands in the rule alone, the interface's name
 * follows from the chain's. */
static bool link_to_vm(const struct netfilter_table *table, const struct netfilter_plan *plan,
                       const char *chain, const void *entry, struct netfilter_link *ret)
{
    struct netfilter_place place = {0};
    struct netfilter_inner inner;
    set_name(place.chain, netfilter_table_target(table, entry));
    if (netfilter_rule_uid(table->family, entry, &place.uid)) {
        uid_link(plan, &place, 0, ret);
        return ret->uid_min <= ret->uid_max;
    }
    if (!netfilter_chain_is_inner(chain, &inner) || inner.kind == NETFILTER_BY_UID)
        return false;
    netfilter_interface_of_chain(place.chain, place.interface);
    name_link(inner.kind, &place, true, ret);
    return true;
}

bool netfilter_link_expected(const struct netfilter_table *table, const struct netfilter_plan *plan,
                             const char *chain, const void *entry)
{
    const char *target = netfilter_table_target(table, entry);
    struct netfilter_link link;
    struct netfilter_inner inner;
    if (netfilter_chain_is_vm(target)) {
        if (!link_to_vm(table, plan, chain, entry, &link))
            return false;
    } else if (!netfilter_chain_is_inner(target, &inner) || !link_to_inner(plan, &inner, &link)) {
        return false;
    }
    struct netfilter_rule rule = netfilter_link_rule(&link);
    return strcmp(link.parent, chain) == 0 && netfilter_table_is(table, entry, &rule);
}
