/* Counters and lists: read without the lock, since one read of a table is whole in itself. */
#include "netfilter/internal.h"

static int check_instance(const struct netfilter_vm *vm, struct error *err)
{
    if (!id_instance_valid(vm->instance))
        return error_set(err, ERR_ID_INVALID, 0, "the firewall was given no instance id");
    return 0;
}

static void add_count(const struct netfilter_table *table, const struct netfilter_vm *vm,
                      uint64_t *packets)
{
    netfilter_name chain;
    netfilter_chain_name(vm->instance, chain);
    const void *entry = netfilter_table_first(table, chain);
    if (entry == NULL)
        *packets = NETFILTER_UNCOUNTED;
    else if (*packets != NETFILTER_UNCOUNTED)
        *packets += table->family->packets(entry);
}

/* One family after the other: a table of a thousand VMs takes megabytes here. */
static int add_family(const struct netfilter *netfilter, size_t family,
                      const struct netfilter_vm *vms, size_t count, uint64_t *packets,
                      struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    if (netfilter_read(netfilter, family, &table, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        add_count(&table, &vms[i], &packets[i]);
    return 0;
}

int netfilter_counts(const struct netfilter *netfilter, const struct netfilter_vm *vms,
                     size_t count, uint64_t *ret_packets, struct error *err)
{
    for (size_t i = 0; i < count; i++)
        if (check_instance(&vms[i], err) < 0)
            return -1;
    memset(ret_packets, 0, count * sizeof(*ret_packets));
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (netfilter_table_of(netfilter, i) != NULL &&
            add_family(netfilter, i, vms, count, ret_packets, err) < 0)
            return -1;
    return 0;
}

int netfilter_count(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                    uint64_t *ret_packets, struct error *err)
{
    uint64_t packets;
    if (netfilter_counts(netfilter, vm, 1, &packets, err) < 0)
        return -1;
    if (packets == NETFILTER_UNCOUNTED)
        return error_set(err, ERR_FIREWALL_DRIFT, 0,
                         "the chain of VM %s is missing; another program has changed the firewall",
                         vm->instance);
    *ret_packets = packets;
    return 0;
}

static int add_names(const struct netfilter *netfilter, size_t family,
                     struct netfilter_names *names, struct error *err)
{
    cleanup_table struct netfilter_table table = {0};
    if (netfilter_read(netfilter, family, &table, err) < 0)
        return -1;
    const char *chain = netfilter_table_first_chain(&table);
    for (; chain != NULL; chain = netfilter_table_next_chain(&table))
        if (netfilter_chain_is_vm(chain) && netfilter_names_add(names, chain, err) < 0)
            return -1;
    return 0;
}

int netfilter_list(const struct netfilter *netfilter, netfilter_name **ret, size_t *ret_count,
                   struct error *err)
{
    cleanup(netfilter_names_release) struct netfilter_names names = {0};
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++)
        if (netfilter_table_of(netfilter, i) != NULL && add_names(netfilter, i, &names, err) < 0)
            return -1;
    netfilter_names_sort(&names);
    *ret_count = names.count;
    *ret = TAKE_PTR(names.list);
    return 0;
}
