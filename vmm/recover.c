/* After a restart: what agrees is kept, everything else is undone. Runs before anything is served.
 */
#include "vmm/pool.h"
#include "vmm/template.h"

#include <errno.h>
#include <stdatomic.h>
#include <time.h>

enum { WORKERS = 16 };

struct recovery {
    struct vmm *vmm;
    struct store_vm *rows; /* owned */
    size_t row_count;
    struct priv_instance *instances; /* owned */
    size_t instance_count;
    atomic_size_t next; /* index into rows, then instances */
    atomic_uint adopted, undone, lost, failed;
    pthread_mutex_t lock; /* guards the next */
    struct error unknown; /* of a VM that may be well, but could not be looked at */
};

static const struct priv_instance *find_instance(const struct recovery *r, const char *id)
{
    for (size_t i = 0; i < r->instance_count; i++)
        if (strcmp(r->instances[i].instance, id) == 0)
            return &r->instances[i];
    return NULL;
}

static bool has_row(const struct recovery *r, const char *instance)
{
    for (size_t i = 0; i < r->row_count; i++)
        if (strcmp(r->rows[i].instance, instance) == 0)
            return true;
    return false;
}

/* One that was started before VMMs had a log of their own has none: *ret is then -1. */
static int open_log(struct vmm *vmm, const char *instance, int *ret, struct error *err)
{
    struct error failed = {0};
    *ret = vmm->hypervisor->has_log
               ? priv_open(vmm->config.priv, instance, PRIV_SOCKET_LOG, 0, &failed)
               : -1;
    if (!error_is_shortage(&failed))
        return 0;
    *err = failed;
    return -1;
}

static int reattach(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    struct priv_client *priv = vmm->config.priv;
    cleanup_close int pidfd = priv_open(priv, machine->instance, PRIV_SOCKET_PIDFD, 0, err);
    if (pidfd < 0)
        return -1;
    cleanup_close int console = priv_open(priv, machine->instance, PRIV_SOCKET_CONSOLE, 0, err);
    int log = -1;
    if (console < 0 || open_log(vmm, machine->instance, &log, err) < 0)
        return -1;
    return vmm_machine_attach(vmm, machine, TAKE_FD(pidfd), TAKE_FD(console), log, err);
}

/* A VMM that hangs in the middle of it has nothing to say here: all of this is the root half's. */
static int reconnect(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    return reattach(vmm, machine, err) < 0 ||
                   vmm_isolation_check(vmm, machine->instance, err) < 0 ||
                   vmm->hypervisor->reopen(vmm, machine, err) < 0
               ? -1
               : 0;
}

/* A command that ran when the last front died went with it: the VM is idle from now on. */
static void end_use(struct vmm *vmm, struct store_vm *row)
{
    struct error ignored = {0}; /* the next restart finds it again */
    if (row->idle_since_boot_ms > 0)
        return;
    row->idle_since_boot_ms = clock_boot_ms();
    if (row->idle_s > 0)
        (void)store_vm_idle(vmm->config.store, row->instance, row->idle_since_boot_ms, &ignored);
}

/* 0; -1: it cannot be adopted, and stays in the table, doomed, so that its last words are kept; 1: what
 * hindered may pass. */
static int try_adopt(struct vmm *vmm, struct store_vm *row, const struct priv_instance *instance,
                     struct error *err)
{
    struct vmm_machine *machine = vmm_machine_new(vmm, row->instance, err);
    if (machine == NULL)
        return 1;
    memcpy(machine->token, instance->token, sizeof(machine->token));
    int result = reconnect(vmm, machine, err);
    if (result == 0) {
        vmm_audit_guards(vmm, row->instance, STORE_AUDIT_ADOPTED);
        end_use(vmm, row);
        machine->unsure = true; /* whether it is paused; its VMM is asked for that later */
        machine->cut = row->state == STORE_PAUSED; /* a snapshot may have been made of it */
        machine->saved = true;
        machine->generation = instance->generation;
        vmm_snapshot_recover_vm(vmm, machine, row->state == STORE_RUNNING);
        vmm_machine_up(vmm, machine, row, clock_mono_ms());
    } else {
        bool gone = err->code == ERR_VMM_EXITED || vmm_machine_gone_after(machine, err);
        struct vmm_verdict verdict =
            vmm_verdict(STORE_LOST, gone ? "" : "daemon_restart", err->msg);
        result = !gone && (error_is_shortage(err) || err->sys == EIO) ? 1 : -1;
        if (result > 0)
            vmm_machine_remove(vmm, machine);
        else
            vmm_machine_doom(vmm, machine, &verdict);
    }
    vmm_machine_unref(vmm, machine);
    return result;
}

