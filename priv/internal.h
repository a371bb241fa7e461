/*
 * priv's server side, between its own files and its tests.
 *
 *   server.c     open, free, purge          loop.c       receive, queue, workers, replies
 *   dispatch.c   what a valid request is    operations.c one function an operation
 *   instances.c  the table, uids            records.c    what survives a restart
 *   cgroup.c     both cgroup versions       proc.c       reading /proc
 *   cgroup_io.c  which disk is limited
 *   jail.c       the tmpfs and its mounts   jail_firecracker.c, jail_qemu.c  what lies in it
 *   launch.c     clone3, parent's side      child.c      child's side, async-signal-safe
 *   open.c kill.c                           the operations of these names
 *   news.c       that something is new in a jail
 *   check*.c     CHECK and REPORT: every guard read back (check_internal.h)
 *   snapshot*.c  snapshots made, kept, run from (snapshot_internal.h)
 *   firewall*.c  chains made ahead, repaired, counted (firewall_internal.h)
 *   range.c      is the uid range free?     tsc.c        the host's TSC, for QEMU
 */
#ifndef MOTTE_PRIV_INTERNAL_H
#define MOTTE_PRIV_INTERNAL_H

#include "image/image.h"
#include "netfilter/netfilter.h"
#include "priv/seccomp.h"
#include "priv/server.h"

#include <pthread.h>

enum {
    PRIV_WORKERS = 12,
    PRIV_RESERVING_MAX = 6, /* of these may wait for a chain, */
    PRIV_COPYING_MAX = 4,   /* and these for the disk: the others end VMs meanwhile */
    PRIV_QUEUE_MAX = 1024,
    PRIV_CGROUP_DIRS = 4,
    PRIV_PIDS_MAX = 64,
    PRIV_OVERHEAD_FIRECRACKER_MIB = 64,
    PRIV_OVERHEAD_QEMU_MIB = 256,
    PRIV_MEMORY_MIN_MIB = 128,
    PRIV_VCPUS_MAX = 32,
    PRIV_JAIL_MOUNTS = 8,
    PRIV_ARGS_MAX = 96,
    PRIV_PATH_MAX = 512,
    PRIV_OPEN_TIMEOUT_MS = 5000,
};

/* ---- proc ------------------------------------------------------------------------------------ */

/* Start time in clock ticks since boot: with the pid and the boot id it names one process. */
int priv_proc_start(pid_t pid, uint64_t *ret, struct error *err);
/* The same from the text of /proc/PID/stat; false if it has too few fields. */
bool priv_proc_stat_start(const char *stat, uint64_t *ret);
/* Inode of /proc/PID/ns/NAME; pid 0 means this process. */
int priv_proc_namespace(pid_t pid, const char *name, uint64_t *ret, struct error *err);
/* The value of "Key:" in a /proc status text: pointer behind the tabs into `text`, or NULL. */
const char *priv_proc_field(const char *status, const char *key);
/* Seccomp filters on this process: what every VMM inherits. */
int priv_proc_own_filters(unsigned *ret, struct error *err);
/* Do all four ids of `key` ("Uid", "Gid") equal `id`? */
bool priv_proc_ids_are(const char *status, const char *key, uint32_t id);

/* ---- records --------------------------------------------------------------------------------- */

/* A file run_dir/priv/<instance>: written before the first side effect, replaced at each step. */
struct priv_record {
    char magic[8];
    uint32_t size, state;
    char instance[ID_INSTANCE_SIZE];
    uint32_t uid, hypervisor, without;
    int32_t pid; /* 0 before launch */
    struct priv_shape shape;
    uint8_t token[PRIV_TOKEN_SIZE];
    uint8_t image[HASH_SIZE]; /* what it was launched from; zero before launch */
    uint64_t start_time, netns;
    char boot_id[40];
    /* Records of earlier versions end here: the VM runs on, without what follows. */
    char snapshot[ID_INSTANCE_SIZE];               /* restored from; empty: booted */
    uint32_t generation;                           /* how many restores lie between a boot and it */
    uint32_t places;                               /* 1: a snapshot of it can be staged */
    uint32_t apart;                                /* 1: that has its memory in a file of its own */
    uint32_t from_apart;                           /* 1: what it was restored from has */
    uint8_t vmlinux[HASH_SIZE], initrd[HASH_SIZE]; /* what it booted; initrd zero: none */
    uint8_t memory[HASH_SIZE]; /* restored: of the file that its memory came from */
};

