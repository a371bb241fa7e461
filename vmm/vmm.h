/*
 * vmm: the life of a VM as the front sees it. A checked spec, the spawn saga, exec, delete,
 * recovery after a restart, and the threads that watch (monitor: pidfds and consoles; reaper: VMs
 * whose time is up; watchdog: VMMs and agents that do not answer). All privileged work is asked of the root half (priv/client.h), all
 * lasting state is in the store.
 *
 * Thread-safe. Calls block (spawn: until the guest said hello; exec: until the command ended): call
 * them from worker threads, never from one that accepts connections.
 */
#ifndef MOTTE_VMM_H
#define MOTTE_VMM_H

#include "image/image.h"
#include "priv/client.h"
#include "store/store.h"
#include "vsock/vsock.h"

/* ---- spec: one function makes it, spawn takes nothing else (R07) ---------------------------- */

struct vmm_spec; /* opaque: exists only checked */

enum { VMM_IMAGE_SNAPSHOTS_MAX = 256 };
enum {
    VMM_TTL_DEFAULT_S = 3600,
    VMM_TTL_MAX_S = 30 * 86400,
    VMM_MEMORY_MIN_MIB = 128,
    VMM_MEMORY_DEFAULT_MIB = 256
};

/* Decodes and checks the body of POST /vms against the host's limits and the catalogue. Errors name
 * the field; nothing has happened yet. */
int vmm_spec_new(const cJSON *body, const struct priv_host *host, int state_dir,
                 const char *default_image, struct vmm_spec **ret, struct error *err);
/* The same for one that is restored: what it is made of is the snapshot's, and not to be asked for. */
int vmm_spec_new_restored(const cJSON *body, const struct store_snapshot *snapshot, int state_dir,
                          struct vmm_spec **ret, struct error *err);
void vmm_spec_free(struct vmm_spec *spec);
/* What is kept when a VM of it runs; copied. NULL: nothing, as before. */
void vmm_spec_keep(struct vmm_spec *spec, const struct store_keep *keep);
/* Labels (NULL: none) as one JSON object, keys sorted, so that equal labels are equal text. */
enum { VMM_LABELS_MAX = 32 };
int vmm_labels(const cJSON *labels, char out[static STORE_LABELS_MAX], struct error *err);

/* ---- warm pool: VMs that wait, booted and checked, for somebody to ask for one -------------- */

enum { VMM_POOLS_MAX = PRIV_POOLS_MAX, VMM_POOL_SIZE_MAX = 256 };

/* What it is of, and how many wait: `min` and as many as were asked for in the last minute, up to
 * `max`. */
struct vmm_pool_target {
    char image[ID_NAME_MAX + 1];
    uint32_t vcpus, memory_mib, disk_mib;
    char seccomp[16];
    uint32_t min, max;
};

struct vmm_pool_targets {
    struct vmm_pool_target of[VMM_POOLS_MAX];
    size_t count;
};

/* Adds what a text such as "python,vcpus=1,memory-mib=256,disk-mib=0,seccomp=minimal,min=2,max=8" says;
 * what is left out is as in a spec, max as min. ERR_CONFIG says what is wrong with it. Whether there
 * is such an image is seen when it is used. */
int vmm_pool_add(struct vmm_pool_targets *targets, const char *text, struct error *err);

struct vmm_pool_state {
    struct vmm_pool_target target;
    uint32_t waiting, wanted;
    uint64_t hits, misses, refills, failures;
    uint64_t drained; /* ended, so that a caller's VM had room */
};

/* ---- observer: what metrics count ------------------------------------------------------------ */

enum vmm_image_event {
    VMM_IMAGE_RESTORED, /* a spawn started from one: */
    VMM_IMAGE_MISSING,  /* booted, as there was none, */
    VMM_IMAGE_REFUSED,  /* as it was not of this host any more or damaged, */
    VMM_IMAGE_FAILED,   /* failed, as its guest did not come up */
    VMM_IMAGE_BUILT,
    VMM_IMAGE_NOT_BUILT,
    VMM_IMAGE_PUT_OFF, /* not built now: no room, or a caller needed it */
    VMM_IMAGE_EVENTS,
};

