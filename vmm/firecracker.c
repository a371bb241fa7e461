/* Firecracker on KVM: configured over its API, spoken to over hybrid vsock. File names are those of
 * the jail that the root half made. */
#include "vmm/internal.h"

#include <signal.h>

/* Console on, so that a VM's last words are there; the VMM's output is a bounded pipe. i8042
 * probing off saves boot time; reboot=k makes a guest's reboot end the VMM. */
static const char linux_args[] = "console=ttyS0 reboot=k panic=-1 pci=off quiet loglevel=1 "
                                 "i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd";

/* Takes body. One that lacks a field for want of memory must not be sent: a default would hold. */
static int put(struct vmm_firecracker_api *api, const char *path, cJSON *body, bool whole,
               struct error *err)
{
    if (!whole) {
        cJSON_Delete(body);
        body = NULL;
    }
    return vmm_firecracker_api_put(api, path, body, err);
}

/* A snapshot then has what was written since the boot, in milliseconds, and not all of the memory. Not
 * where 1.12 is known to lose pages of it (#5705). */
static bool follows_writes(uint32_t memory_mib)
{
    enum { SAFE_MIB = 3072 };
    return memory_mib <= SAFE_MIB;
}

static int put_machine(struct vmm_firecracker_api *api, const struct vmm_spec *spec,
                       struct error *err)
{
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_number(body, "vcpu_count", spec->vcpus) == 0 &&
                 json_add_number(body, "mem_size_mib", spec->memory_mib) == 0 &&
                 json_add_bool(body, "smt", false) == 0 &&
                 json_add_bool(body, "track_dirty_pages", follows_writes(spec->memory_mib)) == 0;
    return put(api, "/machine-config", body, whole, err);
}

static int put_boot(struct vmm_firecracker_api *api, const char *instance,
                    const struct vmm_spec *spec, struct error *err)
{
    enum { ARGS_MAX = 1536 }; /* Firecracker appends its own; 2047 in all is where it fails */
    char args[ARGS_MAX];
    int len = snprintf(args, sizeof(args), "%s %s motte.instance=%s", linux_args,
                       spec->kernel.boot_args, instance);
    if (len >= ARGS_MAX)
        return error_set(err, ERR_HYPERVISOR, 0, "kernel %s: boot_args are too long",
                         spec->kernel.name);
    cJSON *body = cJSON_CreateObject();
    bool whole =
        json_add_string(body, "kernel_image_path", "/kernel") == 0 &&
        (!spec->kernel.has_initrd || json_add_string(body, "initrd_path", "/initrd") == 0) &&
        json_add_string(body, "boot_args", args) == 0;
    return put(api, "/boot-source", body, whole, err);
}

static int put_drive(struct vmm_firecracker_api *api, const char *name, const char *path,
                     bool read_only, struct error *err)
{
    char url[32];
    snprintf(url, sizeof(url), "/drives/%s", name);
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_string(body, "drive_id", name) == 0 &&
                 json_add_string(body, "path_on_host", path) == 0 &&
                 json_add_bool(body, "is_root_device", false) == 0 && /* the initramfs mounts it */
                 json_add_bool(body, "is_read_only", read_only) == 0;
    return put(api, url, body, whole, err);
}

static int put_vsock(struct vmm_firecracker_api *api, struct error *err)
{
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_number(body, "guest_cid", WIRE_GUEST_CID) == 0 &&
                 json_add_string(body, "uds_path", "/v.sock") == 0;
    return put(api, "/vsock", body, whole, err);
}

static int configure(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                     struct error *err)
{
    machine->api = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_API, 0, err);
    if (machine->api < 0)
        return -1;
    struct vmm_firecracker_api *api = machine->firecracker =
        vmm_firecracker_api_new(machine->api, err);
    if (api == NULL || put_machine(api, spec, err) < 0 ||
        put_boot(api, machine->instance, spec, err) < 0 ||
        put_drive(api, "disk", "/disk", true, err) < 0)
        return -1;
    if (spec->disk_mib > 0 && put_drive(api, "scratch", "/scratch", false, err) < 0)
        return -1;
    if (put_vsock(api, err) < 0 ||
        vmm_firecracker_api_put(api, "/entropy", cJSON_CreateObject(), err) < 0)
        return -1;
    machine->vsock = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_VSOCK, 0, err);
    return machine->vsock < 0 ? -1 : 0;
}

static int ask(struct vmm_machine *machine, const char *verb, const char *path, cJSON *body,
               bool whole, int timeout_ms, struct error *err)
{
    if (!whole) {
        cJSON_Delete(body);
        body = NULL;
    }
    return vmm_firecracker_api_ask(machine->api, verb, path, body, timeout_ms, err);
}

static int set_state(struct vmm_machine *machine, const char *state, int timeout_ms,
                     struct error *err)
{
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_string(body, "state", state) == 0;
    return ask(machine, "PATCH", "/vm", body, whole, timeout_ms, err);
}

static int pause_guest(struct vmm_machine *machine, int timeout_ms, struct error *err)
{
    return set_state(machine, "Paused", timeout_ms, err);
}

static int resume(struct vmm_machine *machine, int timeout_ms, struct error *err)
{
    return set_state(machine, "Resumed", timeout_ms, err);
}

/* The processors stand until resume. Whatever does not fit ends the VMM. It answers before their
 * threads have their filters; pausing what stands waits for them. */
