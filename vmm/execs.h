/* Commands as things of their own, inside: the table (execs.c), what they may take (exec_room.c), their
 * lives (exec_run.c), their ends that callers hold (exec_ends.c). */
#ifndef MOTTE_VMM_EXECS_H
#define MOTTE_VMM_EXECS_H

#include "vmm/exec_log.h"
#include "vmm/internal.h"

enum { VMM_EPOCH_LEN = 8 };

/* Whose VMs commands are of, as long as there are any or anything is kept of them. */
struct vmm_exec_owner {
    struct vmm_exec_owner *next;
    unsigned refs;             /* each command's */
    unsigned running, watched; /* that run; of these, such as are in the table */
    unsigned listed;           /* in the table */
    size_t memory;             /* of their logs */
    char name[STORE_OWNER_MAX + 1];
};

struct vmm_exec {
    struct vmm_exec *next;        /* in the table; newest first */
    struct vmm *vmm;              /* borrowed */
    unsigned refs;                /* the table's, its thread's, readers' and waiters' */
    bool listed;                  /* in the table, */
    bool begun;                   /* and to be seen: the guest has taken it */
    unsigned waiters;             /* callers who wait for its end */
    struct vmm_exec_owner *owner; /* a reference; NULL before it is in the table */
    struct vmm_exec_record record;
    struct vmm_exec_log log;
    struct buf input; /* not taken yet, from `input_at` on */
    size_t input_at;
    bool input_ended;
    struct vsock_orders orders;
    struct waker *waiting; /* readers */
    int64_t begin_us;
    int wake; /* eventfd: input or orders are there */
    /* Its thread's alone. */
    struct vmm_machine *machine; /* a reference */
    struct vsock_conn *conn;
    unsigned port, changes; /* of the connection; of pauses, when it began */
    uint32_t timeout_ms;
    struct vsock_command command;
};

struct vmm_execs {
    pthread_mutex_t lock;   /* guards all below and the execs; nothing is waited for under it */
    pthread_cond_t changed; /* one has ended, or its thread has */
    char epoch[ID_INSTANCE_SIZE]; /* ids of this run begin with it, VMM_EPOCH_LEN characters */
    struct vmm_exec *first;
    struct vmm_exec_owner *owners;
    unsigned count, running;
    size_t memory; /* of all logs in the table */
    bool leaving;  /* the service stops: those that nobody waits for end, */
    bool closing;  /* and the others too */
    unsigned threads;
};

struct vmm_execs *vmm_execs_new(struct error *err);
/* No thread may be left. NULL is allowed. */
void vmm_execs_free(struct vmm_execs *execs);
/* Those that nobody waits for are given up. */
void vmm_execs_drain(struct vmm *vmm);
/* All are; returns when their threads have ended. */
void vmm_execs_close(struct vmm *vmm);

/* With the lock held, all of these. */
struct vmm_exec *vmm_exec_find(struct vmm *vmm, const struct vmm_exec_key *key, struct error *err);
void vmm_exec_unref(struct vmm_exec *exec);
void vmm_exec_unlist(struct vmm_exec *exec);
void vmm_exec_keep(struct vmm_exec *exec, enum wire_kind kind, const uint8_t *data, size_t len);
/* The oldest of its output, until it takes that much memory; false: it has its newest piece alone. */
bool vmm_exec_forget(struct vmm_exec *exec, size_t memory);
void vmm_exec_rouse(struct vmm_exec *exec); /* its thread looks at input and orders */
/* It runs no more, or did not begin. */
void vmm_exec_stopped(struct vmm_exec *exec);
/* One command more of the owner's runs; a reference. ERR_QUOTA. */
int vmm_exec_owner_begin(struct vmm *vmm, const char *name, struct vmm_exec_owner **ret,
                         struct error *err);
void vmm_exec_owner_unref(struct vmm_execs *execs, struct vmm_exec_owner *owner);
/* For one more in the table: ERR_BUSY, or an old one is forgotten for it if there are many. */
int vmm_exec_make_room(struct vmm_execs *execs, const struct vmm_exec_owner *owner,
                       const char *instance, struct error *err);

/* All that follow take the lock themselves. */

/* A command that is in no table begins, and has ended. ERR_QUOTA. */
int vmm_exec_enter(struct vmm *vmm, const char *name, struct vmm_exec_owner **ret,
                   struct error *err);
void vmm_exec_leave(struct vmm *vmm, struct vmm_exec_owner *owner);
/* A new one in the table, with a reference for the caller; not to be seen yet. ERR_BUSY, ERR_QUOTA:
 * there are too many. */
int vmm_exec_new(struct vmm *vmm, const char *owner, const char *vm, const char *instance,
                 struct vmm_exec **ret, struct error *err);

#endif
