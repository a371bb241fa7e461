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

/*
 * Whom it is for. Those that are not for a caller are the service's own: they take room and are
 * recovered and reaped as others are, yet nobody gets, lists, changes or ends one by its id, and
 * none leaves a certificate or an audit that could be read. Their id is their instance, their owner
 * one that no caller can be.
 */
enum store_purpose {
    STORE_FOR_CALLER,
    STORE_FOR_POOL,     /* waits to be claimed */
    STORE_FOR_TEMPLATE, /* an image's snapshot is made of it */
};
#define STORE_OWNER_ITSELF ":motte"

enum store_source { STORE_FROM_BOOT, STORE_FROM_SNAPSHOT, STORE_FROM_POOL };

struct store;

/* ---- keys: requests that callers may repeat -------------------------------------------------- */

enum {
    STORE_KEYS_MAX = 4096,          /* of an owner; his oldest go first, */
    STORE_KEYS_BYTES_MAX = 8 << 20, /* and when their answers' bodies are more than this together */
    STORE_ANSWER_MAX = 32 * 1024,   /* bytes of an answer's body; a longer one is not kept */
    STORE_KEYS_KEEP_S = 24 * 3600,  /* of time that the host was up, and up to an hour more */
};

struct store_key {
    char owner[STORE_OWNER_MAX + 1];
    uint8_t key[HASH_SIZE], request[HASH_SIZE]; /* digests */
    bool once; /* after a crash nobody knows whether it was done, and doing it again would hurt */
};

struct store_answer {
    unsigned status;
    char location[ID_VM_MAX + 40]; /* "": none */
    char *body;                    /* owned */
    size_t len;
};
void store_answer_release(struct store_answer *answer);

/* An answer that is kept in the transaction that makes what it tells of: whoever finds the one finds
 * the other, whenever the service was killed. */
struct store_keep {
    struct store_key key;
    /* Makes it, of what was made (a struct store_vm or store_snapshot; `made`, where it is set).
     * Must not block. -1: out of memory. NULL: nothing is kept. */
    int (*answer)(const void *made, struct store_answer *ret);
    const void *made; /* borrowed */
};

enum store_key_state {
    STORE_KEY_NEW,      /* it is this request's from now on: answer or release it */
    STORE_KEY_UNDERWAY, /* the first request has not been answered yet */
    STORE_KEY_ANSWERED,
    STORE_KEY_LOST,  /* nobody can tell what was answered, or whether it was done */
    STORE_KEY_OTHER, /* the first request was another one */
};
/* *ret_answer: the answer, if there is one; release it in any case. */
int store_key_begin(struct store *store, const struct store_key *key, enum store_key_state *ret,
                    struct store_answer *ret_answer, struct error *err);
/* For what is not kept with what it tells of. `instance`: of a VM that does not run yet: if it never
 * does, the key is released with its end; "" for none. */
int store_key_answer(struct store *store, const struct store_key *key,
                     const struct store_answer *answer, const char *instance, struct error *err);
/* The next request with it is a first one. */
int store_key_release(struct store *store, const struct store_key *key, struct error *err);

/* ---- VMs: what there is to know of one ------------------------------------------------------- */

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
    char labels[STORE_LABELS_MAX];   /* JSON object of strings, keys sorted */
    char steps[STORE_STEPS_MAX];     /* JSON array [{"name":…,"ms":…}] */
    char guest[256];                 /* JSON object: agent, kernel, boot_ms; "" before hello */
    char snapshot[ID_INSTANCE_SIZE]; /* that it was restored from; "": it booted */
    enum store_purpose purpose;
    enum store_source source; /* as its owner sees it */
    /* Not of the row: what store_vm_running() and store_vm_claim() keep with it. Borrowed; NULL:
     * nothing. */
    const struct store_keep *keep;
};

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

/* Which moment of the inventory it is: another one after each change, and 0 while one is being
 * committed. While the same moment stands that stood before something was read, it still reads the
 * same, and nobody has read otherwise. (No other program changes the file while it is open.) Waits
 * for nothing. */
uint64_t store_moment(struct store *store);

/* ---- VMs ------------------------------------------------------------------------------------- */

/* What an owner may have at once; 0: no limit. Of all rows of his that have not ended. */
struct store_quota {
    uint32_t vms, vcpus, memory_mib;
    uint32_t execs; /* commands that run: of these the inventory knows nothing, vmm/ counts them */
};
enum { STORE_QUOTAS_MAX = 64 };
#define STORE_QUOTA_COMMON UINT32_MAX /* in `of`: as `common` has it */
struct store_quotas {
    struct store_quota common; /* of all that are not in `of` */
    size_t count;
    struct store_quota_of {
        char owner[STORE_OWNER_MAX + 1]; /* stands once */
        struct store_quota quota;
    } of[STORE_QUOTAS_MAX];
};
/* For what is admitted from now on. There is none before. */
void store_quotas_set(struct store *store, const struct store_quotas *quotas);
struct store_quota store_quota_of(struct store *store, const char *owner);
/* What he has, and creates, now; of `execs` it says nothing (0). */
int store_quota_used(struct store *store, const char *owner, struct store_quota *ret,
                     struct error *err);

