/*
 * Inside netfilter/, from the bytes up: family.c (IPv4 and IPv6 behind one table of functions),
 * rule.c (a rule's bytes), names.c, lock.c, table.c (one table: open, edit, commit), links.c (the
 * shape of the tree), verify.c (does what Motte wants stand in a table), apply.c (how to get
 * there), commit.c (both families, or none), probe.c (cheap questions), read.c (counters and
 * lists), netfilter.c (the public face).
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
    int domain, level;   /* of the socket that answers for it */
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

/* The uid to which a rule of ours belongs; false: it does not ask for a uid. */
bool netfilter_rule_uid(const struct netfilter_family *family, const void *entry, uint32_t *ret);

/* ---- names.c -------------------------------------------------------------------------------- */

/* What a packet is looked up by. The first three are trees, which end in VMs' chains. */
enum netfilter_kind {
    NETFILTER_BY_UID,
    NETFILTER_BY_IN,
    NETFILTER_BY_OUT,
    NETFILTER_BY_PHYS_IN,
    NETFILTER_BY_PHYS_OUT,
};
enum {
    NETFILTER_UID_DIGITS = 8,  /* hex digits of a uid */
    NETFILTER_NAME_DIGITS = 2, /* of an interface's name, in the name of an inner chain */
};

/* "MOTTE_u_70000": everything whose uid begins with these 5 of 8 hex digits. */
struct netfilter_inner {
    enum netfilter_kind kind;
    unsigned digits;
    uint32_t value;
};

/* The chains reached from the built-in ones; NULL ends. */
extern const char *const netfilter_roots[];
extern const char netfilter_root_uid[], netfilter_root_in[], netfilter_root_out[],
    netfilter_root_phys[];
bool netfilter_chain_is_vm(const char *chain);
bool netfilter_chain_is_root(const char *chain);
bool netfilter_chain_is_inner(const char *chain, struct netfilter_inner *ret);
bool netfilter_chain_is_ours(const char *chain); /* any of the three */
/* The interface's name of the VM that has this chain: both are digits of one digest. */
void netfilter_interface_of_chain(const char *chain, char out[static NETFILTER_INTERFACE_MAX + 1]);

struct netfilter_names {
    netfilter_name *list; /* owned */
    size_t count, room;
};
void netfilter_names_release(struct netfilter_names *names);
int netfilter_names_add(struct netfilter_names *names, const char *chain, struct error *err);
void netfilter_names_sort(struct netfilter_names *names); /* each stays once */
bool netfilter_names_have(const struct netfilter_names *names, const char *chain); /* sorted */

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
int netfilter_table_remove(struct netfilter_table *table, const char *chain, unsigned at,
                           struct error *err);

/* Rules in order, NULL at the end or where there is no such chain. Dead after any edit. */
const void *netfilter_table_first(const struct netfilter_table *table, const char *chain);
const void *netfilter_table_next(const struct netfilter_table *table, const void *entry);
const char *netfilter_table_target(const struct netfilter_table *table, const void *entry);
/* All of the rule, target included. */
bool netfilter_table_is(const struct netfilter_table *table, const void *entry,
                        const struct netfilter_rule *rule);
const char *netfilter_table_first_chain(const struct netfilter_table *table);
const char *netfilter_table_next_chain(const struct netfilter_table *table);

/* ---- links.c -------------------------------------------------------------------------------- */

enum {
    NETFILTER_TREES = 3,
    NETFILTER_JUMPS = 8,                       /* from the built-in chains to the roots */
    NETFILTER_PATH_MAX = NETFILTER_UID_DIGITS, /* links from a root to a VM's chain */
};

/* A VM as the rules see it. */
struct netfilter_place {
    uint32_t uid;
    netfilter_name chain;
    char interface[NETFILTER_INTERFACE_MAX + 1];
};

/* What shall stand in a table. */
struct netfilter_plan {
    uint32_t uid_min, uid_max;
    bool nothing; /* no chain of ours; the rest does not count */
    bool roots;   /* the roots and the jumps to them */
    bool whole;   /* look at every chain of ours; `add` is right where a table differs */
    const struct netfilter_place *add;
    size_t add_count;
    struct netfilter_names remove; /* sorted; removed before `add` is added */
};

