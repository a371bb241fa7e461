/* What each step of a spawn does and how it is undone. Each calls one module. */
#include "vmm/steps.h"

#include <errno.h>

/* ---- admit: a reserved instance, and the intent row before the first side effect ---- */

static int check_capacity(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm *vmm = spawn->vmm;
    struct store_totals totals;
    struct priv_host host;
    struct store_cordon cordon;
    vmm_host(vmm, &host);
    if (store_cordon_get(vmm->config.store, &cordon, err) < 0)
        return -1;
    if (cordon.set) /* the insert asks again; here nothing has been done yet */
        return store_cordon_refuse(&cordon, err);
    if (store_totals(vmm->config.store, &totals, err) < 0)
        return -1;
    if (totals.memory_mib + spawn->spec->memory_mib > host.total_memory_mib)
        return error_set(err, ERR_CAPACITY, 0,
                         "memory: %llu of %u MiB are taken, %u more do not fit; delete a VM or try "
                         "later",
                         (unsigned long long)totals.memory_mib, host.total_memory_mib,
                         spawn->spec->memory_mib);
    pthread_mutex_lock(&vmm->lock);
    bool draining = vmm->draining;
    pthread_mutex_unlock(&vmm->lock);
    if (draining)
        return error_set(err, ERR_SHUTTING_DOWN, 0, "motted is stopping; try again in a moment");
    return 0;
}

static void fill_row(struct vmm_spawning *spawn)
{
    const struct vmm_spec *spec = spawn->spec;
    struct store_vm *row = &spawn->row;
    struct priv_host host;
    vmm_host(spawn->vmm, &host);
    memcpy(row->id, spec->id, sizeof(row->id));
    row->state = STORE_CREATING;
    memcpy(row->image, spec->image.name, sizeof(row->image));
    memcpy(row->image_digest, spec->image.digest, HASH_SIZE);
    row->vcpus = spec->vcpus;
    row->memory_mib = spec->memory_mib;
    row->disk_mib = spec->disk_mib;
    snprintf(row->seccomp, sizeof(row->seccomp), "%s", vmm_seccomp_name(spec->seccomp));
    snprintf(row->hypervisor, sizeof(row->hypervisor), "%s", spawn->vmm->hypervisor->name);
    row->emulated = host.emulated != 0;
    row->without = host.without;
    row->layout = STORE_LAYOUT;
    row->ttl_s = spec->ttl_s;
    row->idle_s = spec->idle_s;
    row->on_unresponsive = spec->on_unresponsive;
    row->created_wall_ms = row->state_wall_ms = clock_wall_ms();
    memcpy(row->boot, spawn->vmm->boot, sizeof(row->boot));
    memcpy(row->labels, spec->labels, sizeof(row->labels));
}

static int admit(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm *vmm = spawn->vmm;
    struct store_vm *row = &spawn->row;
    if (check_capacity(spawn, err) < 0)
        return -1;
    fill_row(spawn);
    if (priv_reserve(vmm->config.priv, row->instance, row->chain, &row->uid, err) < 0)
        return -1;
    spawn->machine = vmm_machine_new(vmm, row->instance, err);
    if (spawn->machine != NULL && store_vm_insert(vmm->config.store, row, err) == 0)
        return 0;
    struct error undoing = {0};
    int undone = priv_kill(vmm->config.priv, row->instance, NULL, &undoing);
    if (spawn->machine == NULL)
        return -1;
    struct vmm_verdict verdict = vmm_verdict(STORE_FAILED, "spawn_admit", err->msg);
    if (undone == 0)
        vmm_machine_remove(vmm, spawn->machine);
    else
        vmm_machine_doom(vmm, spawn->machine, &verdict);
    return -1;
}

static int kill_instance(struct vmm_spawning *spawn, struct error *err)
{
    struct priv_killed killed = {0};
    if (priv_kill(spawn->vmm->config.priv, spawn->row.instance, &killed, err) < 0)
        return -1;
    if (!spawn->killed_once)
        spawn->killed = killed;
    spawn->killed_once = true;
    if (killed.oom_kills > 0) { /* only now it is known why the VMM was gone */
        spawn->failure = (struct error){0};
        error_set(&spawn->failure, ERR_VMM_EXITED, 0,
                  "the VMM's cgroup ran out of memory, or the one that holds all VMs did");
    }
    return 0;
}

/* The certificate says `deleted` when a DELETE stopped the spawn, else which step failed. When the
 * root half cannot take everything away now, the row stays and the reaper tries again. (A delete is
 * seen in the store before it is seen in the machine: commit finds the row taken.) */
static void undo_admit(struct vmm_spawning *spawn)
{
    struct vmm *vmm = spawn->vmm;
    struct error err = {0};
    bool deleted = vmm_machine_cancelled(spawn->machine) || spawn->failure.code == ERR_CANCELLED;
    char reason[STORE_REASON_MAX];
    snprintf(reason, sizeof(reason), "spawn_%s", spawn->failed_step);
    struct vmm_verdict verdict = vmm_verdict(deleted ? STORE_EXITED : STORE_FAILED,
                                             deleted ? "deleted" : reason, spawn->failure.msg);
    if (kill_instance(spawn, &err) == 0 && vmm_certify(vmm, spawn->row.instance, spawn->machine,
                                                       &spawn->killed, &verdict, &err) == 0) {
        vmm->config.observer.ended(vmm->config.observer.context, verdict.reason);
        vmm_machine_remove(vmm, spawn->machine);
        return;
    }
    vmm_machine_doom(vmm, spawn->machine, &verdict);
}