int priv_record_write(int dirfd, struct priv_record *record, struct error *err);
int priv_record_read(int dirfd, const char *instance, struct priv_record *ret, struct error *err);
int priv_record_remove(int dirfd, const char *instance, struct error *err);
/* Removes what a kill in the middle of a write left. */
int priv_record_sweep(int dirfd, struct error *err);
/* Calls `each` for every name in a directory that is an instance id. */
typedef int priv_name_handler(void *context, const char *instance, struct error *err);
int priv_each_name(int dirfd, priv_name_handler *each, void *context, struct error *err);
/* For each record when the root half starts: it becomes a slot, alive or dead; adopt.c. */
priv_name_handler priv_adopt;

/* ---- cgroups --------------------------------------------------------------------------------- */

/* Directories of version 1, which may have no io; version 2 has all in [0]. */
enum { PRIV_CGROUP_MEMORY, PRIV_CGROUP_CPU, PRIV_CGROUP_PIDS, PRIV_CGROUP_IO };

/* What a VM may read, and what it may write, in a second; 0: without limit. */
struct priv_cgroup_io {
    char device[24]; /* MAJOR:MINOR of the state directory's disk; empty: none can be limited */
    uint64_t bytes, operations;
    const char *reason; /* why nothing is limited, or NULL */
};

struct priv_cgroups {
    int version;                 /* 1, 2; 0: without */
    size_t count;                /* directories in use: 1, 3 or, with io, 4 */
    int mount[PRIV_CGROUP_DIRS]; /* where the hierarchy is mounted */
    int root[PRIV_CGROUP_DIRS];  /* mount/NAME */
    char name[ID_NAME_MAX + 1];
    struct priv_cgroup_io io;
};

void priv_cgroups_init(struct priv_cgroups *cgroups);
int priv_cgroups_open(struct priv_cgroups *cgroups, const char *name, struct error *err);
void priv_cgroups_close(struct priv_cgroups *cgroups);
/* After open: limits io on the disk that holds the directory `state`, where that can be. */
int priv_cgroups_limit_io(struct priv_cgroups *cgroups, int state, uint32_t mib_s, uint32_t iops,
                          struct error *err);
/* Removes mount/NAME itself; it must be empty. */
int priv_cgroups_remove(struct priv_cgroups *cgroups, struct error *err);

/* Bits: which of the limits. */
enum priv_limit {
    PRIV_LIMIT_MEMORY = 1,
    PRIV_LIMIT_SWAP = 2,
    PRIV_LIMIT_CPU = 4,
    PRIV_LIMIT_PIDS = 8,
    PRIV_LIMIT_IO = 16,
    PRIV_LIMIT_ALL = 31,
};

/* Makes the instance's directories, writes every limit and reads it back. */
int priv_cgroup_make(const struct priv_cgroups *cgroups, const char *instance,
                     const struct priv_shape *shape, uint32_t overhead_mib, struct error *err);
/* Are these limits (bits) as made? Returns how many settings were read back: 0 where the kernel has
 * none of them (swap without accounting). */
int priv_cgroup_check(const struct priv_cgroups *cgroups, const char *instance,
                      const struct priv_shape *shape, uint32_t overhead_mib, unsigned which,
                      struct error *err);
/* The files by which a process enters the instance's cgroup by itself, one a hierarchy; the places
 * of others are left as they are. Caller closes, also after -1. */
int priv_cgroup_entries(const struct priv_cgroups *cgroups, const char *instance,
                        int ret[static PRIV_CGROUP_DIRS], struct error *err);