/* Called from any thread, must not block. Step names: "admit", "guard", "launch", "configure",
 * "start", "hello", "commit". */
struct vmm_observer {
    void *context;
    void (*step)(void *context, const char *step, const struct error *failed /* or NULL */,
                 int64_t us);
    void (*spawn)(void *context, const char *failed_step /* NULL: running */,
                  const struct error *failed, int64_t us);
    void (*exec)(void *context, const struct error *failed /* or NULL */, int64_t us);
    void (*ended)(void *context, const char *reason);
    /* A VMM or a guest's agent does not answer: "vmm" or "agent". */
    void (*unresponsive)(void *context, const char *what);
    /* A guard that a spawn's check or a report found not as it must be; the name of its line. */
    void (*isolation)(void *context, const char *line);
    /* A VMM made a system call that its filter blocks: its number on x86_64; -1 when it is not
     * known. */
    void (*violation)(void *context, int number);
    /* No VM could be made for a pool; the next try is in so long. */
    void (*refill)(void *context, const struct vmm_pool_target *of, const struct error *failed,
                   int64_t next_ms);
    /* Snapshots of images; `why` where something failed, else NULL. */
    void (*image_snapshot)(void *context, enum vmm_image_event event, const struct error *why);
    /* An entry of a VM's audit could not be written. */
    void (*audit_lost)(void *context);
};

/* "socket" for 41; false and "" for what is no system call of x86_64. */
enum { VMM_SYSCALL_NAME_SIZE = 40 };
bool vmm_syscall_name(int number, char out[static VMM_SYSCALL_NAME_SIZE]);

/* ---- engine ---------------------------------------------------------------------------------- */

struct vmm;

/* What may change while it runs: from the next spawn on. */
struct vmm_defaults {
    char image[ID_NAME_MAX + 1]; /* of a spec without one */
    int boot_timeout_ms;         /* from start to hello */
};

struct vmm_config {
    struct priv_client *priv; /* borrowed, like all here */
    struct store *store;
    int state_dir; /* catalogue */
    /* A VMM or agent that does not answer within it three times in a row hangs. Each VM is asked
     * every five of it. */
    int answer_timeout_ms;
    /* How many snapshots of images just booted there may be, for VMs to start from; 0: all VMs boot. */
    uint32_t image_snapshots;
    struct vmm_defaults defaults;  /* to begin with, */
    struct vmm_pool_targets pools; /* likewise */
    struct vmm_observer observer;
};

/* Starts monitor, reaper and pool. vmm_recover() before the first call of anything else. */
int vmm_open(const struct vmm_config *config, struct vmm **ret, struct error *err);
/* Adopts every VM whose row, root half's record and process agree and whose guards read back; undoes
 * everything else: rows without a process end as `lost`, half-done spawns as `failed`, instances
 * without a row are killed. Waits for no VMM and no guest: those that hang are the watchdog's.
 * Returns counts. */
struct vmm_recovered {
    unsigned adopted, undone, lost;
};
int vmm_recover(struct vmm *vmm, struct vmm_recovered *ret, struct error *err);
/* Refuses new spawns and execs from now on (ERR_SHUTTING_DOWN), and whoever waits for a VM waits no
 * more. VMs run on. */
void vmm_drain(struct vmm *vmm);
void vmm_free(struct vmm *vmm);

/* From the next spawn on. */
void vmm_defaults_set(struct vmm *vmm, const struct vmm_defaults *defaults);
void vmm_defaults(struct vmm *vmm, struct vmm_defaults *ret);

/* VMs that wait and are not of these any more are ended. */
void vmm_pools_set(struct vmm *vmm, const struct vmm_pool_targets *targets);
/* Returns how many there are. */
size_t vmm_pool_states(struct vmm *vmm, struct vmm_pool_state ret[static VMM_POOLS_MAX]);

/* Latest from the root half (limits, guards, versions); cached, refreshed each second. */
void vmm_host(struct vmm *vmm, struct priv_host *ret);