/* A VM is not given up for our want of a descriptor, or one read that failed. */
static int adopt(struct vmm *vmm, struct store_vm *row, const struct priv_instance *instance,
                 struct error *err)
{
    enum { TRIES = 3 };
    const struct timespec pause = {.tv_nsec = 100000000};
    for (int i = 1;; i++) {
        int result = try_adopt(vmm, row, instance, err);
        if (result <= 0 || i == TRIES)
            return result;
        *err = (struct error){0};
        nanosleep(&pause, NULL);
    }
}

/* It runs on, and the next start looks again. */
static void leave_row(struct recovery *r, const struct store_vm *row, const struct error *err)
{
    pthread_mutex_lock(&r->lock);
    if (r->unknown.code == ERR_NONE) {
        r->unknown = *err;
        error_wrap(&r->unknown, "VM %s runs, and cannot be adopted now", row->id);
    }
    pthread_mutex_unlock(&r->lock);
}

static void end_row(struct recovery *r, const struct store_vm *row, enum store_state state,
                    const char *reason, const char *message)
{
    struct error err = {0};
    struct vmm_verdict verdict = vmm_verdict(state, reason, message);
    if (vmm_end(r->vmm, row->instance, &verdict, &err) < 0)
        atomic_fetch_add(&r->failed, 1);
    else
        atomic_fetch_add(state == STORE_LOST ? &r->lost : &r->undone, 1);
}

static void adopt_row(struct recovery *r, struct store_vm *row,
                      const struct priv_instance *instance)
{
    struct error err = {0};
    int adopted = adopt(r->vmm, row, instance, &err);
    if (adopted == 0)
        atomic_fetch_add(&r->adopted, 1);
    else if (adopted > 0 && error_is_shortage(&err))
        leave_row(r, row, &err);
    else
        end_row(r, row, STORE_LOST, "daemon_restart", err.msg); /* or what adopt() found */
}

/* All forks that were asked for, or none: while their snapshot is there they were not answered. */
static void adopt_clone(struct recovery *r, struct store_vm *row,
                        const struct priv_instance *instance)
{
    struct error err = {0};
    bool forking = false;
    if (store_snapshot_forking(r->vmm->config.store, row->snapshot, &forking, &err) < 0)
        leave_row(r, row, &err);
    else if (forking)
        end_row(r, row, STORE_FAILED, "daemon_restart",
                "motted was restarted while it and others were forked");
    else
        adopt_row(r, row, instance);
}

static void recover_row(struct recovery *r, struct store_vm *row)
{
    const struct priv_instance *instance = find_instance(r, row->instance);
    if (strcmp(row->boot, r->vmm->boot) != 0)
        end_row(r, row, STORE_LOST, "host_reboot", "the host was restarted");
    else if (row->state == STORE_CREATING)
        end_row(r, row, STORE_FAILED, "daemon_restart",
                "motted was restarted while it was created");
    else if (row->purpose == STORE_FOR_TEMPLATE)
        end_row(r, row, STORE_EXITED, "daemon_restart", "a snapshot of its image was being made");
    else if (row->state == STORE_DELETING)
        end_row(r, row, STORE_EXITED, "deleted", "");
    else if (instance == NULL || instance->state != PRIV_LAUNCHED || !instance->alive)
        end_row(r, row, STORE_LOST, "", ""); /* what the host still knows must do */
    else if (row->snapshot[0] != '\0')
        adopt_clone(r, row, instance);
    else
        adopt_row(r, row, instance);
}

