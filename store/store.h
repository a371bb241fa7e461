/*
 * store: the inventory in SQLite. Nothing about a VM lives only in memory that a restart would
 * need. Schema by `user_version`, migrated in one transaction; a newer schema is refused
 * (ERR_STORE_NEWER). WAL, synchronous=NORMAL (after a host crash no VM survives either),
 * busy_timeout 2 s, BEGIN IMMEDIATE. Thread-safe: one connection writes under a mutex, readers have
 * connections of their own from a small pool. Never open the file outside SQLite. Errors:
 * ERR_STORE, ERR_STORE_BUSY (locked), ERR_STORE_FULL (no space), ERR_VM_UNKNOWN, ERR_ID_TAKEN.
 *
 * DIR/ballast keeps 8 MiB of the disk for the ends of VMs: without that much to spare no VM is
 * inserted (ERR_STORE_FULL).
 */
#ifndef MOTTE_STORE_H
#define MOTTE_STORE_H

#include "base/base.h"

enum {
    STORE_OWNER_MAX = 64,
    STORE_REASON_MAX = 32,
    STORE_LABELS_MAX = 4096, /* bytes of labels as JSON */
    STORE_STEPS_MAX = 1024,
    STORE_CERTIFICATES_MAX = 10000, /* older ones go */
    STORE_CONSOLE_MAX = 8192,       /* bytes of a console's end in a certificate */
    STORE_PAGE_MAX = 500,
    STORE_AUDIT_VM_MAX = 100, /* entries kept of one VM, */
    STORE_AUDIT_MAX = 100000, /* and of all: some 20 MiB; the oldest go first */
    STORE_AUDIT_DETAIL_SIZE = 256,
    STORE_LAYOUT = 1, /* how an instance is built; recovery undoes by it */
};

enum store_state {
    STORE_CREATING = 1,
    STORE_RUNNING,
    STORE_PAUSED,
    STORE_DELETING,
    STORE_FAILED, /* this and below: ended; a certificate remains */
    STORE_EXITED,
    STORE_LOST,
};
const char *store_state_name(enum store_state state);           /* "running" */
int store_state_parse(const char *name, enum store_state *ret); /* 0 or -1 */

/* Does a VM's agent answer? */
enum store_agent { STORE_AGENT_UNKNOWN, STORE_AGENT_RESPONSIVE, STORE_AGENT_UNRESPONSIVE };

/* What happens to a VM whose agent does not. */
enum store_policy { STORE_KEEP, STORE_DELETE };

struct store_vm {
    char instance[ID_INSTANCE_SIZE];
    char id[ID_VM_MAX + 1]; /* unique per owner among VMs that have not ended */
    char owner[STORE_OWNER_MAX + 1];
    enum store_state state;
    char reason[STORE_REASON_MAX]; /* a word such as "ttl", "vmm_crash", "spawn_guard"; "" while
                                      fine */
    char message[ERROR_MESSAGE_MAX];
    char image[ID_NAME_MAX + 1];
    uint8_t image_digest[HASH_SIZE];
    uint32_t vcpus, memory_mib, disk_mib;
    char seccomp[16];    /* "minimal" … */
    char hypervisor[16]; /* "firecracker", "qemu" */
    bool emulated;
    uint32_t without; /* enum priv_guard bits: guards this VM lacks */
    uint32_t uid, layout;
    char chain[32]; /* UNIQUE */
    int64_t ttl_s;
    int64_t created_wall_ms, state_wall_ms;
    int64_t expires_boot_ms; /* CLOCK_BOOTTIME of this boot */
    int64_t expires_wall_ms; /* the same moment as it was told when it was set; decides nothing */
    int64_t idle_s;          /* ends after so long without a command; 0: never */
    int64_t idle_since_boot_ms; /* CLOCK_BOOTTIME; 0: a command runs */
    enum store_agent agent;
    enum store_policy on_unresponsive;
    char boot[ID_BOOT_SIZE];
    char labels[STORE_LABELS_MAX]; /* JSON object of strings, keys sorted */
    char steps[STORE_STEPS_MAX];   /* JSON array [{"name":…,"ms":…}] */
    char guest[256];               /* JSON object: agent, kernel, boot_ms; "" before hello */
};

struct store;

/* Opens or makes DIR/motte.db (0600) beneath an absolute directory. quick_check first: a corrupt
 * file is an error that says how to go on, and nothing is touched. An older schema is migrated, after
 * a copy was made: DIR/motte.db.v2 is what schema 2 was. */
int store_open(const char *dir, struct store **ret, struct error *err);
void store_close(struct store *store);

/* ---- copies: by another program than the service, as the owner of the directory -------------- */

enum { STORE_ASIDE_SIZE = 48 };
/* Copies DIR/motte.db to DIR/NAME (a leftover there is replaced), also while it is in use: as it was
 * at one moment, checked, in one file. On error there is no copy. */
int store_backup(const char *dir, const char *name, struct error *err);
/* Puts the copy DIR/NAME in the place of DIR/motte.db, which nobody may have open. Checks it first:
 * damaged, newer, another program's are refused and nothing has changed. `aside`: the name under
 * which what was there is kept; "" if there was nothing. */
int store_restore(const char *dir, const char *name, char aside[static STORE_ASIDE_SIZE],
                  struct error *err);

/* ---- VMs ------------------------------------------------------------------------------------- */

/* The intent row, state creating, before the first side effect. ERR_ID_TAKEN, ERR_CORDONED. */
int store_vm_insert(struct store *store, const struct store_vm *vm, struct error *err);
/* The one commit at the end of a spawn: creating → running with steps, guest, expires. Fails with
 * ERR_CANCELLED if the row is no longer `creating` (a DELETE came). */
