/* vmm's inside: what spec, spawn, monitor and hypervisors share. Only vmm/ and its tests include
 * it. */
#ifndef MOTTE_VMM_INTERNAL_H
#define MOTTE_VMM_INTERNAL_H

#include "vmm/vmm.h"

#include <pthread.h>

enum {
    VMM_LOG_TAIL = 2048, /* bytes kept per VM of the VMM's log alone */
    VMM_THREAD_SIZE = 16,
    VMM_API_TIMEOUT_MS = 30000, /* a start took more than 10 s on a starved host, and was well */
    VMM_CONNECT_TIMEOUT_MS = 5000,
    VMM_SNAPSHOT_TIMEOUT_MS = 120000, /* the memory goes to the disk at its pace */
    VMM_PAUSE_TIMEOUT_MS = 35000,     /* Firecracker waits 30 s for a processor to stop */
    VMM_WATCHERS = 8, /* a VMM or agent that hangs occupies one while it is waited for */
    VMM_SWEEP_MS = 5000,
    VMM_EXEC_GRACE_MS = 5000, /* for the guest to begin a command, and to say that it ended */
};

struct vmm_spec {
    char id[ID_VM_MAX + 1];
    struct image image;
    struct image_kernel kernel;
    uint32_t vcpus, memory_mib, disk_mib;
    enum priv_seccomp seccomp;
    int64_t ttl_s, idle_s; /* idle_s 0: never idle */
    enum store_policy on_unresponsive;
    char labels[STORE_LABELS_MAX];
    char snapshot[ID_INSTANCE_SIZE]; /* to restore; "": boots */
    bool cold;                       /* boots, whatever would be faster */
    enum store_purpose purpose;
    struct store_keep keep;
};
const char *vmm_seccomp_name(enum priv_seccomp level);

/* ---- machine: a VM as the front holds it, descriptors only; everything else is in the store ----
 */

enum vmm_phase {
    VMM_SPAWNING, /* its spawn owns it: ending means asking the spawn to stop */
    VMM_UP,
    VMM_ENDING, /* one thread is removing it; others wait */
};

/* A system call that a VMM's filter blocked. */
struct vmm_violation {
    bool claimed;                 /* the VMM's log alone says so */
    int number;                   /* of the system call; -1: not known */
    char thread[VMM_THREAD_SIZE]; /* "fc_vcpu 0"; "": not known */
};

/* What a VMM says of its end: Firecracker's log, QEMU's events. */
enum vmm_word {
    VMM_WORD_NONE,
    VMM_WORD_OFF,    /* the guest switched its machine off */
    VMM_WORD_RESET,  /* the guest reset its machine */
    VMM_WORD_SIGNAL, /* a signal ended the VMM */
    VMM_WORD_ERROR,
    VMM_WORD_TOLD, /* the host told the VMM to end */
};

/* What a guest says of its end, on its console. */
enum vmm_claim {
    VMM_CLAIM_NONE,
    VMM_CLAIM_OOM,
    VMM_CLAIM_PANIC,
    VMM_CLAIM_SHUTDOWN,
    VMM_CLAIM_RESET,
};

/* All that is known of a VM's end. */
struct vmm_evidence {
    struct priv_killed killed;
    int exit_signal; /* that ended the VMM, by its exit status; 0: none */
    bool violated;
    struct vmm_violation violation;
    bool heard; /* the VMM's log or events were listened to until its end */
    enum vmm_word word;
    enum vmm_claim claim;
};

struct vmm_cause {
    const char *reason, *known_by; /* from closed lists: openapi.yaml, Reason and AuditEntry */
    char message[ERROR_MESSAGE_MAX];
};

/* How a VM ended, as its certificate will say it. */
struct vmm_verdict {
    enum store_state state;
    char reason[STORE_REASON_MAX]; /* "": why it exited is to be found out */
    char message[ERROR_MESSAGE_MAX];
    /* Found out after the first KILL, which alone tells it. */
    bool examined, by_itself;
    struct vmm_evidence evidence;
    const char *known_by;
    bool told; /* it is in the audit */
};

