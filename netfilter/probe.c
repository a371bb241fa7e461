/* Cheap questions: has a table's size changed, does the kernel show us bridged packets? */
#include "netfilter/internal.h"
#include "netfilter/xtables.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

/* One struct under two names, one number on two levels. */
_Static_assert(sizeof(struct ipt_getinfo) == sizeof(struct ip6t_getinfo) &&
                   (int)IPT_SO_GET_INFO == (int)IP6T_SO_GET_INFO,
               "the families' answers differ");

int netfilter_size(const struct netfilter_family *family, const char *table,
                   struct netfilter_size *ret)
{
    struct ipt_getinfo info = {0};
    struct netfilter_size size = {0};
    socklen_t len = sizeof(info);
    *ret = size;
    cleanup_close int fd = socket(family->domain, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    (void)snprintf(info.name, sizeof(info.name), "%s", table);
    if (getsockopt(fd, family->level, IPT_SO_GET_INFO, &info, &len) < 0)
        return -1;
    _Static_assert(sizeof(size.hooks) == sizeof(info.hook_entry) + sizeof(info.underflow),
                   "a hook is not looked at");
    memcpy(size.hooks, info.hook_entry, sizeof(info.hook_entry));
    memcpy(size.hooks + COUNT_OF(info.hook_entry), info.underflow, sizeof(info.underflow));
    size.rules = info.num_entries;
    size.bytes = info.size;
    *ret = size;
    return 0;
}

int netfilter_probe(struct netfilter *netfilter, struct error *err)
{
    for (size_t i = 0; i < NETFILTER_FAMILIES; i++) {
        const char *table = netfilter_table_of(netfilter, i), *name = netfilter_families[i].name;
        const struct netfilter_size *left = &netfilter->left[i];
        struct netfilter_size now;
        if (table == NULL)
            continue;
        if (netfilter_size(&netfilter_families[i], table, &now) < 0)
            return error_set(err, ERR_FIREWALL_TABLE, errno, "asking for the size of %s table %s",
                             name, table);
        if (memcmp(&now, left, sizeof(now)) != 0)
            netfilter->drifted[i] = true;
        if (netfilter->drifted[i])
            return error_set(err, ERR_FIREWALL_DRIFT, 0,
                             "%s table %s is not as it was left (now %u rules in %u bytes, last "
                             "left %u in %u); another program has changed the firewall",
                             name, table, now.rules, now.bytes, left->rules, left->bytes);
    }
    return 0;
}

void netfilter_preflight(char ret_warning[static NETFILTER_WARNING_SIZE])
{
    static const char *const names[] = {"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"};
    ret_warning[0] = '\0';
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[64], value[16] = "";
        (void)snprintf(path, sizeof(path), "/proc/sys/net/bridge/%s", names[i]);
        ssize_t len = fs_read_at(AT_FDCWD, path, value, sizeof(value));
        if ((len < 0 && errno == ENOENT) || (len > 0 && value[0] != '0'))
            continue;
        (void)snprintf(ret_warning, NETFILTER_WARNING_SIZE,
                       "net.bridge.%s is %s: packets of bridged ports pass the firewall unseen, "
                       "so bridge no interface named mt..., or set it to 1",
                       names[i], len < 0 ? "unreadable" : "0");
        return;
    }
}
