/* The public face: each call reads, edits, commits and reads back both families under the lock. */
#include "netfilter/internal.h"

#include <errno.h>

enum { LOCK_TIMEOUT_MS = 5000, COMMIT_TRIES = 64, DOUBTS = 8 };
static const char lock_path[] = "/run/xtables.lock";

struct netfilter {
    uint32_t uid_min, uid_max;
    char *lock_path; /* owned */
    int lock_timeout_ms;
    enum netfilter_state state[NETFILTER_FAMILIES];
};

static const char *state_table(enum netfilter_state state)
{
    switch (state) {
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

const char *netfilter_state_name(enum netfilter_state state)
{
    const char *table = state_table(state);
    if (table != NULL)
        return table;
    return state == NETFILTER_NO_STACK ? "no stack" : "off";
}

enum netfilter_state netfilter_state(const struct netfilter *netfilter, bool ipv6)
{
    return netfilter->state[ipv6 ? 1 : 0];
}

static int take_lock(const struct netfilter *netfilter, struct error *err)
{
    return netfilter_lock(netfilter->lock_path, netfilter->lock_timeout_ms, err);
}

/* ---- one family ----------------------------------------------------------------------------- */

static int read_family(const struct netfilter *netfilter, size_t family,
                       struct netfilter_table *ret, struct error *err)
{
    return netfilter_table_open(&netfilter_families[family], state_table(netfilter->state[family]),
                                ret, err);
}

/* 0 done, 1 another program was faster, -1 failed. */
static int try_change(const struct netfilter *netfilter, size_t family,
                      const struct netfilter_change *change, const struct netfilter_plan *plan,
                      bool *ret_changed, struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    if (read_family(netfilter, family, &table, err) < 0 || change->apply(&table, plan, err) < 0)
        return -1;
    if (!table.changed)
        return 0;
    int raced = netfilter_table_commit(&table, err);
    if (raced <= 0) /* a commit that failed may have changed the rules all the same, see below */
        *ret_changed = true;
    return raced;
}

static int verify_family(const struct netfilter *netfilter, size_t family,
                         const struct netfilter_change *change, const struct netfilter_plan *plan,
                         struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    if (read_family(netfilter, family, &table, err) < 0)
        return -1;
    return change->verify(&table, plan, err);
}

/* A commit is two calls, rules and then counters. EINVAL means rules the kernel does not take, or
 * that another program changed the table between the two; then ours are in, and a second look finds
 * them. */
static bool may_be_done(const struct error *failure)
{
    return failure->code == ERR_FIREWALL_COMMIT && failure->sys == EINVAL;
}

/* The caller holds the lock, but not every program asks for it: hence the tries. *ret_changed is
 * written on failure too, since what was committed may have to be undone. */
static int change_family(const struct netfilter *netfilter, size_t family,
                         const struct netfilter_change *change, const struct netfilter_plan *plan,
                         bool *ret_changed, struct error *err)
{
    *ret_changed = false;
    for (int tries = 0, doubts = 0; tries < COMMIT_TRIES; tries++) {
        struct error failure = {0};
        int raced = try_change(netfilter, family, change, plan, ret_changed, &failure);
        if (raced == 0)
            return *ret_changed ? verify_family(netfilter, family, change, plan, err) : 0;
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

/* Goes on after a failure and keeps the first error: for removals, where less is better. */
static int unmake(const struct netfilter *netfilter, const struct netfilter_change *change,
                  const struct netfilter_plan *plan, struct error *err)
{
    cleanup_close int lock = take_lock(netfilter, err);
    if (lock < 0)
        return -1;
    int result = 0;
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++) {
        struct error failure = {0};
        bool changed;
        if (state_table(netfilter->state[i]) == NULL ||
            change_family(netfilter, i, change, plan, &changed, &failure) == 0)
            continue;
        if (result == 0)
            *err = failure;
        result = -1;
    }
    return result;
}

/* One lock over both families, so that undoing the first cannot fail on the lock. */
static int make(const struct netfilter *netfilter, const struct netfilter_change *change,
                const struct netfilter_change *undo, const struct netfilter_plan *plan,
                struct error *err)
{
    cleanup_close int lock = take_lock(netfilter, err);
    if (lock < 0)
        return -1;
    bool changed[NETFILTER_FAMILIES] = {false};
    int result = 0;
    for (size_t i = 0; result == 0 && i < NETFILTER_FAMILIES; i++)
        if (state_table(netfilter->state[i]) != NULL)
            result = change_family(netfilter, i, change, plan, &changed[i], err);
    for (size_t i = 0; result < 0 && undo != NULL && i < NETFILTER_FAMILIES; i++) {
        struct error ignored = {0}; /* the first error tells the cause */
        bool undone;
        if (changed[i])
            change_family(netfilter, i, undo, plan, &undone, &ignored);
    }
    return result;
}

/* ---- open ----------------------------------------------------------------------------------- */

static int probe_family(const struct netfilter_family *family, enum netfilter_state *ret,
                        struct error *err)
{
    static const enum netfilter_state wanted[] = {NETFILTER_SECURITY, NETFILTER_FILTER};
    struct error failure = {0};
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        cleanup_table struct netfilter_table table = {0};
        failure = (struct error){0};
        if (netfilter_table_open(family, state_table(wanted[i]), &table, &failure) == 0) {
            *ret = wanted[i];
            return 0;
        }
        if (failure.sys != ENOENT)
            break;
    }
    if (failure.sys == EAFNOSUPPORT && family != &netfilter_families[0]) {
        *ret = NETFILTER_NO_STACK;
        return 0;
    }
    *err = failure;
    return -1;
}

static struct netfilter_plan plan_of(const struct netfilter *netfilter)
{
    return (struct netfilter_plan){.uid_min = netfilter->uid_min, .uid_max = netfilter->uid_max};
}

static void free_func(struct netfilter **netfilter)
{
    netfilter_free(*netfilter);
}

int netfilter_open(const struct netfilter_config *config, struct netfilter **ret, struct error *err)
{
    /* Uid 0 would cut the host off; the last uid means "none" to the kernel. */
    if (config->uid_base == 0 || config->uid_count == 0 ||
        config->uid_count > UINT32_MAX - config->uid_base)
        return error_set(err, ERR_CONFIG, 0,
                         "uids %u + %u are no range for VMs: it must lie between 1 and %u",
                         config->uid_base, config->uid_count, UINT32_MAX - 1);
    cleanup(free_func) struct netfilter *netfilter = calloc(1, sizeof(*netfilter));
    if (netfilter == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for the firewall");
    netfilter->uid_min = config->uid_base;
    netfilter->uid_max = config->uid_base + config->uid_count - 1;
    netfilter->lock_timeout_ms =
        config->lock_timeout_ms > 0 ? config->lock_timeout_ms : LOCK_TIMEOUT_MS;
    netfilter->lock_path = strdup(config->lock_path != NULL ? config->lock_path : lock_path);
    if (netfilter->lock_path == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for the firewall");
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (probe_family(&netfilter_families[i], &netfilter->state[i], err) < 0)
            return -1;
    struct netfilter_plan plan = plan_of(netfilter);
    if (make(netfilter, &netfilter_make_roots, NULL, &plan, err) < 0)
        return -1;
    *ret = TAKE_PTR(netfilter);
    return 0;
}

void netfilter_free(struct netfilter *netfilter)
{
    if (netfilter == NULL)
        return;
    free(netfilter->lock_path);
    free(netfilter);
}

/* ---- a VM ----------------------------------------------------------------------------------- */

/* The root half checks ids and uids itself, whoever already did. */
static int plan_vm(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                   struct netfilter_plan *ret, struct error *err)
{
    if (!id_instance_valid(vm->instance))
        return error_set(err, ERR_ID_INVALID, 0, "the firewall was given no instance id");
    if (vm->uid < netfilter->uid_min || vm->uid > netfilter->uid_max)
        return error_set(err, ERR_INTERNAL, 0, "uid %u of VM %s is not in %u-%u", vm->uid,
                         vm->instance, netfilter->uid_min, netfilter->uid_max);
    struct netfilter_plan plan = plan_of(netfilter);
    plan.uid = vm->uid;
    netfilter_chain_name(vm->instance, plan.chain);
    netfilter_interface_name(vm->instance, plan.interface);
    *ret = plan;
    return 0;
}

int netfilter_add(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err)
{
    struct netfilter_plan plan;
    if (plan_vm(netfilter, vm, &plan, err) < 0)
        return -1;
    return make(netfilter, &netfilter_make_vm, &netfilter_unmake_vm, &plan, err);
}

/* Reads without the lock: one read of a table is whole in itself. */
int netfilter_check(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err)
{
    struct netfilter_plan plan;
    if (plan_vm(netfilter, vm, &plan, err) < 0)
        return -1;
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (state_table(netfilter->state[i]) != NULL &&
            verify_family(netfilter, i, &netfilter_make_vm, &plan, err) < 0)
            return -1;
    return 0;
}

int netfilter_remove(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err)
{
    if (!id_instance_valid(vm->instance))
        return error_set(err, ERR_ID_INVALID, 0, "the firewall was given no instance id");
    struct netfilter_plan plan = plan_of(netfilter);
    netfilter_chain_name(vm->instance, plan.chain);
    return unmake(netfilter, &netfilter_unmake_vm, &plan, err);
}

int netfilter_remove_chain(struct netfilter *netfilter, const char *chain, struct error *err)
{
    if (!netfilter_chain_is_vm(chain))
        return error_set(err, ERR_NOT_FOUND, 0, "%.64s is not the name of a VM's chain", chain);
    struct netfilter_plan plan = plan_of(netfilter);
    (void)snprintf(plan.chain, sizeof(plan.chain), "%s", chain);
    return unmake(netfilter, &netfilter_unmake_vm, &plan, err);
}

int netfilter_remove_all(struct netfilter *netfilter, struct error *err)
{
    struct netfilter_plan plan = plan_of(netfilter);
    return unmake(netfilter, &netfilter_unmake_all, &plan, err);
}

int netfilter_count(struct netfilter *netfilter, const struct netfilter_vm *vm,
                    uint64_t *ret_packets, struct error *err)
{
    struct netfilter_plan plan;
    if (plan_vm(netfilter, vm, &plan, err) < 0)
        return -1;
    uint64_t packets = 0;
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++) {
        cleanup_table struct netfilter_table table = {0};
        if (state_table(netfilter->state[i]) == NULL)
            continue;
        if (read_family(netfilter, i, &table, err) < 0)
            return -1;
        const void *entry = netfilter_table_first(&table, plan.chain);
        if (entry == NULL)
            return error_set(err, ERR_FIREWALL_DRIFT, 0, "%s: chain %s of VM %s is missing",
                             netfilter_families[i].name, plan.chain, vm->instance);
        packets += table.family->packets(entry);
    }
    *ret_packets = packets;
    return 0;
}

/* ---- all VMs -------------------------------------------------------------------------------- */

struct names {
    netfilter_name *list; /* owned */
    size_t count, room;
};

static void release_names(struct names *names)
{
    free(names->list);
}

static int add_name(struct names *names, const char *chain, struct error *err)
{
    if (names->count == names->room) {
        size_t room = names->room == 0 ? 64 : 2 * names->room;
        netfilter_name *list = reallocarray(names->list, room, sizeof(*list));
        if (list == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "no memory for %zu chain names", room);
        names->list = list;
        names->room = room;
    }
    (void)snprintf(names->list[names->count++], sizeof(netfilter_name), "%s", chain);
    return 0;
}

static int add_family_names(const struct netfilter *netfilter, size_t family, struct names *names,
                            struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    if (read_family(netfilter, family, &table, err) < 0)
        return -1;
    const char *chain = netfilter_table_first_chain(&table);
    for (; chain != NULL; chain = netfilter_table_next_chain(&table))
        if (netfilter_chain_is_vm(chain) && add_name(names, chain, err) < 0)
            return -1;
    return 0;
}

static int compare_names(const void *one, const void *other)
{
    return strcmp(one, other);
}

int netfilter_list(struct netfilter *netfilter, netfilter_name **ret, size_t *ret_count,
                   struct error *err)
{
    cleanup(release_names) struct names names = {0};
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (state_table(netfilter->state[i]) != NULL &&
            add_family_names(netfilter, i, &names, err) < 0)
            return -1;
    if (names.count > 1)
        qsort(names.list, names.count, sizeof(*names.list), compare_names);
    size_t unique = 0;
    for (size_t i = 0; i < names.count; i++)
        if (unique == 0 || strcmp(names.list[unique - 1], names.list[i]) != 0)
            memmove(names.list[unique++], names.list[i], sizeof(netfilter_name));
    *ret = TAKE_PTR(names.list);
    *ret_count = unique;
    return 0;
}