/* What a snapshot left to do that its front could not do any more, or the store not take. */
enum vmm_owed {
    VMM_OWED_NOTHING,
    VMM_OWED_INTENT, /* to take its intent back */
    VMM_OWED_THAW,   /* and to let it go on before */
};

/* What must be the same in a VM that waits and in one that is asked for. */
struct vmm_kind {
    uint8_t image_digest[HASH_SIZE];
    uint32_t vcpus, memory_mib, disk_mib, without;
    char seccomp[16];
    char labels[STORE_KEY_LABELS_MAX]; /* of which kernel, as the row of one that waits says */
};

struct vmm_machine {
    struct vmm_machine *next; /* table's list */
    uint64_t serial;          /* never used again, unlike a descriptor's number */
    unsigned refs;            /* guarded by the table's lock */
    char instance[ID_INSTANCE_SIZE];
    enum vmm_phase phase;    /* guarded by the table's lock */
    int64_t expires_boot_ms; /* guarded by the table's lock */
    /* Of a machine that is up; likewise. Callers wait until it is theirs, where its row says so. */
    enum store_purpose purpose;
    struct vmm_kind kind;
    bool overdue; /* its time is up and the reaper has it; likewise */
    /* Commands in it, and since when there are none. Changed under use_lock, which also keeps the
     * store in step, and the table's lock; read under either. */
    pthread_mutex_t use_lock;
    unsigned commands;
    int64_t idle_ms, idle_since_boot_ms; /* idle_ms 0: it may be idle for ever */
    enum store_agent agent;
    enum store_policy on_unresponsive;
    /* When the watchdog asks next, and whether it is asking: guarded by the table's lock. Who asks
     * counts what was not answered, in a row. */
    int64_t ask_ms;
    bool asked;
    unsigned vmm_misses, agent_misses;
    /* pause.c; guarded by the table's lock, changed by who has `pausing` set, one thread at a time.
     * `changes` is odd while somebody pauses or resumes it, and another one afterwards. `unsure`:
     * its VMM is to be asked whether this and the row are so, as after a restart. */
    bool paused, unsure, pausing;
    unsigned changes;
    /* Likewise. Who owes is unsure. Until patience_ms its VMM may be at the snapshot of an earlier front,
     * and answers nobody. `cut`: its guest finds its connections gone when it goes on. */
    enum vmm_owed owed;
    int64_t patience_ms;
    bool cut;
    bool frozen;         /* for a snapshot: no command begins; guarded by the table\'s lock alone */
    bool saved;          /* its VMM was asked to write a snapshot before, or may have been */
    uint32_t generation; /* how many restores lie between a boot and it */
    /* Set when taking it away failed (say, the firewall's lock was held): the reaper tries again,
     * not before retry_ms, and the first verdict stands. Written by the thread that ends it. */
    bool doomed;
    int64_t retry_ms;
    struct vmm_verdict verdict;

    int gone;         /* epoll descriptor: readable when the VMM ended or `cancel` was raised */
    int cancel;       /* eventfd: a delete wants the spawn to stop */
    int pidfd;        /* -1 before launch */
    int console;      /* read end of the VMM's output, its guest's serial port included; -1 before
                          launch */
    int log;          /* what the VMM itself says: read end of Firecracker's log, or a connection
                          to QEMU's events; or -1 */
    bool says_events; /* `log` is the latter; guarded by tail_lock, like the next */
    bool console_ended, log_ended; /* nobody writes there any more */
    struct ring *tail;             /* newest bytes of both; guarded by tail_lock, like the next */
    struct ring *log_tail;
    struct waker *followers; /* of the console; likewise, as are the next two */
    char run[VMM_CONSOLE_RUN_SIZE];
    struct vmm_console_end end; /* state 0: it lives */
    pthread_mutex_t tail_lock;

    int vsock; /* O_PATH of Firecracker's vsock socket, or -1 */
    int hello; /* listener for the guest's hello (Firecracker), or -1 */
    int api;   /* O_PATH of the API socket or QMP */
    struct vmm_firecracker_api *firecracker; /* owned; between configure and start */
    int ports[WIRE_SERIAL_PORTS];            /* O_PATH of QEMU's ports, or -1 */
    uint32_t ports_busy;                     /* bit per port; guarded by the table's lock */
    uint8_t token[WIRE_TOKEN_SIZE];
    uint8_t snapshot_token[WIRE_TOKEN_SIZE]; /* its agent's, before it is restored */
    bool apart; /* priv_launched.apart: of what it is loaded from; booted: of what it will write */
};

