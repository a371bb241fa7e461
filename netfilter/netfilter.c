/* The public face: opening, and what callers ask for as plans. */
#include "netfilter/internal.h"

#include <errno.h>

enum { LOCK_TIMEOUT_MS = 5000 };
static const char lock_path[] = "/run/xtables.lock";

const char *netfilter_state_name(enum netfilter_state state)
{
    static const char *const names[] = {[NETFILTER_OFF] = "off",
                                        [NETFILTER_SECURITY] = "security",
                                        [NETFILTER_FILTER] = "filter",
                                        [NETFILTER_NO_STACK] = "no stack"};
    return (size_t)state < COUNT_OF(names) ? names[state] : names[NETFILTER_OFF];
}

enum netfilter_state netfilter_state(const struct netfilter *netfilter, bool ipv6)
{
    return netfilter->state[ipv6 ? 1 : 0];
}

/* ---- open ----------------------------------------------------------------------------------- */

static int probe_family(struct netfilter *netfilter, size_t family, struct error *err)
{
    static const enum netfilter_state wanted[] = {NETFILTER_SECURITY, NETFILTER_FILTER};
    struct error failure = {0};
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        cleanup_table struct netfilter_table table = {0};
        failure = (struct error){0};
        netfilter->state[family] = wanted[i];
        if (netfilter_read(netfilter, family, &table, &failure) == 0)
            return 0;
        if (failure.sys != ENOENT)
            break;
    }
    if (failure.sys == EAFNOSUPPORT && family > 0) {
        netfilter->state[family] = NETFILTER_NO_STACK;
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
        if (probe_family(netfilter, i, err) < 0)
            return -1;
    struct netfilter_plan plan = plan_of(netfilter);
    plan.roots = plan.whole = true;
    if (netfilter_commit(netfilter, &plan, NULL, err) < 0)
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

/* ---- VMs ------------------------------------------------------------------------------------ */

/* The root half checks ids and uids itself, whoever already did. */
static int place_of(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                    struct netfilter_place *ret, struct error *err)
{
    if (!id_instance_valid(vm->instance))
        return error_set(err, ERR_ID_INVALID, 0, "the firewall was given no instance id");
    if (vm->uid < netfilter->uid_min || vm->uid > netfilter->uid_max)
        return error_set(err, ERR_INTERNAL, 0, "uid %u of VM %s is not in %u-%u", vm->uid,
                         vm->instance, netfilter->uid_min, netfilter->uid_max);
    struct netfilter_place place = {.uid = vm->uid};
    netfilter_chain_name(vm->instance, place.chain);
    netfilter_interface_name(vm->instance, place.interface);
    *ret = place;
    return 0;
}

/* Only the ids count: a VM is removed wherever it is. */
static int names_of(const struct netfilter_vm *vms, size_t count, struct netfilter_names *ret,
                    struct error *err)
{
    for (size_t i = 0; i < count; i++) {
        netfilter_name chain;
        if (!id_instance_valid(vms[i].instance))
            return error_set(err, ERR_ID_INVALID, 0, "the firewall was given no instance id");
        netfilter_chain_name(vms[i].instance, chain);
        if (netfilter_names_add(ret, chain, err) < 0)
            return -1;
    }
    netfilter_names_sort(ret);
    return 0;
}

/* The plan's VMs, in memory of the plan's: the caller frees *ret. */
static int places_of(const struct netfilter *netfilter, const struct netfilter_vm *vms,
                     size_t count, struct netfilter_place **ret, struct error *err)
{
    cleanup_free struct netfilter_place *places = calloc(count + 1, sizeof(*places));
    if (places == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for %zu VMs in the firewall", count);
    for (size_t i = 0; i < count; i++)
        if (place_of(netfilter, &vms[i], &places[i], err) < 0)
            return -1;
    *ret = TAKE_PTR(places);
    return 0;
}

int netfilter_change(struct netfilter *netfilter, const struct netfilter_vm *add, size_t add_count,
                     const struct netfilter_vm *remove, size_t remove_count, struct error *err)
{
    cleanup_free struct netfilter_place *places = NULL;
    cleanup(netfilter_names_release) struct netfilter_names names = {0};
    if (places_of(netfilter, add, add_count, &places, err) < 0 ||
        names_of(remove, remove_count, &names, err) < 0)
        return -1;
    struct netfilter_plan plan = plan_of(netfilter);
    plan.roots = add_count > 0;
    plan.add = places;
    plan.add_count = add_count;
    plan.remove = names;
    return netfilter_commit(netfilter, &plan, NULL, err);
}

int netfilter_add(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err)
{
    return netfilter_change(netfilter, vm, 1, NULL, 0, err);
}

int netfilter_remove(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err)
{
    return netfilter_change(netfilter, NULL, 0, vm, 1, err);
}

int netfilter_remove_chains(struct netfilter *netfilter, const netfilter_name *chains, size_t count,
                            struct error *err)
{
    cleanup(netfilter_names_release) struct netfilter_names names = {0};
    for (size_t i = 0; i < count; i++) {
        if (!netfilter_chain_is_vm(chains[i]))
            return error_set(err, ERR_NOT_FOUND, 0, "%.64s is not the name of a VM's chain",
                             chains[i]);
        if (netfilter_names_add(&names, chains[i], err) < 0)
            return -1;
    }
    netfilter_names_sort(&names);
    struct netfilter_plan plan = plan_of(netfilter);
    plan.remove = names;
    return netfilter_commit(netfilter, &plan, NULL, err);
}

int netfilter_remove_all(struct netfilter *netfilter, struct error *err)
{
    struct netfilter_plan plan = plan_of(netfilter);
    plan.nothing = true;
    return netfilter_commit(netfilter, &plan, NULL, err);
}

/* ---- checks --------------------------------------------------------------------------------- */

/* One family, for all that were right so far. Reads without the lock: one read of a table is whole in
 * itself. */
static void check_family(const struct netfilter *netfilter, size_t family,
                         const struct netfilter_vm *vms, size_t count, struct error *errors)
{
    cleanup_table struct netfilter_table table = {0};
    struct error failure = {0};
    struct netfilter_plan plan = plan_of(netfilter);
    plan.roots = true;
    if (netfilter_read(netfilter, family, &table, &failure) == 0)
        (void)netfilter_verify(&table, &plan, &failure);
    for (size_t i = 0; i < count; i++) {
        struct netfilter_place place;
        if (errors[i].code != ERR_NONE)
            continue;
        if (failure.code != ERR_NONE)
            errors[i] = failure;
        else if (place_of(netfilter, &vms[i], &place, &errors[i]) == 0)
            (void)netfilter_verify_place(&table, &plan, &place, &errors[i]);
    }
}

void netfilter_check_each(const struct netfilter *netfilter, const struct netfilter_vm *vms,
                          size_t count, struct error *ret_errors)
{
    memset(ret_errors, 0, count * sizeof(*ret_errors));
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (netfilter_table_of(netfilter, i) != NULL)
            check_family(netfilter, i, vms, count, ret_errors);
}

int netfilter_check(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                    struct error *err)
{
    struct error found;
    netfilter_check_each(netfilter, vm, 1, &found);
    if (found.code != ERR_NONE)
        *err = found;
    return found.code == ERR_NONE ? 0 : -1;
}

int netfilter_sync(struct netfilter *netfilter, const struct netfilter_vm *vms, size_t count,
                   size_t *ret_repairs, struct error *err)
{
    cleanup_free struct netfilter_place *places = NULL;
    if (places_of(netfilter, vms, count, &places, err) < 0)
        return -1;
    struct netfilter_plan plan = plan_of(netfilter);
    plan.roots = plan.whole = true;
    plan.add = places;
    plan.add_count = count;
    return netfilter_commit(netfilter, &plan, ret_repairs, err);
}
