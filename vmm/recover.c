/* After a restart: what agrees is kept, everything else is undone. Runs before anything is served.
 */
#include "vmm/internal.h"

#include <stdatomic.h>

enum { WORKERS = 16, HELLO_MS = 5000 };

struct recovery {
    struct vmm *vmm;
    struct store_vm *rows; /* owned */
    size_t row_count;
    struct priv_instance *instances; /* owned */
    size_t instance_count;
    atomic_size_t next; /* index into rows, then instances */
    atomic_uint adopted, undone, lost, failed;
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

/* One that was started before VMMs had a log of their own has none. */
static int open_log(struct vmm *vmm, const char *instance)
{
    struct error ignored = {0};
    return vmm->hypervisor->has_log
               ? priv_open(vmm->config.priv, instance, PRIV_SOCKET_LOG, 0, &ignored)
               : -1;
}

static int reattach(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    struct priv_client *priv = vmm->config.priv;
    cleanup_close int pidfd = priv_open(priv, machine->instance, PRIV_SOCKET_PIDFD, 0, err);
    if (pidfd < 0)
        return -1;
    int console = priv_open(priv, machine->instance, PRIV_SOCKET_CONSOLE, 0, err);
    if (console < 0)
        return -1;
    return vmm_machine_attach(vmm, machine, TAKE_FD(pidfd), console,
                              open_log(vmm, machine->instance), err);
}

/* Descriptors anew, every guard read back, and the agent must answer under the right name. */
static int reconnect(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    if (reattach(vmm, machine, err) < 0 || vmm_isolation_check(vmm, machine->instance, err) < 0 ||
        vmm->hypervisor->reopen(vmm, machine, err) < 0)
        return -1;
    struct vsock_conn *conn = NULL;
    unsigned port = 0;
    int64_t deadline = clock_mono_ms() + HELLO_MS;
    if (vmm->hypervisor->connect(vmm, machine, deadline, &conn, &port, err) < 0)
        return -1;
    struct vsock_hello hello;
    int result = vsock_hello_ask(conn, machine->instance, deadline, &hello, err);
    vmm->hypervisor->disconnect(vmm, machine, conn, port);
    if (result < 0 && err->code == ERR_GUEST_PROTOCOL)
        vmm_audit_word(vmm, machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "adoption");
    return result;
}

/* "": the VMM has ended, and why is to be found out. */
static const char *why_not(const struct vmm_machine *machine, const struct error *err)
{
    if (err->code == ERR_VMM_EXITED || vmm_machine_gone_after(machine, err))
        return "";
    bool guest = err->code == ERR_GUEST_TIMEOUT || err->code == ERR_GUEST_CLOSED ||
                 err->code == ERR_GUEST_PROTOCOL || err->code == ERR_GUEST_REFUSED;
    return guest ? "unresponsive" : "daemon_restart";
}

/* One that cannot be adopted stays in the table, doomed, so that its last words are kept. */
static int adopt(struct vmm *vmm, const struct store_vm *row, const struct priv_instance *instance,
                 struct error *err)
{
    struct vmm_machine *machine = vmm_machine_new(vmm, row->instance, err);
    if (machine == NULL)
        return -1;
    memcpy(machine->token, instance->token, sizeof(machine->token));
    int result = reconnect(vmm, machine, err);
    if (result == 0) {
        vmm_audit_guards(vmm, row->instance, STORE_AUDIT_ADOPTED);
        vmm_machine_up(vmm, machine, row->expires_boot_ms);
    } else {
        struct vmm_verdict verdict = vmm_verdict(STORE_LOST, why_not(machine, err), err->msg);
        vmm_machine_doom(vmm, machine, &verdict);
    }
    vmm_machine_unref(vmm, machine);
    return result;
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

static void recover_row(struct recovery *r, const struct store_vm *row)
{
    const struct priv_instance *instance = find_instance(r, row->instance);
    struct error err = {0};
    if (strcmp(row->boot, r->vmm->boot) != 0)
        end_row(r, row, STORE_LOST, "host_reboot", "the host was restarted");
    else if (row->state == STORE_CREATING)
        end_row(r, row, STORE_FAILED, "daemon_restart",
                "motted was restarted while it was created");
    else if (row->state == STORE_DELETING)
        end_row(r, row, STORE_EXITED, "deleted", "");
    else if (instance == NULL || instance->state != PRIV_LAUNCHED || !instance->alive)
        end_row(r, row, STORE_LOST, "", ""); /* what the host still knows must do */
    else if (adopt(r->vmm, row, instance, &err) < 0)
        end_row(r, row, STORE_LOST, "daemon_restart", err.msg); /* or what adopt() found */
    else
        atomic_fetch_add(&r->adopted, 1);
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
}

int vmm_recover(struct vmm *vmm, struct vmm_recovered *ret, struct error *err)
{
    cleanup(recovery_release) struct recovery r = {.vmm = vmm};
    if (store_vm_all(vmm->config.store, &r.rows, &r.row_count, err) < 0 ||
        list_instances(&r, err) < 0)
        return -1;
    pthread_t threads[WORKERS];
    size_t started = 0;
    while (started < WORKERS && started < r.row_count + r.instance_count &&
           pthread_create(&threads[started], NULL, worker, &r) == 0)
        started++;
    worker(&r); /* this thread helps, so that no thread at all is not a failure */
    while (started > 0)
        pthread_join(threads[--started], NULL);
    if (r.failed > 0)
        return error_set(err, ERR_INTERNAL, 0,
                         "%u VMs could not be cleaned up; `motted leftovers` lists them", r.failed);
    *ret = (struct vmm_recovered){.adopted = r.adopted, .undone = r.undone, .lost = r.lost};
    return 0;
}