/* ---- hypervisor: how the two VMMs differ for the front ---- */

struct vmm_hypervisor {
    const char *name;
    bool has_log;
    int seccomp_exit; /* what it exits with when its filter stopped a call; 0: the signal kills it */
    int (*exit_signal)(
        int code); /* the signal that an exit code stands for, or 0; NULL: none does */
    /* The last word on its end in the tail of what it said; cut into lines. */
    enum vmm_word (*word)(char *log, const char *instance);
    /* Opens the VMM's sockets and sets the machine up; nothing of the guest runs yet. */
    int (*configure)(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                     struct error *err);
    int (*start)(struct vmm_machine *machine, struct error *err);
    /* In the place of configure, for a VMM that was launched from a snapshot: resume starts it. */
    int (*load)(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                struct error *err);
    /* Then tells the guest's agent who it is now. */
    int (*restore)(struct vmm_machine *machine, const struct vsock_restore_request *request,
                   int64_t deadline_ms, struct vsock_restored *ret, struct error *err);
    /* Writes memory and devices of a paused guest where the root half has staged it. */
    int (*snapshot)(struct vmm *vmm, struct vmm_machine *machine, uint32_t memory_mib,
                    int timeout_ms, struct error *err);
    /* Waits for the agent's first words. */
    int (*hello)(struct vmm_machine *machine, int64_t deadline_ms, struct vsock_hello *ret,
                 struct error *err);
    /* Opens the sockets of a VMM that an earlier front started; waits for nobody. */
    int (*reopen)(struct vmm *vmm, struct vmm_machine *machine, struct error *err);
    /* Does the VMM itself answer, and as this instance? And does its guest run? */
    int (*alive)(struct vmm_machine *machine, int timeout_ms, bool *ret_paused, struct error *err);
    /* Stops the guest's processors; lets them go on. Success if they do already. After an error it
     * is not known whether they do. */
    int (*pause)(struct vmm_machine *machine, int timeout_ms, struct error *err);
    int (*resume)(struct vmm_machine *machine, int timeout_ms, struct error *err);
    /* A service connection; give it back with disconnect. */
    int (*connect)(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms,
                   struct vsock_conn **ret, unsigned *ret_port, struct error *err);
    void (*disconnect)(struct vmm *vmm, struct vmm_machine *machine, struct vsock_conn *conn,
                       unsigned port);
};
extern const struct vmm_hypervisor vmm_firecracker, vmm_qemu;

struct vmm {
    struct vmm_config config;
    const struct vmm_hypervisor *hypervisor;
    char boot[ID_BOOT_SIZE];
    /* VMM_PAUSE_TIMEOUT_MS and VMM_SNAPSHOT_TIMEOUT_MS, but for a test that cannot wait for them */
    int pause_timeout_ms, snapshot_timeout_ms;

    pthread_mutex_t lock;   /* guards all below and the machines' phase, refs, ports_busy */
    pthread_cond_t changed; /* a machine's phase, a port or the list changed */
    struct vmm_machine *machines;
    uint64_t last_serial;
    unsigned spawns; /* callers' that are under way: what the service does for itself waits */
    struct priv_host host;
    struct vmm_defaults defaults;
    bool draining, stopping, recovered; /* nobody is watched before `recovered` */
    int64_t evict_boot_ms;              /* when a drain ends what is left; 0: no drain */
    bool cordoned;                      /* as of a second ago at most */
    struct vmm_pools *pools;            /* owned; pool.h */
    struct vmm_templates *templates;    /* owned; template.h */

    int64_t aged_ms; /* when certificates were looked at; by recovery, then by the reaper */

    struct vmm_execs *execs; /* owned, with a lock of its own; execs.h */

    struct vmm_forgotten *forgotten; /* snapshots to remove from the disk, owned; see forget.c */

    int watch; /* epoll of the monitor: pidfds and consoles */
    int wake;  /* eventfd that ends the monitor */
    pthread_t monitor, reaper, watchers[VMM_WATCHERS];
    size_t watcher_count;
};

