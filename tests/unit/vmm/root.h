/* A root half with a script, for tests of the engine: it speaks priv/messages.h, its VMMs are
 * processes that sleep, and its guests are threads behind real sockets. Without Criterion, so that
 * ThreadSanitizer can run what uses it. */
#ifndef MOTTE_TESTS_VMM_ROOT_H
#define MOTTE_TESTS_VMM_ROOT_H

#include "priv/client.h"
#include "tests/unit/base/check.h"

#include <pthread.h>
#include <stdatomic.h>

enum { ROOT_MEMORY_MIB = 1 << 20 }; /* of the host, for VMs */

/* In the order of a spawn. */
enum moment {
    NEVER,
    AT_RESERVE,
    AT_GUARD,
    AT_LAUNCH,
    AT_OPEN_API,
    AT_PUT, /* Firecracker's API while it is configured */
    AT_OPEN_VSOCK,
    AT_START,
    AT_CHECK,
    AT_HELLO,
    AT_EXEC,
    AT_ASK,   /* the agent is asked for its hello */
    AT_ALIVE, /* and the VMM whether it lives */
    AT_OPEN_PIDFD,
    AT_OPEN_CONSOLE,
    AT_OPEN_LOG,
    AT_PAUSE,
    AT_RESUME,
    AT_STAGE,
    AT_SAVE, /* the VMM writes a snapshot */
    AT_CAPTURE,
    AT_PUBLISH,
    AT_LOAD, /* it is set up from one */
    AT_RESTORE,
    MOMENTS,
};

struct plan {
    enum moment fail; /* refuses, or keeps silent where nobody asks */
    /* What it refuses CHECK and OPEN with, in the place of its own reason. */
    enum error_code code;
    int sys;
    int times;        /* how often it fails; 0: always */
    enum moment die;  /* the VMM ends; AT_LAUNCH and later */
    enum moment lie;  /* the agent sends what is no frame: AT_HELLO, AT_EXEC, AT_ASK, AT_RESTORE */
    enum moment mute; /* does it, and does not answer: AT_PAUSE, AT_RESUME, AT_SAVE, AT_RESTORE */
    enum moment call; /* calls `action` before it goes on */
    void (*action)(void *context, const char *instance);
    void *context;
    unsigned spare;    /* does not `fail` each time, but spares each so-manieth; 0: none */
    int kill_failures; /* KILLs that are refused before one is done */
    int blocked;       /* when it ends its log says that this call was blocked; 0: nothing */
    int status;        /* what KILL tells, in place of the truth; 0: the truth */
    uint32_t oom_kills;
    const char *agent; /* what it calls itself, as JSON; NULL: script */
    bool speechless;   /* the VMM writes nothing to its console */
    bool no_log;       /* OPEN finds none, as of a VMM that an earlier version started */
    bool stays;        /* what it is told by a restore it does not take */
    bool no_status;    /* KILL tells none, as for a VMM that an earlier root half started */
};

enum phase { PHASE_NONE, PHASE_STAGED, PHASE_CAPTURED };

struct guest {
    struct guest *next;
    char instance[ID_INSTANCE_SIZE];
    struct plan plan;  /* kill_failures: guarded by the root's lock */
    struct plan looks; /* the same, until it is replaced: for CHECK and OPEN */
    atomic_uint met;   /* moments that the plan has something to fail for */
    const char *dir;   /* of its sockets; borrowed */
    enum priv_state state;
    pid_t pid; /* the VMM */
    int pidfd, console, console_end, log, log_end;
    int api, vsock, hello; /* listeners */
    int stop;              /* eventfd: the VMM is to end */
    bool dies;             /* its API was asked for something, and it ends of it */
    bool in_api;           /* its thread serves the API: nothing else meanwhile */
    atomic_bool paused;
    int said;         /* its end of its hello's connection, or -1 */
    bool saved;       /* one was asked for: the next that has only what changed is not whole */
    bool cut;         /* a snapshot was written: its next connection is lost */
    atomic_int phase; /* of a snapshot that is being made: enum phase */
    char snapshot[ID_INSTANCE_SIZE]; /* it comes from; "": it boots */
    atomic_uint generation;          /* that its agent tells */
    atomic_uint asked;               /* whether it lives */
    int checked;                     /* eventfd: CHECK is over, as a death at hello needs it */
    pthread_t thread;
};