/* Running VMs whose firewall chain has dropped packets: at most `max`; returns how many. Asks the
 * root half; a lost one knows of none. */
size_t vmm_drops(struct vmm *vmm, struct priv_drops *ret, size_t max);

/* Before a spawn: is there one that waits and fits? Then it is the caller's, in *ret, at once: nothing
 * about it changes but its row. *ret_found false: none is left, or the spec wants none. Errors are a
 * spawn's. */
int vmm_claim(struct vmm *vmm, const struct vmm_spec *spec, const char *owner, struct store_vm *ret,
              bool *ret_found, struct error *err);

/* The saga. On success *ret is the running row. On failure all undone, the row ended as `failed`
 * with reason spawn_<step>. Takes spec in any case. `owner` is the caller's name. */
int vmm_spawn(struct vmm *vmm, struct vmm_spec *spec, const char *owner, struct store_vm *ret,
              struct error *err);
/* First half of an asynchronous spawn (Prefer: respond-async): admits and writes the row; then
 * vmm_spawn_finish() on a worker does the rest (same undo). */
struct vmm_spawning;
int vmm_spawn_begin(struct vmm *vmm, struct vmm_spec *spec, const char *owner,
                    struct vmm_spawning **ret, struct store_vm *ret_row, struct error *err);
int vmm_spawn_finish(struct vmm_spawning *spawning /* taken */, struct store_vm *ret,
                     struct error *err);

/* owner NULL: any. Works in every state; while creating, the spawn is cancelled and undone first.
 * Returns when nothing is left. ERR_VM_UNKNOWN, ERR_VM_GONE; after any other error the VM stays
 * `deleting` and is tried again until it is gone. */
int vmm_delete(struct vmm *vmm, const char *owner, const char *id, struct error *err);

/* Freezes a running VM: its guest runs no instruction until it is resumed. Also one that is paused,
 * or runs, already. Its life goes on to end at its time; it does not become idle meanwhile. Returns
 * the row. On failure the VM is as it was, or as its row says; a VMM that hangs is the watchdog's.
 * ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_BUSY (another thread is just at it),
 * ERR_HYPERVISOR, ERR_HYPERVISOR_TIMEOUT. */
int vmm_pause(struct vmm *vmm, const char *owner, const char *id, struct store_vm *ret,
              struct error *err);
int vmm_resume(struct vmm *vmm, const char *owner, const char *id, struct store_vm *ret,
               struct error *err);

struct vmm_snapshot_wish {
    const char *labels; /* JSON object of strings, as a spec's */
    enum store_snapshot_kind kind;
    const struct store_keep *keep; /* kept with it; NULL: nothing */
};
/* Keeps memory, devices and disk of a running or paused VM. It stands still for a moment meanwhile and
 * goes on as it was, also when this fails. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING,
 * ERR_SNAPSHOT_BUSY, ERR_BUSY (commands run in it), ERR_DISK_FULL, ERR_CAPACITY,
 * ERR_HYPERVISOR, ERR_HYPERVISOR_TIMEOUT. */
int vmm_snapshot(struct vmm *vmm, const char *owner, const char *id,
                 const struct vmm_snapshot_wish *wish, struct store_snapshot *ret,
                 struct error *err);
/* The forks of an ephemeral one are all there: with its end they are VMs like others, and its `keep` is
 * kept. On error it is there still. */
int vmm_fork_commit(struct vmm *vmm, const struct store_snapshot *snapshot, struct error *err);
/* None of them is to be left, nor the snapshot: what cannot be had now is tried again until it is. */
void vmm_fork_undo(struct vmm *vmm, const struct store_snapshot *snapshot,
                   const struct store_vm *forks, uint32_t made);
/* ERR_SNAPSHOT_UNKNOWN, ERR_SNAPSHOT_IN_USE. After any other error from the root half nobody can use
 * it any more, and it goes from the disk as soon as it can. */
int vmm_snapshot_delete(struct vmm *vmm, const char *owner, const char *id, struct error *err);