/* firecracker_api.c: Firecracker's HTTP API over its Unix socket. One connection, closed by free.
 */
struct vmm_firecracker_api *vmm_firecracker_api_new(int socket /* O_PATH, borrowed */,
                                                    struct error *err);
void vmm_firecracker_api_free(struct vmm_firecracker_api *api);
/* PUT with a JSON body (taken); ERR_HYPERVISOR with Firecracker's fault_message. */
int vmm_firecracker_api_put(struct vmm_firecracker_api *api, const char *path, cJSON *body,
                            struct error *err);
/* One request with a JSON body (taken; NULL: out of memory) on a connection of its own. */
int vmm_firecracker_api_ask(int socket /* O_PATH, borrowed */, const char *verb, const char *path,
                            cJSON *body, int timeout_ms, struct error *err);
/* GET / likewise: is there an answer in time, and is it the instance's? */
int vmm_firecracker_api_alive(int socket /* O_PATH, borrowed */, const char *instance,
                              int timeout_ms, bool *ret_paused, struct error *err);
/* ERR_HYPERVISOR from the body of an answer that refuses; returns -1. */
int vmm_firecracker_fault(const char *request, long status, const char *reply, size_t len,
                          struct error *err);

/* qmp.c: QEMU's monitor, a connection for each call. */
int vmm_qmp_command(int socket_fd /* O_PATH, borrowed */, const char *command, int timeout_ms,
                    struct error *err);
/* Does it answer, and does its guest run? */
int vmm_qmp_alive(int socket_fd /* O_PATH, borrowed */, int timeout_ms, bool *ret_paused,
                  struct error *err);
/* The same two on a connection (borrowed, non-blocking). */
int vmm_qmp_talk(int fd, const char *command, int timeout_ms, struct error *err);
int vmm_qmp_status(int fd, int timeout_ms, bool *ret_paused, struct error *err);
/* qmp_snapshot.c. Writes memory and devices of a guest that stands to `file` (borrowed); `apart`: the
 * devices alone, its memory is a file already. */
int vmm_qmp_save(int socket_fd /* O_PATH, borrowed */, int file, bool apart, int timeout_ms,
                 struct error *err);
/* Reads them where the root half has put them; the guest stands. ERR_CANCELLED when `gone` (or -1) is
 * readable. */
int vmm_qmp_load(int socket_fd /* O_PATH, borrowed */, int gone, bool apart, int timeout_ms,
                 struct error *err);
/* The guest goes on, and what an earlier front was at is given up. */
int vmm_qmp_resume(int socket_fd /* O_PATH, borrowed */, int timeout_ms, struct error *err);
/* A connection that only listens to QEMU's events from now on. */
int vmm_qmp_listen(int socket_fd /* O_PATH, borrowed */, struct error *err);
/* Boots a guest anew whose processors all stay halted for about a second; leaves another alone. */
int vmm_qmp_reset_if_halted(int socket_fd /* O_PATH, borrowed */, int64_t deadline_ms,
                            struct error *err);

/* machine.c. A new machine starts as VMM_SPAWNING, in the table, with one reference for the caller.
 */
struct vmm_machine *vmm_machine_new(struct vmm *vmm, const char *instance, struct error *err);
/* A reference, or NULL. */
struct vmm_machine *vmm_machine_find(struct vmm *vmm, const char *instance);
void vmm_machine_unref(struct vmm *vmm, struct vmm_machine *machine);
/* Takes the descriptors; from now on `gone` also tells the VMM's end, and the monitor drains the
 * console. */
int vmm_machine_attach(struct vmm *vmm, struct vmm_machine *machine, int pidfd, int console,
                       int log /* or -1 */, struct error *err);
/* Takes what QEMU's events come by: its place is that of a log. */
int vmm_machine_listen(struct vmm *vmm, struct vmm_machine *machine, int events, struct error *err);
/* Out of the monitor and the table; wakes who waits. The caller still holds its reference. */
void vmm_machine_remove(struct vmm *vmm, struct vmm_machine *machine);
/* From its row; `ask_ms`: when the watchdog asks it first (clock_mono_ms). */
void vmm_machine_up(struct vmm *vmm, struct vmm_machine *machine, const struct store_vm *row,
                    int64_t ask_ms);
