/*
 * Inside netfilter/, from the bytes up: family.c (IPv4 and IPv6 behind one table of functions),
 * rule.c (a rule's bytes), lock.c, table.c (one table: open, edit, commit), tree.c (what Motte
 * wants to stand in a table, and how to get there), chains.c (names), netfilter.c (the public
 * face).
 */
#ifndef MOTTE_NETFILTER_INTERNAL_H
#define MOTTE_NETFILTER_INTERNAL_H

#include "netfilter/netfilter.h"

struct xtc_handle; /* libiptc's copy of a table */

/* ---- rule.c --------------------------------------------------------------------------------- */

enum { NETFILTER_RULE_MAX = 512 };

/* NULL or false means "any". A name that ends in '+' is a prefix, as in iptables. */
struct netfilter_rule {
    const char *in, *out;           /* -i, -o */
    const char *phys_in, *phys_out; /* -m physdev; out adds --physdev-is-bridged */
    bool by_uid;                    /* -m owner --uid-owner uid_min-uid_max */
    uint32_t uid_min, uid_max;
    const char *target; /* DROP or a chain */
};

/* A rule as the kernel wants it: entry, matches, target. */
struct netfilter_bytes {
    _Alignas(8) unsigned char data[NETFILTER_RULE_MAX];
};

/* ---- family.c ------------------------------------------------------------------------------- */

/* libiptc.h and libip6tc.h have the same shape over different entry types; this is the part we use.
 * Functions that return int: nonzero is success, else errno. */
struct netfilter_family {
    const char *name;    /* "IPv4" */
    const char *modules; /* what to load where xtables is a module */
    const struct xtc_ops *ops;
    size_t head; /* size of the entry before its matches */
    int (*append)(const char *chain, const void *entry, struct xtc_handle *handle);
    int (*insert)(const char *chain, const void *entry, unsigned at, struct xtc_handle *handle);
    int (*remove)(const char *chain, unsigned at, struct xtc_handle *handle);
    int (*destroy)(const char *chain, struct xtc_handle *handle);
    const void *(*first)(const char *chain, struct xtc_handle *handle);
    const void *(*next)(const void *entry, struct xtc_handle *handle);
    const char *(*target)(const void *entry, struct xtc_handle *handle);
    /* The interfaces, into a zeroed entry; false: a name is too long. */
    bool (*set_names)(void *entry, const struct netfilter_rule *rule);
    void (*set_sizes)(void *entry, size_t target_at, size_t len);
    /* Addresses, interfaces, protocol, flags and length of the matches are the same. */
    bool (*same_head)(const void *one, const void *other);
    size_t (*target_at)(const void *entry);
    uint64_t (*packets)(const void *entry);
};
enum { NETFILTER_FAMILIES = 2 };
extern const struct netfilter_family netfilter_families[NETFILTER_FAMILIES]; /* [0] v4, [1] v6 */

/* Both for rule.c's use by family.c and back: an interface name and its mask. */
bool netfilter_rule_set_name(char *name, unsigned char *mask, const char *want);

/* False when a name is too long for the kernel. */
bool netfilter_rule_build(const struct netfilter_family *family, const struct netfilter_rule *rule,
                          struct netfilter_bytes *ret);
/* Does an entry that came from the kernel match what `want` matches? Targets are not compared: in
 * an entry from the kernel the target is a number that only libiptc can name. */
bool netfilter_rule_same(const struct netfilter_family *family, const void *entry,
                         const struct netfilter_bytes *want);

/* ---- chains.c ------------------------------------------------------------------------------- */

extern const char
    *const netfilter_roots[]; /* the chains reached from the built-in ones; NULL ends */
extern const char netfilter_root_uid[], netfilter_root_in[], netfilter_root_out[],
    netfilter_root_phys[];
bool netfilter_chain_is_vm(const char *chain);
bool netfilter_chain_is_root(const char *chain);

/* ---- lock.c --------------------------------------------------------------------------------- */

/* Returns the descriptor that holds the lock until it is closed, or -1. */
int netfilter_lock(const char *path, int timeout_ms, struct error *err);

/* ---- table.c -------------------------------------------------------------------------------- */

/* One table of one family, copied out of the kernel. Nothing reaches the kernel before the commit.
 */
struct netfilter_table {
    const struct netfilter_family *family;
    const char *name; /* "security" */
    struct xtc_handle *handle;
    bool changed; /* there is something to commit */
};

/* Reads the table. On failure err->sys is the kernel's answer: ENOENT (no such table),
 * EAFNOSUPPORT (no such family). */
int netfilter_table_open(const struct netfilter_family *family, const char *name,
                         struct netfilter_table *ret, struct error *err);
void netfilter_table_close(struct netfilter_table *table); /* a zeroed table is fine */
#define cleanup_table cleanup(netfilter_table_close)
/* 0: done; 1: another program changed the table since it was read, read again; -1: refused. */
int netfilter_table_commit(struct netfilter_table *table, struct error *err);

bool netfilter_table_has(const struct netfilter_table *table, const char *chain);
int netfilter_table_make(struct netfilter_table *table, const char *chain, struct error *err);
int netfilter_table_flush(struct netfilter_table *table, const char *chain, struct error *err);
/* The chain must be empty and nothing may jump to it. */
int netfilter_table_destroy(struct netfilter_table *table, const char *chain, struct error *err);
int netfilter_table_append(struct netfilter_table *table, const char *chain,
                           const struct netfilter_rule *rule, struct error *err);
int netfilter_table_insert(struct netfilter_table *table, const char *chain, unsigned at,
                           const struct netfilter_rule *rule, struct error *err);
/* Deletes the rules of a chain whose target `chosen` chooses. */
int netfilter_table_delete(struct netfilter_table *table, const char *chain,
                           bool (*chosen)(const char *target, const char *wanted),
                           const char *wanted, struct error *err);

/* Rules in order, NULL at the end or where there is no such chain. Dead after any edit. */
const void *netfilter_table_first(const struct netfilter_table *table, const char *chain);
const void *netfilter_table_next(const struct netfilter_table *table, const void *entry);
const char *netfilter_table_target(const struct netfilter_table *table, const void *entry);
/* All of the rule, target included. */
bool netfilter_table_is(const struct netfilter_table *table, const void *entry,
                        const struct netfilter_rule *rule);
const char *netfilter_table_first_chain(const struct netfilter_table *table);
const char *netfilter_table_next_chain(const struct netfilter_table *table);

/* ---- tree.c --------------------------------------------------------------------------------- */

/* What shall stand in a table. The VM's part is unused where only the roots are meant. */
struct netfilter_plan {
    uint32_t uid_min, uid_max;
    uint32_t uid;
    netfilter_name chain;
    char interface[NETFILTER_INTERFACE_MAX + 1];
};

/* `apply` edits a table towards the plan and changes nothing where nothing is missing; `verify`
 * says with ERR_FIREWALL_DRIFT what is still missing. */
struct netfilter_change {
    int (*apply)(struct netfilter_table *table, const struct netfilter_plan *plan,
                 struct error *err);
    int (*verify)(const struct netfilter_table *table, const struct netfilter_plan *plan,
                  struct error *err);
};
extern const struct netfilter_change netfilter_make_roots; /* the roots and the jumps to them */
extern const struct netfilter_change netfilter_make_vm;    /* the roots and one VM */
extern const struct netfilter_change netfilter_unmake_vm;  /* plan: the chain's name alone counts */
extern const struct netfilter_change netfilter_unmake_all;

#endif