/* Would store_vm_insert() take it now? For who is about to do what a refusal would come too late for:
 * the insert asks again. ERR_ID_TAKEN, ERR_CORDONED, ERR_QUOTA. */
int store_vm_admissible(struct store *store, const struct store_vm *vm, struct error *err);
/* The intent row, state creating, before the first side effect; id and owner are not looked at where
 * it is not for a caller. ERR_ID_TAKEN, ERR_CORDONED, ERR_QUOTA,
 * ERR_SNAPSHOT_UNKNOWN (its owner has none such). */
int store_vm_insert(struct store *store, const struct store_vm *vm, struct error *err);
/* The one commit at the end of a spawn: creating → running with steps, guest, expires. Fails with
 * ERR_CANCELLED if the row is no longer `creating` (a DELETE came). */
int store_vm_running(struct store *store, const struct store_vm *vm, struct error *err);
/* Moves to DELETING; idempotent. Returns the row. Owner and errors as of store_vm_get(). */
int store_vm_deleting(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                      struct error *err);
/* In one transaction the oldest pooled VM that fits `wish` (running and responsive; the same image
 * digest, shape, seccomp, hypervisor, guards it lacks, layout, boot, and the `labels` it has) gets its id, owner, labels,
 * life and times, and is its owner's from then on, the newest in his list. *ret_found: there was one,
 * in *ret. ERR_ID_TAKEN, ERR_CORDONED. */
int store_vm_claim(struct store *store, const struct store_vm *wish, const char *labels,
                   struct store_vm *ret, bool *ret_found, struct error *err);
/* Moves one of the service's own to DELETING, so that nobody claims it. *ret false: it is a caller's
 * by now, ending already or gone. */
int store_vm_retire(struct store *store, const char *instance, bool *ret, struct error *err);
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
struct store_patch {
    int64_t ttl_s; /* from now on, also if it would live longer; 0: as it is */
    /* Makes the new labels of the old ones, in place; inside the transaction. */
    int (*labels)(const void *context, char labels[static STORE_LABELS_MAX], struct error *err);
    const void *context;
};
/* While it runs or is paused. Returns the row. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, and
 * what `labels` says. */
int store_vm_patch(struct store *store, const char *owner, const char *id,
                   const struct store_patch *patch, int64_t boot_ms, struct store_vm *ret,
                   struct error *err);
/* 0: a command runs. An unknown instance: success, here and in the next. */
int store_vm_idle(struct store *store, const char *instance, int64_t since_boot_ms,
                  struct error *err);
int store_vm_agent(struct store *store, const char *instance, enum store_agent agent,
                   struct error *err);

/* owner NULL: any (admin), and ERR_VM_AMBIGUOUS where several have one. ERR_VM_UNKNOWN; ERR_VM_GONE
 * (message says the reason) when only a certificate is left. */
int store_vm_get(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                 struct error *err);
int store_vm_by_instance(struct store *store, const char *instance, struct store_vm *ret,
                         struct error *err);

/* Waits until it is in `state`, has ended (ERR_VM_GONE), CLOCK_MONOTONIC is `until_ms`, or `over` says
 * so; the row as it is then. Woken by what changes it, by this process alone. */
struct store_wait {
    enum store_state state;
    int64_t until_ms;
    bool (*over)(void *context); /* asked at each waking, must not block; NULL: never */
    void *context;
};
int store_vm_wait(struct store *store, const char *instance, const struct store_wait *wait,
                  struct store_vm *ret, struct error *err);
/* Who waits looks again, whether it is `over` too. */
void store_wait_again(struct store *store);
/* From now on nobody waits, and those who do are told what is. */
void store_wait_no_more(struct store *store);

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
/* It is `boot_ms` (CLOCK_BOOTTIME) of boot `boot`: certificates older than keep_ms go, and keys older
 * than STORE_KEYS_KEEP_S. Their age is
 * time that the host was up, to the calls of this: time between two boots counts as none. */
int store_age(struct store *store, const char *boot, int64_t boot_ms, int64_t keep_ms,
              struct error *err);
/* Live rows of callers per state (index by enum store_state), those of the service itself, and sums
 * of what all take. */
struct store_totals {
    uint64_t by_state[STORE_LOST + 1];
    uint64_t itself;
    uint64_t memory_mib, vcpus;
};
int store_totals(struct store *store, struct store_totals *ret, struct error *err);