/* A running or paused VM is still needed: it will live for ttl_s more (0: its own ttl_s), or longer
 * if it would anyway, and has not been idle. Returns the row. ERR_VM_UNKNOWN, ERR_VM_GONE,
 * ERR_VM_NOT_RUNNING. */
int vmm_keepalive(struct vmm *vmm, const char *owner, const char *id, int64_t ttl_s,
                  struct store_vm *ret, struct error *err);

/* Changes a running or paused VM's labels and life, as store_vm_patch() says. Returns the row.
 * ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING. */
int vmm_patch(struct vmm *vmm, const char *owner, const char *id, const struct store_patch *patch,
              struct store_vm *ret, struct error *err);

/* What a running or paused VM takes of the host now. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING. */
int vmm_usage(struct vmm *vmm, const char *owner, const char *id, struct priv_usage *ret,
              struct error *err);

/* Runs one command. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_VM_PAUSED, ERR_EXEC_TIMEOUT
 * (result filled all the same: release it), ERR_GUEST_*, ERR_BUSY (no free serial port), ERR_QUOTA. A VM that is
 * paused under it keeps it, and its time goes on. */
int vmm_exec(struct vmm *vmm, const char *owner, const char *id,
             const struct vsock_exec_request *request, struct vsock_exec_result *ret,
             struct error *err);

/* ---- execs: commands that are begun, watched, fed and ended in calls of their own --------------
 *
 * Each has a thread that holds its connection to the guest. Nothing of them is on the disk: they end
 * with this program, and an id from before it is told from one that never was (ERR_EXEC_LOST). What
 * they write is kept in memory, the newest of it: VMM_EXEC_LOG_MAX each, VMM_EXEC_LOGS_MAX together.
 * Then the owner who has most of it loses some, first of those of his that have ended. Ended ones are
 * kept until others need their place, and of the host's first those of whoever has most. */

enum {
    VMM_EXECS_MAX = 1024,            /* kept at once, ended ones included, */
    VMM_EXECS_PER_VM = 64,           /* and of one VM */
    VMM_EXECS_RUNNING_MAX = 512,     /* run at once; each owner has a share (base.h) */
    VMM_EXEC_LOG_MAX = 1 << 20,      /* bytes of memory */
    VMM_EXEC_LOGS_MAX = 64 << 20,    /* likewise */
    VMM_EXEC_INPUT_MAX = 256 * 1024, /* bytes that the command has not read */
    VMM_EXEC_REASON_MAX = 24,
};

/* How many commands of an owner run now, those of vmm_exec() too: what his quota is about. */
uint32_t vmm_exec_running(struct vmm *vmm, const char *owner);

enum vmm_exec_state {
    VMM_EXEC_RUNNING,
    VMM_EXEC_EXITED, /* by the guest's word */
    VMM_EXEC_LOST,   /* it has ended or will, nobody knows how: `reason` */
};

struct vmm_exec_record {
    char id[ID_INSTANCE_SIZE], instance[ID_INSTANCE_SIZE];
    char vm[ID_VM_MAX + 1];
    enum vmm_exec_state state;
    struct vsock_exit exit; /* of VMM_EXEC_EXITED */
    bool killed;            /* vmm_exec_kill() was asked for while it ran */
    bool pty;
    /* Of VMM_EXEC_LOST: "vm_ended", "guest_unresponsive", "guest_protocol", "connection_lost",
     * "service_stopped", "killed" (the guest did not say so in time), "paused" (its time went by while
     * the VM was), "failed". */
    char reason[VMM_EXEC_REASON_MAX];
    char message[ERROR_MESSAGE_MAX];
    int64_t started_wall_ms, ended_wall_ms, ended_boot_ms, duration_ms; /* 0 while it runs */
    uint64_t output_from, output_to; /* places of what is kept, in all that it wrote */
    uint64_t input_bytes;            /* taken for it so far */
    bool input_open;                 /* more may come */
};

/* Whose it is to be: strings are borrowed. owner NULL: anybody's. */
struct vmm_exec_key {
    const char *owner, *vm, *id;
};

