/* Guards that stand around a VMM: its cgroup and its firewall rules. */
#include "priv/check_internal.h"

#include <errno.h>

int priv_line_cgroup_member(struct priv_look *look, int what, struct priv_line *ret,
                            struct error *err)
{
    const struct priv_record *record = &look->slot->record;
    (void)what;
    (void)ret;
    return priv_cgroup_holds(&look->server->cgroups, record->instance, record->pid, err);
}

static int64_t usage(const struct priv_look *look, enum priv_limit limit)
{
    const struct priv_cgroups *cgroups = &look->server->cgroups;
    const struct priv_record *record = &look->slot->record;
    struct priv_usage all;
    if (limit == PRIV_LIMIT_SWAP)
        return (int64_t)priv_cgroup_swap(cgroups, record->instance);
    priv_cgroup_usage(cgroups, record->instance, record->pid, &all);
    if (limit == PRIV_LIMIT_MEMORY)
        return (int64_t)all.memory_bytes;
    return limit == PRIV_LIMIT_CPU ? (int64_t)all.cpu_us : all.pids;
}

int priv_line_cgroup_limit(struct priv_look *look, int what, struct priv_line *ret,
                           struct error *err)
{
    const struct priv_server *server = look->server;
    const struct priv_record *record = &look->slot->record;
    int found = priv_cgroup_check(&server->cgroups, record->instance, &record->shape,
                                  priv_overhead_mib(server), (unsigned)what, err);
    if (found < 0) {
        ret->state = err->sys == ENOENT ? PRIV_LINE_ABSENT : PRIV_LINE_WRONG;
        return -1;
    }
    if (found == 0) {
        ret->state = PRIV_LINE_NOT_APPLICABLE;
        snprintf(ret->detail, sizeof(ret->detail), "this kernel has no such limit");
        return 0;
    }
    if (look->values)
        priv_line_value(ret, usage(look, (enum priv_limit)what));
    return 0;
}

int priv_line_cgroup_io(struct priv_look *look, int what, struct priv_line *ret, struct error *err)
{
    const struct priv_cgroups *cgroups = &look->server->cgroups;
    const struct priv_record *record = &look->slot->record;
    if (cgroups->io.reason != NULL) {
        ret->state = PRIV_LINE_NOT_APPLICABLE;
        snprintf(ret->detail, sizeof(ret->detail), "%s", cgroups->io.reason);
        return 0;
    }
    if (priv_cgroup_check(cgroups, record->instance, &record->shape, 0, (unsigned)what, err) > 0)
        return 0;
    ret->state = err->sys == ENOENT ? PRIV_LINE_ABSENT : PRIV_LINE_WRONG;
    return -1;
}

/* netfilter_check() goes through IPv4 first, stops at the first thing that is missing, and names
 * its family in front of it. */
static bool stopped_at(const struct error *failure, const char *family)
{
    return failure->code != ERR_NONE && strncmp(failure->msg, family, strlen(family)) == 0;
}

/* Chain, DROP and jumps. The count is of both families together. */
static void read_firewall(struct priv_look *look, struct priv_line *line)
{
    const struct netfilter *tables = priv_firewall_tables(look->server->firewall);
    struct netfilter_vm vm = {.uid = look->slot->record.uid};
    struct error ignored = {0}; /* a number is not worth a wrong line */
    uint64_t packets = 0;
    memcpy(vm.instance, look->slot->record.instance, ID_INSTANCE_SIZE);
    if (!look->firewall_read)
        priv_firewall_check(look->server->firewall, &look->slot->record, &look->firewall);
    look->firewall_read = true;
    if (line != NULL && netfilter_count(tables, &vm, &packets, &ignored) == 0)
        priv_line_value(line, (int64_t)packets);
}

int priv_line_firewall(struct priv_look *look, int ipv6, struct priv_line *ret, struct error *err)
{
    if (netfilter_state(priv_firewall_tables(look->server->firewall), ipv6 != 0) ==
        NETFILTER_NO_STACK) {
        ret->state = PRIV_LINE_NOT_APPLICABLE;
        snprintf(ret->detail, sizeof(ret->detail), "this host has no IPv6");
        return 0;
    }
    read_firewall(look, look->values && !ipv6 ? ret : NULL);
    const struct error *failure = &look->firewall;
    if (failure->code == ERR_NONE || (!ipv6 && stopped_at(failure, "IPv6")))
        return 0;
    if (ipv6 && stopped_at(failure, "IPv4"))
        return error_set(err, failure->code, 0, "not looked at while IPv4's rules are not right");
    *err = *failure;
    return -1;
}