static int load(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                struct error *err)
{
    machine->api = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_API, 0, err);
    if (machine->api < 0)
        return -1;
    cJSON *body = cJSON_CreateObject(), *memory = cJSON_CreateObject();
    bool whole = json_add_string(memory, "backend_type", "File") == 0 &&
                 json_add_string(memory, "backend_path", PRIV_RESTORE_MEMORY) == 0;
    whole = json_add(body, "mem_backend", memory) == 0 && whole &&
            json_add_string(body, "snapshot_path", PRIV_RESTORE_STATE) == 0 &&
            json_add_bool(body, "enable_diff_snapshots", follows_writes(spec->memory_mib)) == 0 &&
            json_add_bool(body, "resume_vm", false) == 0;
    if (ask(machine, "PUT", "/snapshot/load", body, whole, VMM_API_TIMEOUT_MS, err) < 0 ||
        pause_guest(machine, VMM_API_TIMEOUT_MS, err) < 0)
        return -1;
    machine->vsock = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_VSOCK, 0, err);
    return machine->vsock < 0 ? -1 : 0;
}

static int restore(struct vmm_machine *machine, const struct vsock_restore_request *request,
                   int64_t deadline_ms, struct vsock_restored *ret, struct error *err)
{
    return vsock_restore_hybrid(machine->vsock, request, machine->gone, deadline_ms, ret, err);
}

/* With each snapshot, also one that we make nothing of, it forgets what was written before. */
static int snapshot(struct vmm *vmm, struct vmm_machine *machine, uint32_t memory_mib,
                    int timeout_ms, struct error *err)
{
    (void)vmm;
    const char *type = follows_writes(memory_mib) && !machine->saved ? "Diff" : "Full";
    machine->saved = true;
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_string(body, "snapshot_type", type) == 0 &&
                 json_add_string(body, "snapshot_path", PRIV_PLACE_STATE) == 0 &&
                 json_add_string(body, "mem_file_path", PRIV_PLACE_MEMORY) == 0;
    return ask(machine, "PUT", "/snapshot/create", body, whole, timeout_ms, err);
}

/* The API connection is closed at once: Firecracker takes ten and counts idle ones. */
static int start(struct vmm_machine *machine, struct error *err)
{
    cJSON *body = cJSON_CreateObject();
    bool whole = json_add_string(body, "action_type", "InstanceStart") == 0;
    int result = put(machine->firecracker, "/actions", body, whole, err);
    vmm_firecracker_api_free(TAKE_PTR(machine->firecracker));
    return result;
}

static int hello(struct vmm_machine *machine, int64_t deadline_ms, struct vsock_hello *ret,
                 struct error *err)
{
    struct vsock_conn *conn = NULL;
    if (vsock_accept(machine->hello, machine->gone, deadline_ms, &conn, err) < 0)
        return -1;
    int result = vsock_hello_accept(conn, machine->instance, deadline_ms, ret, err);
    vsock_conn_free(conn);
    return result;
}

static int reopen(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    machine->api = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_API, 0, err);
    if (machine->api < 0)
        return -1;
    machine->vsock = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_VSOCK, 0, err);
    return machine->vsock < 0 ? -1 : 0;
}

static int alive(struct vmm_machine *machine, int timeout_ms, bool *ret_paused, struct error *err)
{
    return vmm_firecracker_api_alive(machine->api, machine->instance, timeout_ms, ret_paused, err);
}

static int service(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms,
                   struct vsock_conn **ret, unsigned *ret_port, struct error *err)
{
    (void)vmm;
    *ret_port = 0;
    return vsock_connect(machine->vsock, WIRE_PORT_SERVICE, machine->gone, deadline_ms, ret, err);
}

static void disconnect(struct vmm *vmm, struct vmm_machine *machine, struct vsock_conn *conn,
                       unsigned port)
{
    (void)vmm, (void)machine, (void)port;
    vsock_conn_free(conn);
}

/* Its source: src/vmm/src/lib.rs, FcExitCode; the handlers of these signals exit with them. */
static int exit_signal(int code)
{
    static const struct {
        int code, signal;
    } table[] = {{149, SIGBUS},  {150, SIGSEGV}, {151, SIGXFSZ}, {154, SIGXCPU},
                 {155, SIGPIPE}, {156, SIGHUP},  {157, SIGILL}};
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (table[i].code == code)
            return table[i].signal;
    return 0;
}

/* On x86_64 a guest can end it by a reset only: there is nothing to switch off. */
static enum vmm_word word(char *log, const char *instance)
{
    static const struct {
        const char *words;
        enum vmm_word word;
    } table[] = {{"Firecracker exiting successfully", VMM_WORD_RESET},
                 {"Firecracker exiting with error", VMM_WORD_ERROR},
                 {"Shutting down VM after intercepting signal", VMM_WORD_SIGNAL}};
    enum vmm_word last = VMM_WORD_NONE;
    char thread[VMM_THREAD_SIZE];
    for (const char *line; (line = strsep(&log, "\n")) != NULL;) {
        const char *message = vmm_log_message(line, instance, thread);
        for (size_t i = 0; message != NULL && i < COUNT_OF(table); i++)
            if (strncmp(message, table[i].words, strlen(table[i].words)) == 0)
                last = table[i].word;
    }
    return last;
}

const struct vmm_hypervisor vmm_firecracker = {
    .name = "firecracker",
    .has_log = true,
    .seccomp_exit = 148, /* its source: src/vmm/src/lib.rs, FcExitCode::BadSyscall */
    .exit_signal = exit_signal,
    .word = word,
    .configure = configure,
    .start = start,
    .hello = hello,
    .load = load,
    .restore = restore,
    .snapshot = snapshot,
    .reopen = reopen,
    .alive = alive,
    .pause = pause_guest,
    .resume = resume,
    .connect = service,
    .disconnect = disconnect,
};
