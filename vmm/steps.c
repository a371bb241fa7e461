/* What each step of a spawn does and how it is undone. Each calls one module. */
#include "vmm/steps.h"
#include "vmm/pool.h"
#include "vmm/template.h"

#include <errno.h>

/* ---- admit: a reserved instance, and the intent row before the first side effect ---- */

/* *ret_need_mib: how much memory is missing. */
static int check_capacity(struct vmm_spawning *spawn, uint64_t *ret_need_mib, struct error *err)
{
    struct vmm *vmm = spawn->vmm;
    struct store_totals totals;
    struct priv_host host;
    vmm_host(vmm, &host);
    /* before room is made: who is refused ends nothing of the pool's */
    if (store_vm_admissible(vmm->config.store, &spawn->row, err) < 0 ||
        store_totals(vmm->config.store, &totals, err) < 0)
        return -1;
    *ret_need_mib = totals.memory_mib + spawn->spec->memory_mib - host.total_memory_mib;
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

void vmm_row_fill(struct vmm *vmm, const struct vmm_spec *spec, struct store_vm *row)
{
    struct priv_host host;
    vmm_host(vmm, &host);
    memcpy(row->id, spec->id, sizeof(row->id));
    row->state = STORE_CREATING;
    memcpy(row->image, spec->image.name, sizeof(row->image));
    memcpy(row->image_digest, spec->image.digest, HASH_SIZE);
    row->vcpus = spec->vcpus;
    row->memory_mib = spec->memory_mib;
    row->disk_mib = spec->disk_mib;
    snprintf(row->seccomp, sizeof(row->seccomp), "%s", vmm_seccomp_name(spec->seccomp));
    snprintf(row->hypervisor, sizeof(row->hypervisor), "%s", vmm->hypervisor->name);
    row->emulated = host.emulated != 0;
    row->without = host.without;
    row->layout = STORE_LAYOUT;
    row->ttl_s = spec->ttl_s;
    row->idle_s = spec->idle_s;
    row->on_unresponsive = spec->on_unresponsive;
    row->created_wall_ms = row->state_wall_ms = clock_wall_ms();
    memcpy(row->boot, vmm->boot, sizeof(row->boot));
    memcpy(row->labels, spec->labels, sizeof(row->labels));
    memcpy(row->snapshot, spec->snapshot, sizeof(row->snapshot));
    row->purpose = spec->purpose;
    row->source = spec->snapshot[0] != '\0' ? STORE_FROM_SNAPSHOT : STORE_FROM_BOOT;
}

void vmm_row_live(struct store_vm *row)
{
    row->state = STORE_RUNNING;
    row->state_wall_ms = clock_wall_ms();
    row->expires_boot_ms = clock_boot_ms() + row->ttl_s * 1000;
    row->expires_wall_ms = row->state_wall_ms + row->ttl_s * 1000;
    row->idle_since_boot_ms = clock_boot_ms();
}

/* What the service does for itself makes room for a caller's. */
static bool make_room(struct vmm_spawning *spawn, uint64_t need_mib, struct error *err)
{
    if (err->code != ERR_CAPACITY || spawn->spec->purpose != STORE_FOR_CALLER ||
        !(vmm_template_yield(spawn->vmm) || vmm_pool_yield(spawn->vmm, need_mib)))
        return false;
    *err = (struct error){0};
    return true;
}

static int reserve(struct vmm_spawning *spawn, struct error *err)
{
    struct store_vm *row = &spawn->row;
    uint64_t need_mib = 0;
    vmm_row_fill(spawn->vmm, spawn->spec, row);
    while (check_capacity(spawn, &need_mib, err) < 0)
        if (!make_room(spawn, need_mib, err))
            return -1;
    while (priv_reserve(spawn->vmm->config.priv, row->instance, row->chain, &row->uid, err) < 0)
        if (!make_room(spawn, 0, err))
            return -1;
    return 0;
}

static int admit(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm *vmm = spawn->vmm;
    struct store_vm *row = &spawn->row;
    if (reserve(spawn, err) < 0)
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

static bool is_restore(const struct vmm_spawning *spawn)
{
    return spawn->from[0] != '\0';
}

/* ---- launch: the jailed VMM, nothing of the guest yet ---- */

static void choose_source(struct vmm_spawning *spawn)
{
    memcpy(spawn->from, spawn->spec->snapshot, sizeof(spawn->from));
    if (!vmm_template_serves(spawn->vmm, spawn->spec))
        return;
    vmm_image_snapshot_find(spawn->vmm, spawn->spec, spawn->from);
    spawn->of_image = is_restore(spawn);
}

static int launch_from(struct vmm_spawning *spawn, struct priv_launched *ret, struct error *err)
{
    struct priv_client *priv = spawn->vmm->config.priv;
    const char *instance = spawn->row.instance;
    const uint8_t *image = spawn->spec->image.digest;
    if (is_restore(spawn))
        return priv_launch_snapshot(priv, instance, image, spawn->from, ret, err);
    bool template = spawn->spec->purpose == STORE_FOR_TEMPLATE;
    return (template ? priv_launch_template : priv_launch)(priv, instance, image, ret, err);
}

/* The root half refuses to restore it, with no effect: it can still boot. */
static bool refuses_snapshot(const struct error *err)
{
    return err->code == ERR_SNAPSHOT_MISMATCH || err->code == ERR_SNAPSHOT_DAMAGED ||
           err->code == ERR_SNAPSHOT_UNKNOWN;
}

static int launch(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm_machine *machine = spawn->machine;
    struct priv_launched launched;
    choose_source(spawn);
    int result = launch_from(spawn, &launched, err);
    if (result < 0 && spawn->of_image && refuses_snapshot(err)) {
        vmm_image_snapshot_reject(spawn->vmm, spawn->spec, spawn->from, VMM_IMAGE_REFUSED, err);
        spawn->from[0] = '\0';
        spawn->of_image = false;
        *err = (struct error){0};
        result = launch_from(spawn, &launched, err);
    }
    if (result < 0)
        return -1;
    spawn->row.source = is_restore(spawn) ? STORE_FROM_SNAPSHOT : STORE_FROM_BOOT;
    machine->generation = launched.generation;
    machine->apart = launched.apart;
    machine->hello = launched.hello;
    memcpy(machine->token, launched.token, sizeof(machine->token));
    memcpy(machine->snapshot_token, launched.snapshot_token, sizeof(machine->snapshot_token));
    return vmm_machine_attach(spawn->vmm, machine, launched.pidfd, launched.console, launched.log,
                              err);
}

static int configure(struct vmm_spawning *spawn, struct error *err)
{
    const struct vmm_hypervisor *hypervisor = spawn->vmm->hypervisor;
    if (is_restore(spawn))
        return hypervisor->load(spawn->vmm, spawn->machine, spawn->spec, err);
    return hypervisor->configure(spawn->vmm, spawn->machine, spawn->spec, err);
}

/* ---- start: and every guard read back from the kernel before the guest may do anything ---- */

static int check(struct vmm_spawning *spawn, struct error *err)
{
    if (vmm_isolation_check(spawn->vmm, spawn->row.instance, err) < 0)
        return -1;
    vmm_audit_guards(spawn->vmm, spawn->row.instance, STORE_AUDIT_GUARDS_CHECKED);
    return 0;
}

/* A VMM that boots has all its threads, and their filters, when it has started; one that was restored
 * has them before. */
static int start(struct vmm_spawning *spawn, struct error *err)
{
    const struct vmm_hypervisor *hypervisor = spawn->vmm->hypervisor;
    if (!is_restore(spawn))
        return hypervisor->start(spawn->machine, err) < 0 ? -1 : check(spawn, err);
    return check(spawn, err) < 0 ? -1 : hypervisor->resume(spawn->machine, VMM_API_TIMEOUT_MS, err);
}

/* One hello a boot: with the listener gone a guest cannot make the host hold connections, and what
 * it writes into them, that nobody accepts. */
static void stop_listening(struct vmm_machine *machine)
{
    cleanup_close_func(&machine->hello);
    machine->hello = -1;
}

/* The agent that speaks has begun anew, or this is not the one that was told who it is. */
static int check_generation(const struct vmm_spawning *spawn, struct error *err)
{
    if (spawn->hello.generation == spawn->machine->generation)
        return 0;
    return error_set(err, ERR_GUEST_PROTOCOL, 0, "the guest is of generation %u, not of %u",
                     spawn->hello.generation, spawn->machine->generation);
}

static int hello(struct vmm_spawning *spawn, struct error *err)
{
    struct vmm_defaults defaults;
    vmm_defaults(spawn->vmm, &defaults);
    int64_t deadline = clock_mono_ms() + defaults.boot_timeout_ms;
    if ((!is_restore(spawn) ||
         vmm_restore(spawn->vmm, spawn->machine, deadline, &spawn->restored, err) == 0) &&
        spawn->vmm->hypervisor->hello(spawn->machine, deadline, &spawn->hello, err) == 0 &&
        check_generation(spawn, err) == 0) {
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
        json_add_number(guest, "boot_ms", (double)spawn->hello.boot_ms) < 0 ||
        json_add_number(guest, "generation", spawn->machine->generation) < 0 ||
        (spawn->restored.skew_known &&
         json_add_number(guest, "clock_skew_ms", (double)spawn->restored.clock_skew_ms) < 0))
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
    vmm_row_live(row);
    row->agent = STORE_AGENT_RESPONSIVE; /* it has just said hello */
    row->keep = &spawn->spec->keep;
    int result = store_vm_running(spawn->vmm->config.store, row, err);
    row->keep = NULL;
    if (result < 0)
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
