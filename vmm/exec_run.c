/* The life of a command that is watched: begun on the caller's thread, then its own until the end. */
#include "vmm/execs.h"

enum { STACK_SIZE = 256 * 1024 };

/* ---- what its connection asks of it; on its thread, or the caller's while it begins ---- */

static int take_output(void *context, enum wire_kind kind, const uint8_t *data, size_t len,
                       struct error *err)
{
    struct vmm_exec *exec = context;
    (void)err;
    pthread_mutex_lock(&exec->vmm->execs->lock);
    vmm_exec_keep(exec, kind, data, len);
    waker_wake_all(&exec->waiting);
    pthread_mutex_unlock(&exec->vmm->execs->lock);
    return 0;
}

static ssize_t give_input(void *context, char *out, size_t size)
{
    struct vmm_exec *exec = context;
    pthread_mutex_lock(&exec->vmm->execs->lock);
    size_t left = exec->input.len - exec->input_at;
    size_t len = left < size ? left : size;
    ssize_t result = len > 0 ? (ssize_t)len : exec->record.input_open ? -1 : 0;
    if (len > 0)
        memcpy(out, exec->input.data + exec->input_at, len);
    exec->input_at += len;
    if (exec->input_at == exec->input.len)
        exec->input_at = exec->input.len = 0;
    pthread_mutex_unlock(&exec->vmm->execs->lock);
    return result;
}

static struct vsock_orders take_orders(void *context)
{
    struct vmm_exec *exec = context;
    pthread_mutex_lock(&exec->vmm->execs->lock);
    struct vsock_orders orders = exec->orders;
    exec->orders.resize = false;
    pthread_mutex_unlock(&exec->vmm->execs->lock);
    return orders;
}

/* ---- end ---- */

static const char *reason_of(const struct vmm_exec *exec, const struct error *err)
{
    static const struct {
        enum error_code code;
        const char *reason;
    } table[] = {{ERR_VM_GONE, "vm_ended"},
                 {ERR_EXEC_TIMEOUT, "paused"},
                 {ERR_GUEST_TIMEOUT, "guest_unresponsive"},
                 {ERR_GUEST_PROTOCOL, "guest_protocol"},
                 {ERR_GUEST_CLOSED, "connection_lost"},
                 {ERR_SHUTTING_DOWN, "service_stopped"}};
    if (exec->record.killed && err->code == ERR_GUEST_TIMEOUT)
        return "killed";
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (table[i].code == err->code)
            return table[i].reason;
    return "failed";
}

/* All that waits for it is told. */
static void settle(struct vmm_exec *exec, const struct vsock_exit *exit, const struct error *err)
{
    struct vmm_execs *execs = exec->vmm->execs;
    struct vmm_exec_record *record = &exec->record;
    pthread_mutex_lock(&execs->lock);
    record->state = err->code == ERR_NONE ? VMM_EXEC_EXITED : VMM_EXEC_LOST;
    if (err->code == ERR_NONE) {
        record->exit = *exit;
    } else {
        snprintf(record->reason, sizeof(record->reason), "%s", reason_of(exec, err));
        snprintf(record->message, sizeof(record->message), "%s", err->msg);
    }
    record->ended_wall_ms = clock_wall_ms();
    record->ended_boot_ms = clock_boot_ms();
    record->duration_ms = (clock_mono_us() - exec->begin_us) / 1000;
    record->input_open = false;
    buf_release(&exec->input);
    exec->input_at = 0;
    close(TAKE_FD(exec->wake)); /* there may be many records of those that have ended */
    vmm_exec_stopped(exec);
    waker_wake_all(&exec->waiting);
    pthread_cond_broadcast(&execs->changed);
    pthread_mutex_unlock(&execs->lock);
}

static void explain_silence(const struct vmm_exec *exec, struct error *err)
{
    *err = (struct error){0};
    if (exec->begun)
        error_set(
            err, ERR_EXEC_TIMEOUT, 0,
            "its time went by while the VM was paused; the command is killed when the VM goes "
            "on");
    else
        error_set(err, ERR_VM_PAUSED, 0, "the VM was paused before the command could begin");
}

/* As for a command that is waited for: what its failure says of the VM. */
static void explain(struct vmm_exec *exec, struct error *err)
{
    struct vmm *vmm = exec->vmm;
    if (err->code == ERR_GUEST_PROTOCOL)
        vmm_audit_word(vmm, exec->machine->instance, STORE_AUDIT_GUEST_PROTOCOL, "during", "exec");
    if (err->code == ERR_SHUTTING_DOWN)
        return;
    if (vmm_machine_gone_after(exec->machine, err)) {
        *err = (struct error){0};
        error_set(err, ERR_VM_GONE, 0, "the VM ended while the command ran in it");
    } else if (err->code == ERR_GUEST_TIMEOUT) {
        if (vmm_pause_since(vmm, exec->machine, exec->changes))
            explain_silence(exec, err);
        else
            vmm_watchdog_suspect(vmm, exec->machine);
    }
}

