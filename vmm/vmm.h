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

enum { VMM_TTL_DEFAULT_S = 3600, VMM_TTL_MAX_S = 30 * 86400, VMM_MEMORY_MIN_MIB = 128 };

/* Decodes and checks the body of POST /vms against the host's limits and the catalogue. Errors name
 * the field; nothing has happened yet. */
int vmm_spec_new(const cJSON *body, const struct priv_host *host, int state_dir,
                 const char *default_image, struct vmm_spec **ret, struct error *err);
void vmm_spec_free(struct vmm_spec *spec);

/* ---- observer: what metrics count ------------------------------------------------------------ */

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
    struct vmm_defaults defaults; /* to begin with */
    struct vmm_observer observer;
};

/* Starts monitor and reaper. vmm_recover() before the first call of anything else. */
int vmm_open(const struct vmm_config *config, struct vmm **ret, struct error *err);
/* Adopts every VM whose row, root half's record and process agree and whose guards read back; undoes
 * everything else: rows without a process end as `lost`, half-done spawns as `failed`, instances
 * without a row are killed. Waits for no VMM and no guest: those that hang are the watchdog's.
 * Returns counts. */
struct vmm_recovered {
    unsigned adopted, undone, lost;
};
int vmm_recover(struct vmm *vmm, struct vmm_recovered *ret, struct error *err);
/* Refuses new spawns and execs from now on (ERR_SHUTTING_DOWN). VMs run on. */
void vmm_drain(struct vmm *vmm);
void vmm_free(struct vmm *vmm);

/* From the next spawn on. */
void vmm_defaults_set(struct vmm *vmm, const struct vmm_defaults *defaults);
void vmm_defaults(struct vmm *vmm, struct vmm_defaults *ret);

/* Latest from the root half (limits, guards, versions); cached, refreshed each second. */
void vmm_host(struct vmm *vmm, struct priv_host *ret);

/* Running VMs whose firewall chain has dropped packets: at most `max`; returns how many. Asks the
 * root half; a lost one knows of none. */
size_t vmm_drops(struct vmm *vmm, struct priv_drops *ret, size_t max);

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

/* A running or paused VM is still needed: it will live for ttl_s more (0: its own ttl_s), or longer
 * if it would anyway, and has not been idle. Returns the row. ERR_VM_UNKNOWN, ERR_VM_GONE,
 * ERR_VM_NOT_RUNNING. */
int vmm_keepalive(struct vmm *vmm, const char *owner, const char *id, int64_t ttl_s,
                  struct store_vm *ret, struct error *err);

/* Runs one command. ERR_VM_UNKNOWN, ERR_VM_GONE, ERR_VM_NOT_RUNNING, ERR_VM_PAUSED, ERR_EXEC_TIMEOUT
 * (result filled all the same: release it), ERR_GUEST_*, ERR_BUSY (no free serial port). A VM that is
 * paused under it keeps it, and its time goes on. */
int vmm_exec(struct vmm *vmm, const char *owner, const char *id,
             const struct vsock_exec_request *request, struct vsock_exec_result *ret,
             struct error *err);

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

#endif
