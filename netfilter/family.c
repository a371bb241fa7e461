/* IPv4 and IPv6 behind one table of functions: libiptc has each call twice, over two entry types.
 */
#include "netfilter/internal.h"
#include "netfilter/xtables.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define FAMILY(family, prefix, entry_type, ip_field)                                               \
    static int family##_append(const char *chain, const void *entry, struct xtc_handle *handle)    \
    {                                                                                              \
        return prefix##_append_entry(chain, (const struct entry_type *)entry, handle);             \
    }                                                                                              \
    static int family##_insert(const char *chain, const void *entry, unsigned at,                  \
                               struct xtc_handle *handle)                                          \
    {                                                                                              \
        return prefix##_insert_entry(chain, (const struct entry_type *)entry, at, handle);         \
    }                                                                                              \
    static const void *family##_first(const char *chain, struct xtc_handle *handle)                \
    {                                                                                              \
        return prefix##_first_rule(chain, handle);                                                 \
    }                                                                                              \
    static const void *family##_next(const void *entry, struct xtc_handle *handle)                 \
    {                                                                                              \
        return prefix##_next_rule((const struct entry_type *)entry, handle);                       \
    }                                                                                              \
    static const char *family##_target(const void *entry, struct xtc_handle *handle)               \
    {                                                                                              \
        return prefix##_get_target((const struct entry_type *)entry, handle);                      \
    }                                                                                              \
    static bool family##_set_names(void *entry, const struct netfilter_rule *rule)                 \
    {                                                                                              \
        struct entry_type *e = entry;                                                              \
        return netfilter_rule_set_name(e->ip_field.iniface, e->ip_field.iniface_mask, rule->in) && \
               netfilter_rule_set_name(e->ip_field.outiface, e->ip_field.outiface_mask,            \
                                       rule->out);                                                 \
    }                                                                                              \
    static void family##_set_sizes(void *entry, size_t target_at, size_t len)                      \
    {                                                                                              \
        struct entry_type *e = entry;                                                              \
        e->target_offset = (uint16_t)target_at;                                                    \
        e->next_offset = (uint16_t)len;                                                            \
    }                                                                                              \
    static bool family##_same_head(const void *one, const void *other)                             \
    {                                                                                              \
        const struct entry_type *a = one, *b = other;                                              \
        return memcmp(&a->ip_field, &b->ip_field, sizeof(a->ip_field)) == 0 &&                     \
               a->target_offset == b->target_offset;                                               \
    }                                                                                              \
    static size_t family##_target_at(const void *entry)                                            \
    {                                                                                              \
        return ((const struct entry_type *)entry)->target_offset;                                  \
    }                                                                                              \
    static uint64_t family##_packets(const void *entry)                                            \
    {                                                                                              \
        return ((const struct entry_type *)entry)->counters.pcnt;                                  \
    }

FAMILY(v4, iptc, ipt_entry, ip)
/* ip6t_ip6 ends in padding: zero in our rules and in those of iptables, and kept by the kernel. */
FAMILY(v6, ip6tc, ip6t_entry, ipv6) /* NOLINT(bugprone-suspicious-memory-comparison) */

#define FUNCTIONS(family, prefix, entry_type)                                                      \
    .ops = &prefix##_ops, .head = sizeof(struct entry_type), .append = family##_append,            \
    .insert = family##_insert, .remove = prefix##_delete_num_entry,                                \
    .destroy = prefix##_delete_chain, .first = family##_first, .next = family##_next,              \
    .target = family##_target, .set_names = family##_set_names, .set_sizes = family##_set_sizes,   \
    .same_head = family##_same_head, .target_at = family##_target_at, .packets = family##_packets

const struct netfilter_family netfilter_families[NETFILTER_FAMILIES] = {
    {.name = "IPv4",
     .domain = AF_INET,
     .level = IPPROTO_IP,
     .modules = "ip_tables iptable_security iptable_filter",
     FUNCTIONS(v4, iptc, ipt_entry)},
    {.name = "IPv6",
     .domain = AF_INET6,
     .level = IPPROTO_IPV6,
     .modules = "ip6_tables ip6table_security ip6table_filter",
     FUNCTIONS(v6, ip6tc, ip6t_entry)},
};