int store_vm_running(struct store *store, const struct store_vm *vm, struct error *err);
/* Moves to DELETING; idempotent. owner NULL: any. ERR_VM_UNKNOWN, ERR_VM_GONE. Returns the row. */
int store_vm_deleting(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                      struct error *err);
/* The end: one transaction removes the row and writes its certificate with state, reason, message
 * and console tail (bounded). Unknown instance: success. */
int store_vm_end(struct store *store, const char *instance, enum store_state state,
                 const char *reason, const char *message, const char *console, struct error *err);

/* Running ⇄ paused; idempotent. Who goes on at `boot_ms` has not been idle. Returns the row.
 * ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING. */
int store_vm_paused(struct store *store, const char *instance, bool paused, int64_t boot_ms,
                    struct store_vm *ret, struct error *err);
/* While it runs or is paused: at `boot_ms` somebody said that it is still needed. It will live for
 * ttl_s more, or longer if it would anyway; 0: for its own ttl_s. ERR_VM_UNKNOWN, ERR_VM_GONE,
 * ERR_VM_NOT_RUNNING. Returns the row. */
int store_vm_keepalive(struct store *store, const char *owner, const char *id, int64_t ttl_s,
                       int64_t boot_ms, struct store_vm *ret, struct error *err);
/* 0: a command runs. An unknown instance: success, here and in the next. */
int store_vm_idle(struct store *store, const char *instance, int64_t since_boot_ms,
                  struct error *err);
int store_vm_agent(struct store *store, const char *instance, enum store_agent agent,
                   struct error *err);

/* owner NULL: any (admin). ERR_VM_UNKNOWN; ERR_VM_GONE (message says the reason) when only a
 * certificate is left. */
int store_vm_get(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                 struct error *err);
int store_vm_by_instance(struct store *store, const char *instance, struct store_vm *ret,
                         struct error *err);

/* What remains of a VM that has ended. */
struct store_certificate {
    char instance[ID_INSTANCE_SIZE];
    enum store_state state;
    char reason[STORE_REASON_MAX];
    char message[ERROR_MESSAGE_MAX];
    int64_t created_wall_ms, ended_wall_ms;
    size_t console_len;
    char console[STORE_CONSOLE_MAX]; /* bytes, the guest's word */
};
/* Of the VM that had the id last. owner NULL: any. ERR_VM_UNKNOWN. */
int store_certificate_get(struct store *store, const char *owner, const char *id,
                          struct store_certificate *ret, struct error *err);

struct store_filter {
    const char *owner;                   /* NULL: any */
    enum store_state state;              /* 0: any */
    const char *label_key, *label_value; /* NULL: any; value NULL: key exists */
    const char *after; /* cursor: the instance after which to go on (by rowid order), NULL: start */
    uint32_t limit;    /* 1 … STORE_PAGE_MAX */
};
/* In order of creation; *ret malloc'ed (caller frees; NULL when empty); *ret_more: there are more.
 * A VM that lives through the whole walk is seen exactly once, whatever else comes and goes.
 * ERR_QUERY: a limit out of range, or a cursor that is unknown, another owner's, or whose
 * certificate has gone. */
int store_vm_list(struct store *store, const struct store_filter *filter, struct store_vm **ret,
                  size_t *ret_count, bool *ret_more, struct error *err);
/* Every live row (recovery, reaper); malloc'ed. */
int store_vm_all(struct store *store, struct store_vm **ret, size_t *ret_count, struct error *err);
/* Their instances alone, malloc'ed. */
int store_vm_instances(struct store *store, char (**ret)[ID_INSTANCE_SIZE], size_t *ret_count,
                       struct error *err);
/* It is `boot_ms` (CLOCK_BOOTTIME) of boot `boot`: certificates older than keep_ms go. Their age is
 * time that the host was up, to the calls of this: time between two boots counts as none. */
int store_age(struct store *store, const char *boot, int64_t boot_ms, int64_t keep_ms,
              struct error *err);
/* Live rows per state; index by enum store_state. And sums of what they take. */
struct store_totals {
    uint64_t by_state[STORE_LOST + 1];
    uint64_t memory_mib, vcpus;
};
int store_totals(struct store *store, struct store_totals *ret, struct error *err);

/* ---- cordon: no new VMs ---------------------------------------------------------------------- */

struct store_cordon {
    bool set;
    char owner[STORE_OWNER_MAX + 1]; /* who set it */
    int64_t since_wall_ms;
    /* When VMs that are still there are ended; both 0: never. The first is for people to read. */
    int64_t drain_wall_ms, drain_boot_ms;
};
int store_cordon_get(struct store *store, struct store_cordon *ret, struct error *err);
/* From its return on store_vm_insert() fails with ERR_CORDONED. One that is set already keeps its
 * owner and time. drain_ms < 0 leaves the drain as it is, else it ends in so many ms from now. */
int store_cordon_set(struct store *store, const char *owner, int64_t drain_ms,
                     struct store_cordon *ret, struct error *err);
/* With its drain. None set: success. */
int store_cordon_lift(struct store *store, struct error *err);
/* ERR_CORDONED, with who set it; returns -1. */
int store_cordon_refuse(const struct store_cordon *cordon, struct error *err);

/* ---- audit: what happened to a VM that matters for its isolation ---------------------------- */

/*
 * A ring per VM inside a ring of all, kept after the VM has ended. No entry holds text that a guest
 * or a caller's command made. CREATED, RUNNING, PAUSED, RESUMED and ENDED are written by the changes
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
};
const char *store_audit_kind_name(enum store_audit_kind kind); /* "created" */

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

#endif