struct vmm_exec_wish {
    struct vsock_exec_request request; /* all but its input and output_max */
    const char *input;                 /* to begin with; NULL: none */
    size_t input_len;                  /* ≤ VMM_EXEC_INPUT_MAX */
    bool input_open;                   /* more may come */
};
/* Returns when the guest has begun. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_VM_PAUSED,
 * ERR_BUSY, ERR_QUOTA, ERR_GUEST_*: there is none then. */
int vmm_exec_start(struct vmm *vmm, const char *owner, const char *vm,
                   const struct vmm_exec_wish *wish, struct vmm_exec_record *ret,
                   struct error *err);

/* All that take a key: ERR_EXEC_UNKNOWN, ERR_EXEC_LOST. */
int vmm_exec_get(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec_record *ret,
                 struct error *err);
/* Those of one VM, newest first; returns how many. */
size_t vmm_exec_list(struct vmm *vmm, const char *instance,
                     struct vmm_exec_record ret[static VMM_EXECS_PER_VM]);
/* Blocks until it has ended; it runs on meanwhile when the service stops. */
int vmm_exec_wait(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec_record *ret,
                  struct error *err);
/* Ends it with all it started. Returns when it has ended (within 5 s, whatever the guest does), or had
 * already. */
int vmm_exec_kill(struct vmm *vmm, const struct vmm_exec_key *key, struct error *err);
/* Gives it `len` bytes that begin at `offset` of all its input, and with `eof` the end. What it has
 * already is not taken again, so that the same call may be repeated at any time. ERR_EXEC_INPUT: bytes
 * before are missing, or after the end; ERR_EXEC_ENDED; ERR_BUSY: it reads too slowly. */
int vmm_exec_feed(struct vmm *vmm, const struct vmm_exec_key *key, uint64_t offset,
                  const char *data, size_t len, bool eof, struct vmm_exec_record *ret,
                  struct error *err);
/* ERR_EXEC_ENDED, ERR_EXEC_NO_TERMINAL. */
int vmm_exec_resize(struct vmm *vmm, const struct vmm_exec_key *key, struct vsock_size size,
                    struct error *err);

/* What it writes, from any place on, for a reader that must not block. */
struct vmm_exec;
enum vmm_exec_news {
    VMM_EXEC_NOTHING, /* yet: the waker was added */
    VMM_EXEC_STDOUT,
    VMM_EXEC_STDERR,
    VMM_EXEC_GAP, /* what was there is not kept any more: *at has moved on */
    VMM_EXEC_END, /* and that is all: *ret_record says how it ended */
};
/* A reference that vmm_exec_unlisten() gives back. */
int vmm_exec_listen(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec **ret,
                    struct error *err);
/* Copies at most `size` bytes from the place *at on, which moves. */
enum vmm_exec_news vmm_exec_read(struct vmm_exec *exec, uint64_t *at, char *out, size_t size,
                                 size_t *ret_len, struct vmm_exec_record *ret_record,
                                 struct waker *waker);
void vmm_exec_unlisten(struct vmm_exec *exec, struct waker *waker);

/* ---- files: uses of the machine, like commands ------------------------------------------------ */

/* Errors of all of them: ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_VM_PAUSED (also a VM that
 * was paused under it for too long), ERR_FILE_UNKNOWN, ERR_ARCHIVE, ERR_GUEST_*, ERR_BUSY (no free serial port), and
 * those of source or sink, which end it. */

/* All of it, or nothing under its name. */
int vmm_file_put(struct vmm *vmm, const char *owner, const char *id,
                 const struct vsock_file_put *what, const struct vsock_source *source,
                 struct error *err);
/* A file, or a directory that is empty, or with all that is in it. */
int vmm_file_remove(struct vmm *vmm, const char *owner, const char *id, const char *path,
                    bool recursive, struct error *err);