/* ---- guard: firewall and cgroup, before there is anything to guard ---- */

static int guard(struct vmm_spawning *spawn, struct error *err)
{
    struct priv_shape shape = {.vcpus = spawn->spec->vcpus,
                               .memory_mib = spawn->spec->memory_mib,
                               .disk_mib = spawn->spec->disk_mib,
                               .seccomp = spawn->spec->seccomp};
    return priv_guard(spawn->vmm->config.priv, spawn->row.instance, &shape, err);
}

/* KILL takes away whatever there is of an instance: VMM, jail, cgroup, chain, uid. */
static void undo_instance(struct vmm_spawning *spawn)
{
    struct error err = {0};
    (void)kill_instance(spawn, &err);
}

/* ---- launch: the jailed VMM, nothing of the guest yet ---- */

static int launch(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm_machine *machine = spawn->machine;
    struct priv_launched launched;
    if (priv_launch(spawn->vmm->config.priv, spawn->row.instance, spawn->spec->image.digest,
                    &launched, err) < 0)
        return -1;
    machine->hello = launched.hello;
    memcpy(machine->token, launched.token, sizeof(machine->token));
    return vmm_machine_attach(spawn->vmm, machine, launched.pidfd, launched.console, launched.log,
                              err);
}

static int configure(struct vmm_spawning *spawn, struct error *err)
{
    return spawn->vmm->hypervisor->configure(spawn->vmm, spawn->machine, spawn->spec, err);
}

/* ---- start: and every guard read back from the kernel before the guest may do anything ---- */

static int start(struct vmm_spawning *spawn, struct error *err)
{
    if (spawn->vmm->hypervisor->start(spawn->machine, err) < 0)
        return -1;
    if (vmm_isolation_check(spawn->vmm, spawn->row.instance, err) < 0)
        return -1;
    vmm_audit_guards(spawn->vmm, spawn->row.instance, STORE_AUDIT_GUARDS_CHECKED);
    return 0;
}

/* One hello a boot: with the listener gone a guest cannot make the host hold connections, and what
 * it writes into them, that nobody accepts. */
static void stop_listening(struct vmm_machine *machine)
{
    cleanup_close_func(&machine->hello);
    machine->hello = -1;
}

static int hello(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm_defaults defaults;
    vmm_defaults(spawn->vmm, &defaults);
    int64_t deadline = clock_mono_ms() + defaults.boot_timeout_ms;
    if (spawn->vmm->hypervisor->hello(spawn->machine, deadline, &spawn->hello, err) == 0) {
        stop_listening(spawn->machine);
        return 0;
    }
    if (err->code == ERR_GUEST_TIMEOUT) {
        *err = (struct error){0};
        error_set(err, ERR_BOOT_TIMEOUT, 0, "the guest's agent did not say hello within %d ms",
                  defaults.boot_timeout_ms);
    }
    return -1;
}

/* ---- commit ---- */

static int put_json(cJSON *json, char *out, size_t size, struct error *err)
{
    cleanup_free char *text = json_print(json);
    if (text == NULL || strlen(text) >= size)
        return error_set(err, ERR_NO_MEMORY, 0, "no room for a VM's details");
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int add_steps(cJSON *steps, const struct vmm_spawning *spawn)
{
    for (size_t i = 0; i < VMM_STEPS - 1; i++) {
        cJSON *step = cJSON_CreateObject();
        if (!cJSON_AddItemToArray(steps, step)) {
            cJSON_Delete(step);
            return -1;
        }
        if (json_add_string(step, "name", vmm_steps[i].name) < 0 ||
            json_add_number(step, "ms", (double)spawn->step_us[i] / 1000.0) < 0)
            return -1;
    }
    return 0;
}

static int describe(struct vmm_spawning *spawn, struct error *err)
{
    cleanup_json cJSON *steps = cJSON_CreateArray(), *guest = cJSON_CreateObject();
    if (add_steps(steps, spawn) < 0 || json_add_string(guest, "agent", spawn->hello.agent) < 0 ||
        json_add_string(guest, "kernel", spawn->hello.kernel) < 0 ||
        json_add_number(guest, "boot_ms", (double)spawn->hello.boot_ms) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's details");
    if (put_json(steps, spawn->row.steps, sizeof(spawn->row.steps), err) < 0)
        return -1;
    return put_json(guest, spawn->row.guest, sizeof(spawn->row.guest), err);
}

static int commit(struct vmm_spawning *spawn, struct error *err)
{
    struct store_vm *row = &spawn->row;
    if (describe(spawn, err) < 0)
        return -1;
    row->state = STORE_RUNNING;
    row->state_wall_ms = clock_wall_ms();
    row->expires_boot_ms = clock_boot_ms() + row->ttl_s * 1000;
    row->expires_wall_ms = row->state_wall_ms + row->ttl_s * 1000;
    row->idle_since_boot_ms = clock_boot_ms();
    row->agent = STORE_AGENT_RESPONSIVE; /* it has just said hello */
    if (store_vm_running(spawn->vmm->config.store, row, err) < 0)
        return -1;
    vmm_machine_up(spawn->vmm, spawn->machine, row,
                   clock_mono_ms() + vmm_watchdog_period_ms(spawn->vmm));
    return 0;
}

const struct vmm_step vmm_steps[VMM_STEPS] = {
    {"admit", admit, undo_admit},
    {"guard", guard, undo_instance},
    {"launch", launch, undo_instance},
    {"configure", configure, NULL}, /* lives inside the VMM, ends with it */
    {"start", start, NULL},
    {"hello", hello, NULL},
    {"commit", commit, NULL},
};