struct vmm_kind vmm_kind_of(const struct store_vm *row);
/* Waits until a machine that a caller's row led to is up and the caller's, or is gone. */
void vmm_machine_settle(struct vmm *vmm, struct vmm_machine *machine);
/* Leaves a machine that could not be taken away to the reaper. */
void vmm_machine_doom(struct vmm *vmm, struct vmm_machine *machine,
                      const struct vmm_verdict *verdict);
/* True when the VMM has ended or a delete wants it. */
bool vmm_machine_gone(const struct vmm_machine *machine);
/* The same after `err`: a dying VMM's connections close a moment before its end is told, so errors
 * that look like that are given that moment. */
bool vmm_machine_gone_after(const struct vmm_machine *machine, const struct error *err);
bool vmm_machine_cancelled(const struct vmm_machine *machine);
bool vmm_machine_exited(const struct vmm_machine *machine);
/* Console tail, what is still in the pipes included; and that of the log alone. */
size_t vmm_machine_tail(struct vmm_machine *machine, char *out, size_t size);
size_t vmm_machine_log(struct vmm_machine *machine, char *out, size_t size);
void vmm_machine_drain(struct vmm_machine *machine);
/* Those of its pipes that nobody writes to any more are watched no longer. */
void vmm_machine_unwatch_ended(struct vmm *vmm, struct vmm_machine *machine);

/* end.c. The one way a VM that is up ends: kill through the root half, certificate, out of the
 * table. When another thread is already at it, waits for that. On failure the reaper goes on. */
int vmm_end(struct vmm *vmm, const char *instance, const struct vmm_verdict *verdict,
            struct error *err);
struct vmm_verdict vmm_verdict(enum store_state state, const char *reason, const char *message);
/* After KILL: finds the reason if the verdict has none, tells the audit how the VMM ended, and writes
 * the certificate. May be tried again with the same verdict. `machine` may be NULL. */
int vmm_certify(struct vmm *vmm, const char *instance, struct vmm_machine *machine,
                const struct priv_killed *killed, struct vmm_verdict *verdict, struct error *err);

/* cause.c: why it ended, by the best evidence there is. */
struct vmm_cause vmm_cause_find(const struct vmm_evidence *evidence);
/* console.c: whoever follows the console is told how the VM ended. */
void vmm_console_over(struct vmm_machine *machine, const struct vmm_verdict *verdict);
/* The last claim on the console, which is cut into lines. */
enum vmm_claim vmm_claim_read(char *console);

/* violation.c */
/* What a line of Firecracker's log says, behind "TIME [INSTANCE:THREAD] "; NULL: it is no such
 * line. */
const char *vmm_log_message(const char *line, const char *instance,
                            char thread[static VMM_THREAD_SIZE]);
/* `log` is cut into lines. */
bool vmm_violation_read(const struct priv_killed *killed, int seccomp_exit, char *log,
                        const char *instance, struct vmm_violation *ret);
void vmm_violation_describe(const struct vmm_violation *violation,
                            char out[static ERROR_MESSAGE_MAX]);

/* audit.c. What could not be written is counted by the observer. */
void vmm_audit_word(struct vmm *vmm, const char *instance, enum store_audit_kind kind,
                    const char *name, const char *word);
void vmm_audit_guards(struct vmm *vmm, const char *instance, enum store_audit_kind kind);
void vmm_audit_line(struct vmm *vmm, const char *instance, const struct priv_line *line);
/* How a VMM ended, all in one transaction: this one can fail, and is then to be tried again. */
int vmm_audit_end(struct vmm *vmm, const char *instance, struct vmm_verdict *verdict,
                  struct error *err);

/* isolation.c: the root half's check; what is wrong is told to the observer by line. */
int vmm_isolation_check(struct vmm *vmm, const char *instance, struct error *err);

/* use.c */
/* The machine (a reference) of a VM that runs or is paused, for a request of its owner's.
 * ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_SHUTTING_DOWN. */
int vmm_use_find(struct vmm *vmm, const char *owner, const char *id, const char *wish,
                 struct vmm_machine **ret, struct error *err);