static void release(struct vmm_exec *exec)
{
    struct vmm *vmm = exec->vmm;
    if (exec->conn != NULL)
        vmm->hypervisor->disconnect(vmm, exec->machine, exec->conn, exec->port);
    exec->conn = NULL;
    vmm_use_end(vmm, exec->machine);
}

static void observe(struct vmm_exec *exec, bool timed_out, struct error *err)
{
    const struct vmm_observer *observer = &exec->vmm->config.observer;
    struct error over = {0};
    if (timed_out)
        error_set(&over, ERR_EXEC_TIMEOUT, 0, "the command ran out of time");
    const struct error *failed = timed_out ? &over : err->code != ERR_NONE ? err : NULL;
    observer->exec(observer->context, failed, clock_mono_us() - exec->begin_us);
}

static void *live(void *context)
{
    struct vmm_exec *exec = context;
    struct vmm *vmm = exec->vmm;
    struct vsock_exit exit = {0};
    struct error err = {0};
    int64_t deadline = clock_mono_ms() + exec->timeout_ms + VMM_EXEC_GRACE_MS;
    if (vsock_command_run(&exec->command, exec->machine->gone, deadline, &exit, &err) < 0)
        explain(exec, &err);
    release(exec); /* who sees its end may make a snapshot at once */
    observe(exec, exit.timed_out, &err);
    settle(exec, &exit, &err);
    vmm_machine_unref(vmm, exec->machine);
    pthread_mutex_lock(&vmm->execs->lock);
    vmm_exec_unref(exec);
    vmm->execs->threads--;
    pthread_cond_broadcast(&vmm->execs->changed);
    pthread_mutex_unlock(&vmm->execs->lock);
    return NULL;
}

/* ---- begin ---- */

static int connect_and_begin(struct vmm_exec *exec, const struct vmm_exec_wish *wish,
                             struct error *err)
{
    struct vmm *vmm = exec->vmm;
    struct vmm_machine *machine = exec->machine;
    const struct vsock_command_io io = {
        .context = exec,
        .output = take_output,
        .input = wish->input != NULL || wish->input_open ? give_input : NULL,
        .orders = take_orders,
        .wake = exec->wake};
    if (vmm_pause_refuse(vmm, machine, &exec->changes, err) < 0)
        return -1;
    int64_t deadline = clock_mono_ms() + VMM_CONNECT_TIMEOUT_MS;
    if (vmm->hypervisor->connect(vmm, machine, deadline, &exec->conn, &exec->port, err) < 0)
        return -1;
    deadline = clock_mono_ms() + VMM_EXEC_GRACE_MS;
    return vsock_command_begin(exec->conn, &wish->request, &io, machine->gone, deadline,
                               &exec->command, err);
}

static int start_thread(struct vmm_exec *exec, struct error *err)
{
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int result = pthread_create(&thread, &attributes, live, exec);
    pthread_attr_destroy(&attributes);
    return result == 0 ? 0 : error_set(err, ERR_SYSTEM, result, "starting a command's thread");
}

/* The caller's reference becomes the thread's. Once it is to be seen it may be told to leave, and waited
 * for: so nobody sees it before its thread is there. */
static int begin(struct vmm_exec *exec, const struct vmm_exec_wish *wish,
                 struct vmm_exec_record *ret, struct error *err)
{
    struct vmm_execs *execs = exec->vmm->execs;
    exec->timeout_ms = wish->request.timeout_ms;
    exec->record.pty = wish->request.pty;
    exec->record.input_open = wish->input_open;
    exec->record.input_bytes = wish->input_len;
    if (wish->input_len > 0 && buf_append(&exec->input, wish->input, wish->input_len) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command's input");
    if (connect_and_begin(exec, wish, err) < 0)
        return -1;
    pthread_mutex_lock(&execs->lock);
    exec->begun = true;
    exec->orders.leave = execs->leaving;
    int result = start_thread(exec, err);
    if (result == 0)
        execs->threads++;
    else
        exec->begun = false;
    *ret = exec->record;
    pthread_mutex_unlock(&execs->lock);
    return result;
}

/* One that did not begin. */
static void discard(struct vmm_exec *exec)
{
    struct vmm_execs *execs = exec->vmm->execs;
    pthread_mutex_lock(&execs->lock);
    vmm_exec_stopped(exec);
    vmm_exec_unlist(exec);
    vmm_exec_unref(exec);
    pthread_mutex_unlock(&execs->lock);
}

int vmm_exec_start(struct vmm *vmm, const char *owner, const char *vm,
                   const struct vmm_exec_wish *wish, struct vmm_exec_record *ret, struct error *err)
{
    struct vmm_machine *machine = NULL;
    struct vmm_exec *exec = NULL;
    if (vmm_use_find(vmm, owner, vm, "commands need a running one", &machine, err) < 0)
        return -1;
    if (vmm_exec_new(vmm, owner, vm, machine->instance, &exec, err) < 0) {
        vmm_machine_unref(vmm, machine);
        return -1;
    }
    exec->machine = machine;
    vmm_use_begin(vmm, machine);
    if (begin(exec, wish, ret, err) == 0)
        return 0;
    explain(exec, err);
    release(exec);
    observe(exec, false, err);
    discard(exec);
    vmm_machine_unref(vmm, machine);
    return -1;
}
