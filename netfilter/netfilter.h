/*
 * netfilter: a chain per VM in the legacy xtables, IPv4 and IPv6, through libiptc. Root half and
 * motte-admin only (needs CAP_NET_ADMIN and CAP_NET_RAW).
 *
 * The rules live in table `security`, or in `filter` (first position) where the kernel has no
 * `security`. Layout:
 *   OUTPUT  owner uid BASE-LAST              MOTTE_uid -> MOTTE_u_70000 -> ... -> a VM's chain
 *   INPUT, FORWARD  -i mt+                   MOTTE_in  -> MOTTE_i_2f -> a VM's chain
 *   FORWARD, OUTPUT -o mt+                   MOTTE_out -> MOTTE_o_2f -> a VM's chain
 *   INPUT, FORWARD  physdev-in mt+ and
 *   FORWARD         physdev-out mt+          MOTTE_phys (bridged ports)
 * The uid tree has 16 ways at each step, one hex digit of the uid; the name trees 256 at the first,
 * two hex digits of the interface's name. Inner chains bear these digits; they are made with the
 * first VM behind them, removed with the last, and return what they do not know. Each root ends in
 * DROP and stands as long as the daemon's state does: an unassigned uid, an unknown name, or a VM
 * whose chain is not there is dropped too. A VM's chain is one DROP, which counts.
 *
 * Every change holds /run/xtables.lock (flock; libiptc takes none), retries on EAGAIN, and is read
 * back after the commit. Its cost is the table's size, hardly the number of VMs in it: change many
 * at once. Not thread-safe: one thread, or one mutex, around each struct netfilter; but what takes it
 * as const (checks, counters, lists) only reads the tables, needs no lock of any kind, and may run on
 * any thread beside a change.
 * Errors: ERR_FIREWALL_PRIVILEGE, _LOCK (deadline 5 s), _TABLE (kernel without the table),
 * _COMMIT (with libiptc's words), _DRIFT (read-back differs).
 */
#ifndef MOTTE_NETFILTER_H
#define MOTTE_NETFILTER_H

#include "base/base.h"

enum {
    NETFILTER_CHAIN_MAX = 28,     /* libiptc silently cuts names of more than 28 characters (R13) */
    NETFILTER_INTERFACE_MAX = 15, /* IFNAMSIZ - 1 */
    NETFILTER_WARNING_SIZE = 256,
};

typedef char netfilter_name[NETFILTER_CHAIN_MAX + 1];

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

/* Would the rules see bridged packets? "" when they would, or when the host has no br_netfilter
 * (bridged packets then never meet iptables, and no rule helps), else a sentence for the log. */
void netfilter_preflight(char ret_warning[static NETFILTER_WARNING_SIZE]);

struct netfilter; /* owned by the root half's main */

/* Checks both families and makes the root chains if they are not there. Chains of VMs found from an
 * earlier run stay as they are linked, each made to drop (netfilter_list, netfilter_sync). */
int netfilter_open(const struct netfilter_config *config, struct netfilter **ret,
                   struct error *err);
void netfilter_free(struct netfilter *netfilter); /* the rules stay */
enum netfilter_state netfilter_state(const struct netfilter *netfilter, bool ipv6);

/* ---- changes -------------------------------------------------------------------------------- */

/* Removes and adds VMs: one commit a family, whatever their number, read back afterwards. 0: all of
 * `add` are there, none of `remove` is. Idempotent: what is there already keeps its counter, what
 * is gone already is success; a VM in both starts afresh. A uid that another chain has is refused,
 * unless that chain is in `remove`.
 * On failure no VM of `add` is left that was not there before (one family failing undoes the
 * other), and those of `remove` may be gone or not: call again. With `remove` alone, each family is
 * tried whatever becomes of the other. */
int netfilter_change(struct netfilter *netfilter, const struct netfilter_vm *add, size_t add_count,
                     const struct netfilter_vm *remove, size_t remove_count, struct error *err);
/* netfilter_change with one VM. */
int netfilter_add(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err);
int netfilter_remove(struct netfilter *netfilter, const struct netfilter_vm *vm, struct error *err);
/* As netfilter_change for chains known only by their names (left by instances nobody knows). */
int netfilter_remove_chains(struct netfilter *netfilter, const netfilter_name *chains, size_t count,
                            struct error *err);
/* Removes the roots and every chain of ours: afterwards the tables hold no rule of Motte's. */
int netfilter_remove_all(struct netfilter *netfilter, struct error *err);

/* ---- checks --------------------------------------------------------------------------------- */

/* 0 when the roots, the VM's chain, its DROP and the way to it are there in both families, else
 * ERR_FIREWALL_DRIFT naming the first thing missing. Reads both tables whole. */
int netfilter_check(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                    struct error *err);
/* The same for many, each table read once: ret_errors[i] is of vms[i], ERR_NONE when all is right. */
void netfilter_check_each(const struct netfilter *netfilter, const struct netfilter_vm *vms,
                          size_t count, struct error *ret_errors);
/* 0 when both tables have the size and hooks in which our last commit left them, so that what was
 * read back then is there still; else ERR_FIREWALL_DRIFT, from then on until a netfilter_sync
 * succeeds, whatever is committed meanwhile. Some microseconds, whatever the tables' size. Edits
 * that keep the size are netfilter_sync's to find. */
int netfilter_probe(struct netfilter *netfilter, struct error *err);
/* Looks at every chain of ours and at all these VMs, and repairs what differs; where a table and
 * the list disagree about a uid, the list is right. Chains of VMs that are not in the list stay.
 * *ret_repairs: places that differed, of both families; on failure it is not written and repairs
 * that were made stay. */
int netfilter_sync(struct netfilter *netfilter, const struct netfilter_vm *vms, size_t count,
                   size_t *ret_repairs, struct error *err);

/* ---- reading -------------------------------------------------------------------------------- */

/* Packets the VM's chain has dropped, v4 + v6. A missing chain is ERR_FIREWALL_DRIFT. */
int netfilter_count(const struct netfilter *netfilter, const struct netfilter_vm *vm,
                    uint64_t *ret_packets, struct error *err);
/* The same for many, each table read once. NETFILTER_UNCOUNTED: its chain is missing. */
#define NETFILTER_UNCOUNTED UINT64_MAX
int netfilter_counts(const struct netfilter *netfilter, const struct netfilter_vm *vms,
                     size_t count, uint64_t *ret_packets, struct error *err);

/* Names of all chains that look like a VM's ("MOTTE_" + 20 hex), from either family, sorted,
 * unique; *ret is one malloc'ed array (caller frees). */
int netfilter_list(const struct netfilter *netfilter, netfilter_name **ret, size_t *ret_count,
                   struct error *err);

#endif