/* The calling process, which must have one thread, enters where `entries` is not -1. System calls
 * only; -1 with errno. Version 1's `tasks` moves the calling thread without the lock that stops
 * every fork on the host, for which a writer of a pid waits 8 to 20 ms (decision 0065). */
int priv_cgroup_enter(const int entries[static PRIV_CGROUP_DIRS]);
/* A VM of an earlier run gets this run's io limits: they are the operator's, not its shape's. */
int priv_cgroup_adopt(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                      struct error *err);
/* -1 with err->sys 0: it does not. */
int priv_cgroup_holds(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                      struct error *err);
/* Of hierarchy `at` (version 2: 0). Caller closes; -1 with errno. */
int priv_cgroup_directory(const struct priv_cgroups *cgroups, size_t at, const char *instance);
void priv_cgroup_usage(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                       struct priv_usage *ret);
uint64_t priv_cgroup_swap(const struct priv_cgroups *cgroups, const char *instance);
/* SIGKILL to all in it until it is empty, then removes it. Gone is success. */
int priv_cgroup_destroy(const struct priv_cgroups *cgroups, const char *instance,
                        struct error *err);

/* ---- instances ------------------------------------------------------------------------------- */

/* The snapshot that is being made of a VM. */
enum priv_phase { PRIV_PHASE_NONE, PRIV_PHASE_STAGED, PRIV_PHASE_CAPTURED };

struct priv_instance_slot {
    struct priv_record record; /* state and shape change under the server's lock only */
    int pidfd;                 /* -1 before launch, or when the process is not ours */
    int root;                  /* jail root, O_PATH */
    int console, log;          /* read ends; log: Firecracker's own, -1 with QEMU */
    enum priv_phase phase;     /* changes under the server's lock only */
    int staged[2];             /* the files a snapshot is written to, or -1 */
    int memory;                /* template: its memory, a file without a name; else -1 */
    bool child;                /* ours: it must be reaped, and it leaves a status */
    bool matches;              /* found at start and everything about it matches its record */
    bool hurried, was_running; /* KILL came before: while another request had it, or in vain */
    bool has_status;           /* a KILL that failed later on has reaped it */
    int32_t status;
    uint32_t oom_kills;
};

struct priv_bytes {
    uint8_t *data; /* owned; NULL: not available */
    size_t len;
};

/* What a snapshot's memory and devices are bound to. */
struct priv_identity {
    char vendor[16];
    uint32_t family, model, stepping;
    uint8_t flags[HASH_SIZE]; /* of the processor's flags as the kernel names them */
    char kernel[68];
};
int priv_identity_read(struct priv_identity *ret, struct error *err);

struct priv_news_fd {
    int fd; /* inotify */
    bool taken;
};

struct priv_server {
    struct priv_config config; /* strings borrowed */
    char run_dir[PRIV_PATH_MAX - 8], firecracker[PRIV_PATH_MAX], jailer[PRIV_PATH_MAX],
        qemu[PRIV_PATH_MAX]; /* real paths */
    int state, records, scratch;
    int staging, snapshots; /* state_dir/staging, state_dir/snapshots */
    struct priv_identity identity;
    char boot_id[ID_BOOT_SIZE];
    char vmm_version[32];
    uint8_t
        machine[HASH_SIZE]; /* of what QEMU is told to be, but for the shape; Firecracker: zero */
    uint32_t tsc_khz;       /* QEMU only */
    struct image_verified *verified;
    struct priv_bytes filters[PRIV_SECCOMP_PERMISSIVE + 1]; /* Firecracker's file per level */
    struct priv_bpf qemu_filters[PRIV_SECCOMP_PERMISSIVE + 1];
    struct priv_cgroups cgroups;
    int stop; /* eventfd: waits end */

    struct priv_firewall *firewall; /* NULL: without */

    pthread_mutex_t limits_lock; /* nothing else is locked meanwhile */
    struct priv_limits limits;