/* One rule of ours: what is of this kind and value goes from parent to target. */
struct netfilter_link {
    netfilter_name parent, target;
    enum netfilter_kind kind;
    uint32_t uid_min, uid_max;
    char interface[NETFILTER_INTERFACE_MAX + 1];
};

extern const enum netfilter_kind netfilter_trees[NETFILTER_TREES];
struct netfilter_rule netfilter_link_rule(const struct netfilter_link *link); /* borrows it */
/* The jumps to the roots, in the order in which they stand. */
void netfilter_jump(const struct netfilter_plan *plan, size_t nth, struct netfilter_link *ret);
/* The links from a tree's root down to a VM's chain; returns how many. */
size_t netfilter_path(const struct netfilter_plan *plan, enum netfilter_kind tree,
                      const struct netfilter_place *place,
                      struct netfilter_link ret[static NETFILTER_PATH_MAX]);
/* Is this rule, found in a root or an inner chain, a link that may stand there? */
bool netfilter_link_expected(const struct netfilter_table *table, const struct netfilter_plan *plan,
                             const char *chain, const void *entry);

/* ---- verify.c ------------------------------------------------------------------------------- */

/* ERR_FIREWALL_DRIFT says what is not as it shall be. */
int netfilter_verify(const struct netfilter_table *table, const struct netfilter_plan *plan,
                     struct error *err);
int netfilter_verify_jumps(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           struct error *err);
int netfilter_verify_root(const struct netfilter_table *table, const struct netfilter_plan *plan,
                          const char *root, struct error *err);
/* An inner chain or a VM's; others pass. */
int netfilter_verify_chain(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           const char *chain, struct error *err);
int netfilter_verify_place(const struct netfilter_table *table, const struct netfilter_plan *plan,
                           const struct netfilter_place *place, struct error *err);
bool netfilter_is_only_drop(const struct netfilter_table *table, const char *chain);
bool netfilter_has_link(const struct netfilter_table *table, const struct netfilter_link *link);
/* Does this rule lead the leaf's uid to another VM's chain? */
bool netfilter_takes_uid(const struct netfilter_table *table, const struct netfilter_link *leaf,
                         const void *entry);
/* The chain of such a rule beside the leaf, or NULL. */
const char *netfilter_uid_owner(const struct netfilter_table *table,
                                const struct netfilter_link *leaf);

/* ---- apply.c -------------------------------------------------------------------------------- */

struct netfilter_outcome {
    bool changed;   /* something was committed */
    bool *made;     /* of each VM to add: its chain was not there before; owned */
    size_t repairs; /* places that differed */
};

/* Edits a table towards the plan and changes nothing where nothing is missing. */
int netfilter_apply(struct netfilter_table *table, const struct netfilter_plan *plan,
                    struct netfilter_outcome *outcome, struct error *err);

/* ---- probe.c -------------------------------------------------------------------------------- */

/* What the kernel says of a table without copying it. */
struct netfilter_size {
    uint32_t hooks[10]; /* where the built-in chains begin and end */
    uint32_t rules, bytes;
};
/* All zero when the kernel does not answer: then with -1 and errno. */
int netfilter_size(const struct netfilter_family *family, const char *table,
                   struct netfilter_size *ret);

/* ---- commit.c ------------------------------------------------------------------------------- */

struct netfilter {
    uint32_t uid_min, uid_max;
    char *lock_path; /* owned */
    int lock_timeout_ms;
    enum netfilter_state state[NETFILTER_FAMILIES];
    struct netfilter_size left[NETFILTER_FAMILIES]; /* the tables after our last commit */
    bool drifted[NETFILTER_FAMILIES];               /* were not as left when we looked */
};

/* The table's name, or NULL: there is nothing to do in this family. */
const char *netfilter_table_of(const struct netfilter *netfilter, size_t family);
int netfilter_read(const struct netfilter *netfilter, size_t family, struct netfilter_table *ret,
                   struct error *err);
/* Carries the plan out in both families, under the lock; what failure leaves is netfilter_change's
 * contract. ret_repairs may be NULL. */
int netfilter_commit(struct netfilter *netfilter, const struct netfilter_plan *plan,
                     size_t *ret_repairs, struct error *err);

#endif
