/* One plan in both families: read, edit, commit and read back, under the lock. */
#include "netfilter/internal.h"

#include <errno.h>

enum { COMMIT_TRIES = 64, DOUBTS = 8 };

const char *netfilter_table_of(const struct netfilter *netfilter, size_t family)
{
    switch (netfilter->state[family]) {
    case NETFILTER_SECURITY:
        return "security";
    case NETFILTER_FILTER:
        return "filter";
    case NETFILTER_OFF:
    case NETFILTER_NO_STACK:
        break;
    }
    return NULL;
}

int netfilter_read(const struct netfilter *netfilter, size_t family, struct netfilter_table *ret,
                   struct error *err)
{
    return netfilter_table_open(&netfilter_families[family], netfilter_table_of(netfilter, family),
                                ret, err);
}

/* ---- one family ----------------------------------------------------------------------------- */

static struct netfilter_size size_of(const struct netfilter *netfilter, size_t family)
{
    struct netfilter_size size;
    netfilter_size(&netfilter_families[family], netfilter_table_of(netfilter, family), &size);
    return size;
}

/* Taken before the table is read: what comes between the two is a difference to the next probe. */
static void settle(struct netfilter *netfilter, size_t family, const struct netfilter_plan *plan,
                   const struct netfilter_size *size)
{
    netfilter->left[family] = *size;
    if (plan->whole)
        netfilter->drifted[family] = false;
}

/* 0 done, 1 another program was faster, -1 failed. */
static int try_change(const struct netfilter *netfilter, size_t family,
                      const struct netfilter_plan *plan, struct netfilter_outcome *outcome,
                      struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    size_t repairs = outcome->repairs;
    if (netfilter_read(netfilter, family, &table, err) < 0 ||
        netfilter_apply(&table, plan, outcome, err) < 0)
        return -1;
    if (!table.changed)
        return 0;
    int raced = netfilter_table_commit(&table, err);
    if (raced > 0)
        outcome->repairs = repairs;
    else /* a commit that failed may have changed the rules all the same, see below */
        outcome->changed = true;
    return raced;
}

static int read_back(struct netfilter *netfilter, size_t family, const struct netfilter_plan *plan,
                     struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    struct netfilter_size size = size_of(netfilter, family);
    if (netfilter_read(netfilter, family, &table, err) < 0)
        return -1;
    if (netfilter_verify(&table, plan, err) < 0) {
        netfilter->drifted[family] = true;
        return -1;
    }
    settle(netfilter, family, plan, &size);
    return 0;
}

/* A commit is two calls, rules and then counters. EINVAL means rules the kernel does not take, or
 * that another program changed the table between the two; then ours are in, and a second look finds
 * them. */
static bool may_be_done(const struct error *failure)
{
    return failure->code == ERR_FIREWALL_COMMIT && failure->sys == EINVAL;
}

/* The caller holds the lock, but not every program asks for it: hence the tries. The outcome is
 * written on failure too, since what was committed may have to be undone. */
static int change_family(struct netfilter *netfilter, size_t family,
                         const struct netfilter_plan *plan, struct netfilter_outcome *outcome,
                         struct error *err)
{
    for (int tries = 0, doubts = 0; tries < COMMIT_TRIES; tries++) {
        struct error failure = {0};
        struct netfilter_size size = size_of(netfilter, family);
        /* What others did before our commit must not vanish in the size that it leaves. */
        if (memcmp(&size, &netfilter->left[family], sizeof(size)) != 0)
            netfilter->drifted[family] = true;
        int raced = try_change(netfilter, family, plan, outcome, &failure);
        if (raced == 0 && outcome->changed)
            return read_back(netfilter, family, plan, err);
        if (raced == 0) {
            if (plan->whole) /* every chain has been looked at, and nothing was missing */
                settle(netfilter, family, plan, &size);
            return 0;
        }
        if (raced < 0 && (!may_be_done(&failure) || ++doubts > DOUBTS)) {
            *err = failure;
            return -1;
        }
    }
    return error_set(
        err, ERR_FIREWALL_COMMIT, EAGAIN,
        "%s: another program that ignores the firewall lock changed the table %d times "
        "in a row",
        netfilter_families[family].name, COMMIT_TRIES);
}

/* ---- both families -------------------------------------------------------------------------- */

/* Removes what the plan has added; the first error, which the caller has, tells the cause. */
static void undo(struct netfilter *netfilter, size_t family, const struct netfilter_plan *plan,
                 const struct netfilter_outcome *outcome)
{
    struct netfilter_plan back = {.uid_min = plan->uid_min, .uid_max = plan->uid_max};
    struct netfilter_outcome undone = {0};
    struct error ignored = {0};
    bool listed = true;
    for (size_t i = 0; listed && i < plan->add_count; i++)
        if (outcome->made[i])
            listed = netfilter_names_add(&back.remove, plan->add[i].chain, &ignored) == 0;
    netfilter_names_sort(&back.remove);
    change_family(netfilter, family, &back, &undone, &ignored);
    netfilter_names_release(&back.remove);
}

static int change_both(struct netfilter *netfilter, const struct netfilter_plan *plan,
                       struct netfilter_outcome outcomes[static NETFILTER_FAMILIES],
                       struct error *err)
{
    bool only_removes = plan->add_count == 0 && !plan->whole; /* less is better than nothing */
    int result = 0;
    for (size_t i = 0; (result == 0 || only_removes) && i < NETFILTER_FAMILIES; i++) {
        struct error failure = {0};
        if (netfilter_table_of(netfilter, i) == NULL ||
            change_family(netfilter, i, plan, &outcomes[i], &failure) == 0)
            continue;
        if (result == 0)
            *err = failure;
        result = -1;
    }
    for (size_t i = 0; result < 0 && !only_removes && !plan->whole && i < NETFILTER_FAMILIES; i++)
        if (outcomes[i].changed)
            undo(netfilter, i, plan, &outcomes[i]);
    return result;
}

int netfilter_commit(struct netfilter *netfilter, const struct netfilter_plan *plan,
                     size_t *ret_repairs, struct error *err)
{
    /* One lock over both, so that undoing the first cannot fail on the lock. */
    cleanup_close int lock = netfilter_lock(netfilter->lock_path, netfilter->lock_timeout_ms, err);
    if (lock < 0)
        return -1;
    struct netfilter_outcome outcomes[NETFILTER_FAMILIES] = {0};
    cleanup_free bool *made = calloc(NETFILTER_FAMILIES * plan->add_count + 1, sizeof(*made));
    if (made == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for %zu VMs in the firewall",
                         plan->add_count);
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        outcomes[i].made = made + i * plan->add_count;
    if (change_both(netfilter, plan, outcomes, err) < 0)
        return -1;
    if (ret_repairs != NULL)
        *ret_repairs = outcomes[0].repairs + outcomes[1].repairs;
    return 0;
}
