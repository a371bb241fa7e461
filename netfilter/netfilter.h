/*
 * netfilter: a chain per VM in the legacy xtables, IPv4 and IPv6, through libiptc. Root half and
 * motte-admin only (needs CAP_NET_ADMIN and CAP_NET_RAW).
 *
 * The rules live in table `security`, or in `filter` (first position) where the kernel has no
 * `security`. Layout:
 *   OUTPUT   -m owner --uid-owner BASE-LAST -j MOTTE_uid;  MOTTE_uid: per VM
 *            -m owner --uid-owner UID -j <vm chain>, and ends in DROP
 *   INPUT, FORWARD -i mt+ -j MOTTE_in;  FORWARD, OUTPUT -o mt+ -j MOTTE_out: per VM by its
 * interface name -j <vm chain>, and end in DROP INPUT, FORWARD physdev-in mt+, FORWARD physdev-out
 * mt+ (bridged ports) -j MOTTE_phys: DROP <vm chain>: DROP (which counts) The roots stand as long
 * as the daemon's state does: an unassigned uid of the range, or one whose chain is not yet there,
 * is dropped too.
 *
 * Every change holds /run/xtables.lock (flock; libiptc takes none), retries on EAGAIN, and is read
 * back after the commit. Not thread-safe: one thread, or one mutex, around each struct netfilter.
 * Errors: ERR_FIREWALL_PRIVILEGE, _LOCK (deadline 5 s), _TABLE (kernel without the table),
 * _COMMIT (with libiptc's words), _DRIFT (read-back differs).
 */
#ifndef MOTTE_NETFILTER_H
#define MOTTE_NETFILTER_H

#include "base/base.h"

enum {
    NETFILTER_CHAIN_MAX = 28,     /* libiptc silently cuts names of more than 28 characters (R13) */
    NETFILTER_INTERFACE_MAX = 15, /* IFNAMSIZ - 1 */
    NETFILTER_PREFIX_MAX = 8,
};

/* "MOTTE_" + 20 hex digits of SHA-256(whole id): 26 characters. Takes any string. */
void netfilter_chain_name(const char *id, char out[static NETFILTER_CHAIN_MAX + 1]);
/* "mt" + 12 hex digits of the same digest: 14 characters. */
void netfilter_interface_name(const char *id, char out[static NETFILTER_INTERFACE_MAX + 1]);

struct netfilter_config {
    uint32_t uid_base, uid_count; /* the uids that may belong to a VM */
    const char *lock_path;        /* NULL: /run/xtables.lock */
    int lock_timeout_ms;          /* 0: 5000 */
};

struct netfilter_vm {
    char instance[ID_INSTANCE_SIZE];
    uint32_t uid;
};

/* What a family looks like on this host. */
enum netfilter_state {
    NETFILTER_OFF,      /* not opened */
    NETFILTER_SECURITY, /* in table security */
    NETFILTER_FILTER,   /* in table filter */
    NETFILTER_NO_STACK, /* the kernel has no IPv6: nothing to guard (R15) */
};
const char *netfilter_state_name(enum netfilter_state state); /* "security", "filter", "no stack" */

struct netfilter; /* owned by the root half's main */

/* Checks both families and makes the root chains if they are not there. Chains of VMs found from an
 * earlier run are left alone (netfilter_list, netfilter_remove). */
int netfilter_open(const struct netfilter_config *config, struct netfilter **ret,
                   struct error *err);
void netfilter_free(struct netfilter *netfilter); /* the rules stay */
enum netfilter_state netfilter_state(const struct netfilter *netfilter, bool ipv6);

/* Adds the VM's chain and its jumps in both families and reads them back. Half of it failing undoes
 * the other half. Idempotent: already exactly there is success. */
int netfilter_add(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err);
/* 0 when chain, its DROP and all jumps are there in both families, else ERR_FIREWALL_DRIFT naming
 * the first thing missing. */
int netfilter_check(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err);
/* Removes jumps and chain in both families, whatever part of them is there. Gone is success. */
int netfilter_remove(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err);
/* Packets the VM's chain has dropped, v4 + v6. */
int netfilter_count(struct netfilter *netfilter, const struct netfilter_vm *vm,
                    uint64_t *ret_packets, struct error *err);

/* Names of all chains that look like a VM's ("MOTTE_" + 20 hex), from either family, sorted,
 * unique; *ret is one malloc'ed array (caller frees). */
typedef char netfilter_name[NETFILTER_CHAIN_MAX + 1];
int netfilter_list(struct netfilter *netfilter, netfilter_name **ret, size_t *ret_count,
                   struct error *err);
/* As netfilter_remove for a chain known only by its name (left by an instance nobody knows). */
int netfilter_remove_chain(struct netfilter *netfilter, const char *chain, struct error *err);
/* Removes the roots and every chain of ours: afterwards the tables hold no rule of Motte's. */
int netfilter_remove_all(struct netfilter *netfilter, struct error *err);

#endif