static void recover_instance(struct recovery *r, const struct priv_instance *instance)
{
    struct error err = {0};
    if (has_row(r, instance->instance))
        return;
    if (priv_kill(r->vmm->config.priv, instance->instance, NULL, &err) < 0)
        atomic_fetch_add(&r->failed, 1);
    else
        atomic_fetch_add(&r->undone, 1);
}

/* No VM is launched without a row, and none loses its row without a certificate. */
static int is_known(const struct recovery *r, const char *instance, struct error *err)
{
    struct store_vm row;
    struct error missing = {0};
    if (store_vm_by_instance(r->vmm->config.store, instance, &row, &missing) == 0 ||
        missing.code == ERR_VM_GONE)
        return 1;
    if (missing.code == ERR_VM_UNKNOWN)
        return 0;
    *err = missing;
    return -1;
}

/* An inventory that knows none of the VMs that run is not theirs: it was lost, or another was put in
 * its place. Undoing what it does not know would kill them all for that. */
static int refuse_foreign_inventory(const struct recovery *r, struct error *err)
{
    unsigned strangers = 0;
    for (size_t i = 0; i < r->instance_count; i++) {
        const struct priv_instance *instance = &r->instances[i];
        if (instance->state != PRIV_LAUNCHED || !instance->alive)
            continue;
        int known = is_known(r, instance->instance, err);
        if (known != 0)
            return known < 0 ? -1 : 0;
        strangers++;
    }
    if (strangers == 0)
        return 0;
    return error_set(err, ERR_STORE, 0,
                     "the inventory knows none of the %u VMs that run: it was lost or replaced. "
                     "Restore a copy of motte.db; or end all VMs with `motted --purge`",
                     strangers);
}

static void *worker(void *context)
{
    struct recovery *r = context;
    for (;;) {
        size_t i = atomic_fetch_add(&r->next, 1);
        if (i < r->row_count)
            recover_row(r, &r->rows[i]);
        else if (i - r->row_count < r->instance_count)
            recover_instance(r, &r->instances[i - r->row_count]);
        else
            return NULL;
    }
}

static int list_instances(struct recovery *r, struct error *err)
{
    for (;;) {
        struct priv_instance *grown =
            realloc(r->instances, (r->instance_count + 1) * sizeof(*r->instances));
        if (grown == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory while recovering");
        r->instances = grown;
        if (priv_list(r->vmm->config.priv, (uint32_t)r->instance_count, &grown[r->instance_count],
                      err) < 0)
            return -1;
        if (grown[r->instance_count].instance[0] == '\0')
            return 0;
        r->instance_count++;
    }
}

static void recovery_release(struct recovery *r)
{
    free(r->rows);
    free(r->instances);
    pthread_mutex_destroy(&r->lock);
}

int vmm_recover(struct vmm *vmm, struct vmm_recovered *ret, struct error *err)
{
    cleanup(recovery_release) struct recovery r = {.vmm = vmm, .lock = PTHREAD_MUTEX_INITIALIZER};
    if (store_vm_all(vmm->config.store, &r.rows, &r.row_count, err) < 0 ||
        list_instances(&r, err) < 0 || refuse_foreign_inventory(&r, err) < 0 ||
        store_events_boot(vmm->config.store, vmm->boot, err) < 0)
        return -1;
    vmm_age(vmm);
    pthread_t threads[WORKERS];
    size_t started = 0;
    while (started < WORKERS && started < r.row_count + r.instance_count &&
           pthread_create(&threads[started], NULL, worker, &r) == 0)
        started++;
    worker(&r); /* this thread helps, so that no thread at all is not a failure */
    while (started > 0)
        pthread_join(threads[--started], NULL);
    if (r.unknown.code != ERR_NONE) {
        *err = r.unknown;
        return -1;
    }
    if (r.failed > 0)
        return error_set(err, ERR_INTERNAL, 0,
                         "%u VMs could not be cleaned up; `motted leftovers` lists them", r.failed);
    if (vmm_snapshot_recover(vmm, err) < 0)
        return -1;
    vmm_image_snapshots_recover(vmm);
    pthread_mutex_lock(&vmm->lock);
    vmm->recovered = true;
    vmm_pool_news(vmm);
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
    *ret = (struct vmm_recovered){.adopted = r.adopted, .undone = r.undone, .lost = r.lost};
    return 0;
}