    struct priv_news_fd news[PRIV_WORKERS]; /* `taken` under the lock */

    pthread_mutex_t memories_lock; /* taken before `lock` */
    struct priv_memory *memories;  /* memory.c */

    pthread_mutex_t lock; /* the table below */
    struct priv_instance_slot **slots;
    size_t slot_count, slot_max;
    uint8_t *uids; /* one byte each: 1 = taken */
    uint32_t uid_next;
};

/* Formats for config.tell. */
void priv_tell(const struct priv_server *server, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

struct priv_limits priv_limits_now(struct priv_server *server);

/* All of these take and release the lock. A slot is used by one worker at a time (loop.c). */
struct priv_instance_slot *priv_slot_find(struct priv_server *server, const char *instance);
/* The instance and uid are `vm`'s, which is NULL without a firewall: then they are made here. */
struct priv_instance_slot *priv_slot_reserve(struct priv_server *server,
                                             const struct netfilter_vm *vm, struct error *err);
/* Takes the uid of a record found at start. */
struct priv_instance_slot *priv_slot_adopt(struct priv_server *server,
                                           const struct priv_record *record, struct error *err);
void priv_slot_state(struct priv_server *server, struct priv_instance_slot *slot,
                     enum priv_state state);
/* Admits the shape against the sum of all others, or ERR_CAPACITY. */
int priv_slot_admit(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_shape *shape, struct error *err);
/* Closes the slot's descriptors; the lock keeps priv_slot_hurry() away from them. */
void priv_slot_close(struct priv_server *server, struct priv_instance_slot *slot);
/* Frees the slot, and the uid: with a firewall once the chain is gone. */
void priv_slot_forget(struct priv_server *server, struct priv_instance_slot *slot);
/* The next free uid, round the range, so that one that was given back rests as long as can be. */
int priv_uid_take(struct priv_server *server, uint32_t *ret, struct error *err);
void priv_uid_give(struct priv_server *server, uint32_t uid);
/* KILL is on its way: end the VMM now, so that a request that waits for it ends too. */
void priv_slot_hurry(struct priv_server *server, const char *instance);
bool priv_pidfd_ended(int pidfd);
/* ERR_VMM_EXITED, with what the VMM last wrote. Returns -1. */
int priv_slot_exited(const struct priv_instance_slot *slot, struct error *err);

/* ---- news ------------------------------------------------------------------------------------ */

/* Readable when something was made in a directory since begin. The fd is borrowed. */
struct priv_news {
    struct priv_server *server;
    struct priv_news_fd *from; /* NULL: not begun */
    int fd, watch;
};

void priv_news_init(struct priv_server *server);
int priv_news_open(struct priv_server *server, struct error *err);
void priv_news_close(struct priv_server *server);
/* As many at once as there are workers. */
int priv_news_begin(struct priv_server *server, int directory, struct priv_news *ret,
                    struct error *err);
void priv_news_end(struct priv_news *news);

/* ---- firewall -------------------------------------------------------------------------------- */

/*
 * A commit costs what the table's size costs, not what is changed in it. So one thread makes chains
 * ahead, with instance id and uid, and removes retired ones, many in a commit, and it alone changes
 * the tables. A chain that is there is read back without any lock: only RESERVE ever waits, when no
 * chain is ready. A uid is free again when its chain is gone.
 */
struct priv_firewall;

/* Makes the roots. `server` is borrowed. */
int priv_firewall_open(struct priv_server *server, struct priv_firewall **ret, struct error *err);
void priv_firewall_free(struct priv_firewall *firewall); /* rules stay */
/* The chain of a record found at start. */
int priv_firewall_adopt(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err);
/* Makes the adopted chains right and removes those that have no record. */
int priv_firewall_settle(struct priv_firewall *firewall, struct error *err);
int priv_firewall_start(struct priv_firewall *firewall, struct error *err); /* the thread */
/* Whoever waits for a chain waits no longer. */
void priv_firewall_wake(struct priv_firewall *firewall);
/* When no worker is left: ends the thread and removes the chains of instances without a record. */
void priv_firewall_stop(struct priv_firewall *firewall);
/* Removes all rules of ours. Not while the thread runs. */
int priv_firewall_purge(struct priv_firewall *firewall, struct error *err);

/* A chain that stands, with id and uid. Waits; when none can be made the error says why, and while
 * rules are not as they were made it is ERR_FIREWALL_DRIFT. */
int priv_firewall_take(struct priv_firewall *firewall, struct netfilter_vm *ret, struct error *err);
/* Reads the chain back, and the way to it. Those who ask at the same time share a read. */
int priv_firewall_check(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err);
/* Its instance has a record now. Reads the chain back. */
int priv_firewall_guard(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err);
/* Its instance's record is about to go. */
void priv_firewall_unguard(struct priv_firewall *firewall, const char *instance);
/* Its instance is forgotten: it goes with the next commit, and then its uid is free. */
void priv_firewall_retire(struct priv_firewall *firewall, const char *instance);

/* To read from, on any thread. */
const struct netfilter *priv_firewall_tables(const struct priv_firewall *firewall);
void priv_firewall_host(struct priv_firewall *firewall, struct priv_host *ret);
void priv_firewall_drops(struct priv_firewall *firewall, uint32_t index, struct priv_drops *ret);

/* ---- jail and launch ------------------------------------------------------------------------- */

/* Made by the parent, given to the child. */
struct priv_jail {
    int base; /* detached tmpfs, to be mounted on run_dir/jail */
    int root; /* the jail's root in it */
    struct {
        int tree;        /* detached mount */
        char target[24]; /* beneath root */
    } mounts[PRIV_JAIL_MOUNTS];
    size_t mount_count;
    int hello; /* Firecracker: the bound, listening socket */
};

/* Both soft and hard, set by the child and read back by CHECK. */
enum priv_rlimit {
    PRIV_RLIMIT_CORE,
    PRIV_RLIMIT_FSIZE,
    PRIV_RLIMIT_NOFILE,
    PRIV_RLIMIT_MEMLOCK,
    PRIV_RLIMITS
};
void priv_rlimits(const struct priv_server *server, const struct priv_shape *shape,
                  uint64_t ret[static PRIV_RLIMITS]);

/* Everything the child needs, so that it does nothing but system calls. */
struct priv_child {
    struct priv_jail jail;
    char base_path[PRIV_PATH_MAX]; /* run_dir/jail */
    char program[PRIV_PATH_MAX];
    char *argv[PRIV_ARGS_MAX]; /* owned strings, NULL-terminated */
    size_t argc;
    uint32_t uid;
    uint64_t rlimits[PRIV_RLIMITS];
    bool drop; /* QEMU: our own pivot_root, ids and filter; else the jailer does it */
    const struct priv_bpf *filter;      /* borrowed; NULL: none */
    const struct priv_restore *restore; /* borrowed; NULL: it boots */
    int null, output, sync;
    int entries[PRIV_CGROUP_DIRS]; /* of its cgroup, version 1; -1: none */
    int memory;                    /* QEMU: the file that is its memory, or -1 */
};

void priv_child_init(struct priv_child *child);
void priv_child_release(struct priv_child *child);
__attribute__((format(printf, 2, 3))) int priv_child_arg(struct priv_child *child, const char *fmt,
                                                         ...);
/* Which step of the child failed; told to the parent as {stage, errno}. */
struct priv_child_report {
    int32_t stage, sys;
};
const char *priv_child_stage(int32_t stage);
enum error_code priv_child_error(int32_t stage);
__attribute__((noreturn)) void priv_child_run(const struct priv_child *child);

void priv_jail_init(struct priv_jail *jail);
void priv_jail_release(struct priv_jail *jail);
int priv_jail_tmpfs(struct priv_jail *jail, const char *path /* of root in it; NULL: its top */,
                    struct error *err);
/* A detached copy of the mount at fd, with flags (MOUNT_ATTR_*), for root/target. */
int priv_jail_bind(struct priv_jail *jail, int fd, const char *target, uint64_t flags,
                   struct error *err);
/* Kernel, initrd and disk of the image, read-only, and the scratch disk: empty, or a copy of the
 * snapshot's. */
int priv_jail_images(struct priv_server *server, const struct priv_instance_slot *slot,
                     const uint8_t image[static HASH_SIZE], struct priv_child *child,
                     struct image_kernel *ret_kernel, struct error *err);
int priv_prepare_firecracker(struct priv_server *server, struct priv_instance_slot *slot,
                             const uint8_t image[static HASH_SIZE], struct priv_child *child,
                             struct error *err);
int priv_prepare_qemu(struct priv_server *server, struct priv_instance_slot *slot,
                      const uint8_t image[static HASH_SIZE], struct priv_child *child,
                      struct error *err);
/* Its command line, as a digest: what a snapshot's devices fit. */
int priv_qemu_machine(const struct priv_server *server, uint8_t ret[static HASH_SIZE],
                      struct error *err);
/* What a snapshot of it will say, and that one can be made. */
void priv_note_kernel(struct priv_server *server, struct priv_instance_slot *slot,
                      const struct image_kernel *kernel);
#define PRIV_LOG "log" /* Firecracker's log: a FIFO in its root */
/* Opens both ends of a pipe or FIFO: the slot's for reading, the child's output. */
int priv_console_open(int pipe_fd, struct priv_instance_slot *slot, struct priv_child *child,
                      struct error *err);
uint32_t priv_overhead_mib(const struct priv_server *server);

/* ---- snapshots ------------------------------------------------------------------------------- */

/* Takes back whatever STAGE and CAPTURE left outside the VMM; what is in it goes with it. */
int priv_staged_drop(struct priv_server *server, struct priv_instance_slot *slot /* or NULL */,
                     struct error *err);
/* When the root half starts: a VM that runs on loses what an earlier run had staged, */
void priv_staged_adopt(struct priv_server *server, struct priv_instance_slot *slot);
/* and all else that was not finished goes. */
int priv_snapshots_sweep(struct priv_server *server, struct error *err);

/* ---- operations ------------------------------------------------------------------------------ */

struct priv_answer {
    struct priv_reply reply;
    int fds[PRIV_FDS_MAX]; /* owned; closed after they are sent */
    size_t fd_count;
};

/* NULL when the request may be queued, else why it is refused. */
const char *priv_request_refusal(const struct priv_request *request);
/* "launch". Of a request that was not refused. */
const char *priv_operation_name(uint32_t op);
/* Runs a queued request and fills the answer, error included. */
void priv_dispatch(struct priv_server *server, const struct priv_request *request,
                   struct priv_answer *answer);

typedef int priv_operation(struct priv_server *server, struct priv_instance_slot *slot,
                           const struct priv_request *request, struct priv_answer *answer,
                           struct error *err);
priv_operation priv_op_host, priv_op_reserve, priv_op_guard, priv_op_launch, priv_op_open,
    priv_op_check, priv_op_report, priv_op_usage, priv_op_list, priv_op_drops, priv_op_stage,
    priv_op_capture, priv_op_publish, priv_op_unstage, priv_op_snapshots, priv_op_forget_snapshot;

/* Ends and removes all that belongs to the instance, known or not. Keeps slot and uid. */
int priv_undo(struct priv_server *server, struct priv_instance_slot *slot, const char *instance,
              struct priv_reply *ret, struct error *err);
int priv_op_kill(struct priv_server *server, struct priv_instance_slot *slot /* or NULL */,
                 const struct priv_request *request, struct priv_answer *answer, struct error *err);

int priv_range_check(uint32_t base, uint32_t count, struct error *err);
uint32_t priv_tsc_khz(void);
/* First line of `program --version`, its version number only. */
int priv_program_version(const char *program, char *out, size_t size, struct error *err);

#endif
