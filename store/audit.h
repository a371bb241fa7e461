/*
 * store, what it keeps of what happened: the audits of VMs, the same as one sequence of events, and
 * the audit of calls. All in store/store.h's terms, which includes this.
 */
#ifndef MOTTE_STORE_AUDIT_H
#define MOTTE_STORE_AUDIT_H

#include "store/store.h"

/* ---- audit: what happened to a VM that matters for its isolation ---------------------------- */

/*
 * A ring per VM inside a ring of all, kept after the VM has ended. No entry holds text that a guest
 * or a caller's command made. CREATED, RUNNING, PAUSED, RESUMED, CLAIMED and ENDED are written by the changes
 * above, in their transaction.
 */
enum store_audit_kind {
    STORE_AUDIT_CREATED = 1,
    STORE_AUDIT_GUARDS_CHECKED, /* every guard was read back before the guest could do anything */
    STORE_AUDIT_RUNNING,
    STORE_AUDIT_ADOPTED,           /* by a daemon that was restarted; its guards were read back */
    STORE_AUDIT_GUARD_WRONG,       /* a line of the isolation report */
    STORE_AUDIT_GUEST_PROTOCOL,    /* its agent broke the protocol */
    STORE_AUDIT_SECCOMP_VIOLATION, /* its VMM made a system call that its filter blocks */
    STORE_AUDIT_VMM_EXITED,        /* by itself */
    STORE_AUDIT_ENDED,
    STORE_AUDIT_UNRESPONSIVE, /* its VMM or its agent does not answer */
    STORE_AUDIT_RESPONSIVE,   /* its agent answers again */
    STORE_AUDIT_PAUSED,
    STORE_AUDIT_RESUMED,
    STORE_AUDIT_CLAIMED, /* out of the pool: what stands before it happened to it there */
};
const char *store_audit_kind_name(enum store_audit_kind kind);            /* "created" */
int store_audit_kind_parse(const char *name, enum store_audit_kind *ret); /* 0 or -1 */

struct store_audit_new {
    const char *instance; /* lives, or has a certificate; else there is no entry, and no error */
    enum store_audit_kind kind;
    const char *detail; /* a JSON object of less than STORE_AUDIT_DETAIL_SIZE bytes; NULL: {} */
};
/* All of them in one transaction. */
int store_audit_add(struct store *store, const struct store_audit_new *entries, size_t count,
                    struct error *err);

struct store_audit {
    int64_t seq; /* grows; gaps are other VMs' entries */
    int64_t wall_ms;
    char instance[ID_INSTANCE_SIZE];
    char id[ID_VM_MAX + 1];
    char owner[STORE_OWNER_MAX + 1];
    enum store_audit_kind kind;
    char detail[STORE_AUDIT_DETAIL_SIZE];
};
struct store_audit_filter {
    const char *owner; /* NULL: any */
    const char *id;    /* the VM that has this id, or had it last while its certificate is kept */
    int64_t after;     /* cursor: the seq after which to go on, 0: start */
    uint32_t limit;    /* 1 … STORE_AUDIT_VM_MAX */
};
/* Oldest first; *ret malloc'ed (caller frees). ERR_VM_UNKNOWN, ERR_QUERY. */
int store_audit_list(struct store *store, const struct store_audit_filter *filter,
                     struct store_audit **ret, size_t *ret_count, bool *ret_more,
                     struct error *err);
/* Entries of all VMs. */
int store_audit_size(struct store *store, uint64_t *ret, struct error *err);

/* ---- events: the audits of all callers' VMs, as one sequence --------------------------------- */

/*
 * An event's number is the seq of its entry. None is given twice, whatever a power cut undoes: each
 * boot of the host has numbers of its own, above all earlier ones.
 */

/* Once after each start, before anything is written: synced where the boot is another than before.
 * The numbers stay below 2^53. */
int store_events_boot(struct store *store, const char *boot, struct error *err);

struct store_events_bounds {
    int64_t newest; /* nothing has a higher number yet */
    int64_t lost;   /* what has no higher one is no longer kept, but for a VM's newest */
};
int store_events_bounds(struct store *store, struct store_events_bounds *ret, struct error *err);

enum { STORE_EVENTS_PAGE = 16 };
struct store_events_filter {
    const char *owner; /* NULL: any */
    const char *id;    /* NULL: any */
    uint32_t kinds;    /* 1 << enum store_audit_kind, of all that are wanted; 0: any */
};
struct store_events {
    int64_t after; /* in: the number after which to go on; out: of the last one looked at */
    int64_t told;  /* in: what went before this one is not missed */
    size_t count;
    struct store_audit entries[STORE_EVENTS_PAGE];
    bool torn[STORE_EVENTS_PAGE];   /* entries of its VM that went before it are gone unseen; */
    bool wanted[STORE_EVENTS_PAGE]; /* it may be here for that alone, of another kind */
    bool more;                      /* there may be more, or not all of them were looked at */
    int64_t gap; /* events up to this one, after `after`, are gone unseen; 0: none are */
};
/* The next ones, in order; looks at a bounded number of entries. */
int store_events_read(struct store *store, const struct store_events_filter *filter,
                      struct store_events *events, struct error *err);

/* Wakes once, with the next change that writes events: listen first, then read, and nothing is
 * missed. */
void store_events_listen(struct store *store, struct waker *waker);
void store_events_unlisten(struct store *store, struct waker *waker);

/* ---- calls: requests that change something --------------------------------------------------- */

enum {
    STORE_CALLS_MAX = 100000,       /* kept of all callers, some 25 MiB; the oldest go first */
    STORE_CALLS_CALLER_MAX = 20000, /* and of one */
    STORE_CALLS_PATH_MAX = 255,     /* bytes; a longer path is cut */
};

/* What was asked and what came of it; never a body, a query or a secret. "": none, or not known. */
struct store_call {
    int64_t seq; /* grows; given by the store */
    int64_t wall_ms;
    char caller[STORE_OWNER_MAX + 1]; /* a token's tenant, or the peer */
    char token[ID_NAME_MAX + 1];      /* its name */
    char request_id[LOG_REQUEST_SIZE];
    char method[8];
    char route[64]; /* as in openapi.yaml */
    char path[STORE_CALLS_PATH_MAX + 1];
    char vm[ID_VM_MAX + 1];
    unsigned status;
    char code[48]; /* of a problem */
};
/* In one transaction. */
int store_calls_add(struct store *store, const struct store_call *calls, size_t count,
                    struct error *err);
/* Oldest first, of those with a higher seq than `after`; *ret malloc'ed (caller frees). ERR_QUERY:
 * limit is not 1 … STORE_PAGE_MAX. */
int store_calls_list(struct store *store, int64_t after, uint32_t limit, struct store_call **ret,
                     size_t *ret_count, bool *ret_more, struct error *err);
int store_calls_size(struct store *store, uint64_t *ret, struct error *err);

#endif