/* As vsock_file_list(). */
struct vmm_file_page {
    const char *path, *after;
    uint32_t limit;
};
int vmm_file_list(struct vmm *vmm, const char *owner, const char *id,
                  const struct vmm_file_page *page, const struct vsock_lister *lister,
                  char ret_next[static VSOCK_NAME_HEX_SIZE], struct error *err);

/* As vsock_archive_put(). */
int vmm_archive_put(struct vmm *vmm, const char *owner, const char *id, const char *path,
                    bool parents, const struct vsock_source *source, struct vsock_unpacked *ret,
                    struct error *err);

/* Uses its VM until it is read, which ends it in any case, or closed. `ret_info` NULL: a directory, as an
 * archive of unknown length, of which no part can be read. */
struct vmm_file;
int vmm_file_open(struct vmm *vmm, const char *owner, const char *id, const char *path,
                  struct vsock_file_info *ret_info, struct vmm_file **ret, struct error *err);
int vmm_file_read(struct vmm_file *file /* taken */, int64_t offset, int64_t length,
                  const struct vsock_sink *sink, struct error *err);
void vmm_file_close(struct vmm_file *file); /* NULL is allowed */

/* ---- isolation: every guard of a running VM, read back from the kernel now ------------------- */

struct vmm_isolation {
    char instance[ID_INSTANCE_SIZE];
    int64_t wall_ms; /* when reading began */
    bool ok;         /* no line is wrong or absent */
    size_t count;
    struct priv_line lines[PRIV_LINES_MAX];
};
/* Running or paused. The lines that the check of its spawn went through. A guard that is not right
 * is no error: `ok` says so. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING. */
int vmm_isolation(struct vmm *vmm, const char *owner, const char *id, struct vmm_isolation *ret,
                  struct error *err);

/* ---- console: what guest and VMM wrote last -------------------------------------------------- */

enum { VMM_CONSOLE_TAIL = 8192 }; /* bytes kept per VM, and the NUL behind them */

struct vmm_console {
    char instance[ID_INSTANCE_SIZE];
    char text[VMM_CONSOLE_TAIL]; /* any bytes, the word of untrusted code; NUL comes as `?` */
    size_t len;
};
/* Running or paused; of one that has ended the certificate tells. Waits for nothing.
 * ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING. */
int vmm_console(struct vmm *vmm, const char *owner, const char *id, struct vmm_console *ret,
                struct error *err);

/* The same as it is written, from any place on, for a reader that must not block. Places count the
 * bytes that this program has seen of the machine: of another program, or another machine under the
 * same id, they say nothing; hence `run`. */
enum {
    VMM_CONSOLE_FOLLOWED = 64 * 1024, /* bytes kept of a VM whose console was ever followed */
    VMM_CONSOLE_RUN_SIZE = 9,         /* with NUL; [a-z2-7] */
};
struct vmm_console_end {
    enum store_state state;
    char reason[STORE_REASON_MAX], message[ERROR_MESSAGE_MAX];
};
enum vmm_console_news {
    VMM_CONSOLE_NOTHING, /* yet: the waker was added */
    VMM_CONSOLE_BYTES,
    VMM_CONSOLE_GAP, /* what was there is not kept any more: *at has moved on */
    VMM_CONSOLE_END, /* the VM has ended, and that is all: *ret_end says how */
};
struct vmm_follower;
struct vmm_followed {
    char instance[ID_INSTANCE_SIZE], run[VMM_CONSOLE_RUN_SIZE];
    uint64_t to; /* the place of the next byte */
};
/* Given back with vmm_console_unfollow(). Errors are vmm_console()'s. */
int vmm_console_follow(struct vmm *vmm, const char *owner, const char *id,
                       struct vmm_follower **ret, struct vmm_followed *ret_info, struct error *err);
/* Copies at most `size` bytes from the place *at on, which moves. */
enum vmm_console_news vmm_console_read(struct vmm_follower *follower, uint64_t *at, char *out,
                                       size_t size, size_t *ret_len,
                                       struct vmm_console_end *ret_end, struct waker *waker);
void vmm_console_unfollow(struct vmm_follower *follower, struct waker *waker);

#endif