/* ---- snapshots: what VMs can be restored from ------------------------------------------------ */

enum store_snapshot_kind {
    STORE_LASTING,
    STORE_EPHEMERAL, /* for forks that are being made: nobody else sees it, and it ends with them */
    STORE_OF_IMAGE,  /* just booted; the service's own, which no request sees */
};

struct store_snapshot {
    char id[ID_INSTANCE_SIZE]; /* the root half's name of it */
    char owner[STORE_OWNER_MAX + 1];
    char vm[ID_VM_MAX + 1]; /* that it was taken of, by its id and by its instance */
    char instance[ID_INSTANCE_SIZE];
    char image[ID_NAME_MAX + 1];
    uint8_t image_digest[HASH_SIZE];
    uint32_t vcpus, memory_mib, disk_mib;
    char seccomp[16], hypervisor[16];
    uint32_t generation; /* of the guest's agent when it was taken */
    int64_t bytes;       /* that it takes on the disk */
    int64_t created_wall_ms;
    enum store_snapshot_kind kind;
    char labels[STORE_LABELS_MAX];
    const struct store_keep
        *keep; /* as a VM's, for store_snapshot_commit() and store_fork_commit() */
};

/* The intent, before the first side effect: a snapshot of this VM is being made, for which it may
 * stand still although its row says `running`: then it has to run on, also after a crash.
 * ERR_SNAPSHOT_BUSY: one is being made already. */
int store_snapshot_begin(struct store *store, const char *instance, struct error *err);
/* It is there, for good (a commit that a power cut does not undo); the intent goes. */
int store_snapshot_commit(struct store *store, const struct store_snapshot *snapshot,
                          struct error *err);
/* The intent goes; none is success. */
int store_snapshot_abandon(struct store *store, const char *instance, struct error *err);

/* Is there an intent for it? */
int store_snapshot_intended(struct store *store, const char *instance, bool *ret,
                            struct error *err);
/* Is there one of that id, of any kind? */
int store_snapshot_recorded(struct store *store, const char *id, bool *ret, struct error *err);
/* Is it an ephemeral one? Then the forks that were restored from it are not yet all there. */
int store_snapshot_forking(struct store *store, const char *id, bool *ret, struct error *err);
/* It has not served. ERR_SNAPSHOT_IN_USE while forks of it are there, for then it says what is to come
 * of them at a start. Of any other, or none, this takes nothing away. */
int store_ephemeral_remove(struct store *store, const char *id, struct error *err);
/* An ephemeral one has served: the forks from it are all there, and VMs like others. */
int store_fork_commit(struct store *store, const struct store_snapshot *snapshot,
                      struct error *err);
/* After a crash: no ephemeral snapshot outlives the service, no intent its VM, and of a key whose
 * request was not answered it is known that the request did nothing, or nothing is known. */
int store_recover(struct store *store, struct error *err);

/* A lasting one. owner NULL: any, here and below. ERR_SNAPSHOT_UNKNOWN. */
int store_snapshot_get(struct store *store, const char *owner, const char *id,
                       struct store_snapshot *ret, struct error *err);
/* Lasting ones in order of making; of the filter `state` means nothing here, and `after` is an id.
 * malloc'ed. ERR_QUERY: a limit out of range, or a cursor that is unknown. */
int store_snapshot_list(struct store *store, const struct store_filter *filter,
                        struct store_snapshot **ret, size_t *ret_count, bool *ret_more,
                        struct error *err);
/* Nobody can be restored from it any more. ERR_SNAPSHOT_UNKNOWN; ERR_SNAPSHOT_IN_USE while VMs are
 * there that were, unless it is ephemeral. */
int store_snapshot_remove(struct store *store, const char *owner, const char *id,
                          struct error *err);

/* What an image's snapshot is of: what a VM is made of, all of it. The labels, as JSON, are the
 * service's own: they say of which kernel. */
enum { STORE_KEY_LABELS_MAX = 96 };
struct store_image_key {
    uint8_t image_digest[HASH_SIZE];
    uint32_t vcpus, memory_mib, disk_mib;
    char seccomp[16], hypervisor[16];
    char labels[STORE_KEY_LABELS_MAX];
};
/* The one for the key, which counts as used by that; "": there is none. */
int store_image_snapshot_find(struct store *store, const struct store_image_key *key,
                              char ret[static ID_INSTANCE_SIZE], struct error *err);
/* All of them, the one used last first; malloc'ed. */
int store_image_snapshots(struct store *store, struct store_snapshot **ret, size_t *ret_count,
                          struct error *err);
/* Gone is success. VMs that were restored from it do not hinder. */
int store_image_snapshot_remove(struct store *store, const char *id, struct error *err);

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

#include "store/audit.h" /* what happened to VMs, and who asked for what */

#endif