/* A command begins and ends; while one runs a VM is not idle. */
void vmm_use_begin(struct vmm *vmm, struct vmm_machine *machine);
void vmm_use_end(struct vmm *vmm, struct vmm_machine *machine);

/* reaper.c. Ends VMs of which nothing but a row is left, and now and then lets old certificates go.
 * Once a VMM_SWEEP_MS, on the reaper's thread. */
void vmm_sweep(struct vmm *vmm);
/* Lets them go now. */
void vmm_age(struct vmm *vmm);

/* watchdog.c */
int vmm_watchdog_start(struct vmm *vmm, struct error *err);
void vmm_watchdog_stop(struct vmm *vmm); /* after `stopping` is set */
int64_t vmm_watchdog_period_ms(const struct vmm *vmm);
/* Its agent did not end a command in the time it had: it is unresponsive, and asked at once. */
void vmm_watchdog_suspect(struct vmm *vmm, struct vmm_machine *machine);

/* snapshot.c: what a crash left. Of a VM that is being adopted: it runs on, when its VMM is asked. */
void vmm_snapshot_recover_vm(struct vmm *vmm, struct vmm_machine *machine, bool running);
/* When all are adopted: no intent of others stays, and nothing published that has no row. */
int vmm_snapshot_recover(struct vmm *vmm, struct error *err);

/* forget.c: removes a published snapshot from the disk. On failure the reaper tries again. */
int vmm_forget(struct vmm *vmm, const char *snapshot, struct error *err);
/* The same for one whose row goes with it, once none of its forks is left. */
void vmm_forget_ephemeral(struct vmm *vmm, const char *snapshot);
void vmm_forget_again(struct vmm *vmm);
void vmm_forget_free(struct vmm *vmm);

/* Of a machine that is up and has no command; that it is somebody's is not asked. */
int vmm_snapshot_make(struct vmm *vmm, struct vmm_machine *machine,
                      const struct vmm_snapshot_wish *wish, struct store_snapshot *ret,
                      struct error *err);

/* restore.c: tells the agent of a VM that was restored who it is now. The agent then begins anew. */
int vmm_restore(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms,
                struct vsock_restored *ret, struct error *err);

/* pause.c */
/* Freezes the guest for a moment, for the caller alone, who has to thaw it: its row does not change,
 * commands wait, the watchdog leaves it alone. ERR_BUSY: commands run in it, or another thread is at
 * it. `ret_ran`: it was not paused already. */
int vmm_pause_freeze(struct vmm *vmm, struct vmm_machine *machine, bool *ret_ran,
                     struct error *err);
/* It goes on, if it ran. An error: its VMM does not let it; its row then says what is true. */
int vmm_pause_thaw(struct vmm *vmm, struct vmm_machine *machine, bool ran, struct error *err);
/* Of a machine that is new, or after a snapshot: its VMM is asked before anybody uses it. */
void vmm_pause_owe(struct vmm *vmm, struct vmm_machine *machine, enum vmm_owed owed);
/* Asks its VMM whether it is paused, and does what is owed, if that is to be done and can be. */
void vmm_pause_settle(struct vmm *vmm, struct vmm_machine *machine);
/* ERR_VM_PAUSED, and nothing else, if commands can not run in it. *ret_changes is for the next. */
int vmm_pause_refuse(struct vmm *vmm, struct vmm_machine *machine, unsigned *ret_changes,
                     struct error *err);
/* Was it paused, or did it go on, since it had `changes`, or is a snapshot of it still written? Then it may not have answered for that. */
bool vmm_pause_since(struct vmm *vmm, const struct vmm_machine *machine, unsigned changes);
/* Its VMM has just said that it is paused, or is not: where that is news, machine and row follow. */
void vmm_pause_follow(struct vmm *vmm, struct vmm_machine *machine, bool paused);

/* steps.c: a row (its owner stands) as the spec has it; and when its VM runs for a caller. */
void vmm_row_fill(struct vmm *vmm, const struct vmm_spec *spec, struct store_vm *row);
void vmm_row_live(struct store_vm *row);

/* monitor.c */
int vmm_monitor_start(struct vmm *vmm, struct error *err);
void vmm_monitor_stop(struct vmm *vmm);

#endif