/* guest.c. The VMM with its sockets. */
void guest_launch(struct guest *guest);
/* SIGKILL; returns when it has ended and its connections are closed. */
void guest_die(struct guest *guest);
/* Ends it if it still runs, and reaps it; the status. */
int guest_reap(struct guest *guest);
bool guest_ended(const struct guest *guest);
/* What the plan has for this moment; true: fail. */
bool guest_moment(struct guest *guest, enum moment moment);
bool plan_moment(const struct plan *plan, const char *instance, enum moment moment);
void guest_path(const struct guest *guest, const char *name, char out[static 108]);

struct snapshot {
    struct snapshot *next;
    char id[ID_INSTANCE_SIZE], instance[ID_INSTANCE_SIZE];
    uint32_t generation;
};

struct root {
    int fd; /* our end */
    char dir[32];
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    struct guest *guests;
    struct snapshot *snapshots;                      /* by id, ascending */
    enum error_code no_restore;                      /* LAUNCH from one is refused with this */
    bool no_forget, no_snapshots;                    /* FORGET_SNAPSHOT is refused; SNAPSHOTS is */
    enum priv_hypervisor hypervisor;                 /* that HOST tells */
    bool no_list;                                    /* LIST is refused */
    struct plan next;                                /* of the next instance */
    void (*choose)(void *context, struct plan *ret); /* or NULL: `next` */
    void *choose_context;
};

/* Returns the client of a new channel. */
struct priv_client *root_start(struct root *root);
/* Frees the client; the instances live on. */
void root_stop(struct root *root, struct priv_client *client);
/* Again after root_stop(), as for a front that was restarted. */
struct priv_client *root_resume(struct root *root);
/* Removes what root_start() made. No instance may be left. */
void root_release(struct root *root);

void root_plan(struct root *root, struct plan plan);
/* From now on asked for each VM's plan; NULL: root_plan()'s is. */
void root_choose(struct root *root, void (*choose)(void *context, struct plan *ret), void *context);
/* To choose by: the plan that `context` points to is the first VM's alone. */
void root_plan_of_the_first(void *context, struct plan *ret);
void root_kill_failures(struct root *root, const char *instance, int failures);
/* Another plan for CHECK and OPEN of one that lives, while there is no front. */
void root_replan(struct root *root, const char *instance, struct plan plan);
/* Its guest writes to the serial console. */
void root_say(struct root *root, const char *instance, const char *text);
/* The VMM ends by itself. */
void root_crash(struct root *root, const char *instance);
size_t root_live(struct root *root);
/* Whether it is, and how often it was asked whether it lives. */
bool root_paused(struct root *root, const char *instance);
unsigned root_asked(struct root *root, const char *instance);
/* How often the moment came that its plan fails at. */
unsigned root_met(struct root *root, const char *instance);

/* How many are published. */
size_t root_snapshots(struct root *root);
/* How far a snapshot of it is. */
enum phase root_phase(struct root *root, const char *instance);

size_t root_open_fds(void);

/* root_snapshots.c: what the root half does about snapshots; ERR_NONE, or why not. The lock is not
 * held. */
bool root_does_snapshots(enum priv_op op);
enum error_code root_snapshot_op(struct root *root, struct guest *guest /* or NULL */,
                                 const struct priv_request *request, struct priv_reply *reply);
/* The generation of one, or 0. */
uint32_t root_generation(struct root *root, const char *snapshot);
/* As the next root half does: what was not finished goes. */
void root_unstage_all(struct root *root);
void root_forget_all(struct root *root);

#endif
