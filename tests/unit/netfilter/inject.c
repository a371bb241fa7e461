/* See inject.h. The programs' own definitions win over libc's, for shared libraries too. */
#include "inject.h"

#include <errno.h>
#include <linux/in.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

struct inject *inject(void)
{
    static struct inject injected;
    return &injected;
}

/* IPv6 uses the same numbers on its own level. */
static bool is_xtables(int level)
{
    return level == IPPROTO_IP || level == IPPROTO_IPV6;
}

__attribute__((visibility("default"))) int getsockopt(int fd, int level, int name,
                                                      void *restrict value, socklen_t *restrict len)
{
    if (inject()->no_security && is_xtables(level) && name == IPT_SO_GET_INFO &&
        strcmp(value, "security") == 0) { /* the answer starts with the table's name */
        errno = ENOENT;
        return -1;
    }
    return (int)syscall(SYS_getsockopt, fd, level, name, value, len);
}

__attribute__((visibility("default"))) int setsockopt(int fd, int level, int name,
                                                      const void *value, socklen_t len)
{
    if (is_xtables(level) && name == IPT_SO_SET_REPLACE) {
        int nth = inject()->replaces++;
        if (inject()->before_replace != NULL)
            inject()->before_replace(nth);
        if (inject()->no_memory_for[level == IPPROTO_IPV6]) {
            errno = ENOMEM;
            return -1;
        }
    }
    if (is_xtables(level) && name == IPT_SO_SET_ADD_COUNTERS && inject()->before_counters != NULL)
        inject()->before_counters();
    return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}
