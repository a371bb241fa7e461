/* QEMU's microvm machine under software emulation: everything is on its command line, which the
 * root half makes; the channel is a set of virtio-serial ports, one session each at a time. */
#include "vmm/internal.h"

#include <time.h>

enum { HELLO_LOOK_MS = 5000 };

static int open_ports(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    for (uint32_t i = 0; i < COUNT_OF(machine->ports); i++) {
        machine->ports[i] =
            priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_PORT, i, err);
        if (machine->ports[i] < 0)
            return -1;
    }
    return 0;
}

/* A monitor of its own for them, because each serves one connection at a time. */
static int listen_to_events(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    cleanup_close int socket_fd =
        priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_EVENTS, 0, err);
    int events = socket_fd < 0 ? -1 : vmm_qmp_listen(socket_fd, err);
    return events < 0 ? -1 : vmm_machine_listen(vmm, machine, events, err);
}

static int configure(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                     struct error *err)
{
    (void)spec;
    machine->api = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_API, 0, err);
    return machine->api < 0 || listen_to_events(vmm, machine, err) < 0
               ? -1
               : open_ports(vmm, machine, err);
}

static int load(struct vmm *vmm, struct vmm_machine *machine, const struct vmm_spec *spec,
                struct error *err)
{
    return configure(vmm, machine, spec, err) < 0
               ? -1
               : vmm_qmp_load(machine->api, machine->gone, machine->apart, vmm->snapshot_timeout_ms,
                              err);
}

/* Port 0 is for the hello that follows. */
static int restore(struct vmm_machine *machine, const struct vsock_restore_request *request,
                   int64_t deadline_ms, struct vsock_restored *ret, struct error *err)
{
    struct vsock_conn *conn = NULL;
    if (vsock_serial_open(machine->ports[1], machine->snapshot_token, machine->gone, deadline_ms,
                          &conn, err) < 0)
        return -1;
    int result = vsock_restore(conn, request, deadline_ms, ret, err);
    vsock_conn_free(conn);
    return result;
}

static int snapshot(struct vmm *vmm, struct vmm_machine *machine, uint32_t memory_mib,
                    int timeout_ms, struct error *err)
{
    const bool apart = machine->apart && machine->generation == 0;
    (void)memory_mib;
    cleanup_close int file =
        priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_STAGED, 0, err);
    return file < 0 ? -1 : vmm_qmp_save(machine->api, file, apart, timeout_ms, err);
}

static int start(struct vmm_machine *machine, struct error *err)
{
    return vmm_qmp_command(machine->api, "cont", VMM_API_TIMEOUT_MS, err);
}

static int hello_once(struct vmm_machine *machine, int64_t deadline_ms, struct vsock_hello *ret,
                      struct error *err)
{
    struct vsock_conn *conn = NULL;
    if (vsock_serial_open(machine->ports[0], machine->token, machine->gone, deadline_ms, &conn,
                          err) < 0)
        return -1;
    int result = vsock_hello_accept(conn, machine->instance, deadline_ms, ret, err);
    vsock_conn_free(conn);
    return result;
}

/* Linux that is not run for 100 ms at one moment of its boot loses its clock, and its agent never
 * says hello (decision 0032): looked for now and then, and reset. Whether that could be done does
 * not matter: the rest of the time is waited for in any case. */
static int hello(struct vmm_machine *machine, int64_t deadline_ms, struct vsock_hello *ret,
                 struct error *err)
{
    for (;;) {
        struct error late = {0}, unseen = {0};
        int64_t look_ms = clock_mono_ms() + HELLO_LOOK_MS;
        if (look_ms >= deadline_ms || machine->generation > 0) /* that one does not boot */
            return hello_once(machine, deadline_ms, ret, err);
        if (hello_once(machine, look_ms, ret, &late) == 0)
            return 0;
        if (late.code != ERR_GUEST_TIMEOUT) {
            *err = late;
            return -1;
        }
        (void)vmm_qmp_reset_if_halted(machine->api, deadline_ms, &unseen);
    }
}

static int reopen(struct vmm *vmm, struct vmm_machine *machine, struct error *err)
{
    struct error ignored = {0}; /* what it says tells how it ended, no more */
    machine->api = priv_open(vmm->config.priv, machine->instance, PRIV_SOCKET_API, 0, err);
    if (machine->api < 0)
        return -1;
    (void)listen_to_events(vmm, machine, &ignored);
    return open_ports(vmm, machine, err);
}

static int alive(struct vmm_machine *machine, int timeout_ms, bool *ret_paused, struct error *err)
{
    return vmm_qmp_alive(machine->api, timeout_ms, ret_paused, err);
}

static int pause_guest(struct vmm_machine *machine, int timeout_ms, struct error *err)
{
    return vmm_qmp_command(machine->api, "stop", timeout_ms, err);
}

static int resume(struct vmm_machine *machine, int timeout_ms, struct error *err)
{
    return vmm_qmp_resume(machine->api, timeout_ms, err);
}

/* What an event says: SHUTDOWN's reason is of the list in QEMU's qapi/run-state.json. */
static enum vmm_word event_word(const cJSON *event)
{
    static const struct {
        const char *reason;
        enum vmm_word word;
    } table[] = {{"guest-shutdown", VMM_WORD_OFF},
                 {"guest-reset", VMM_WORD_RESET},
                 {"host-error", VMM_WORD_ERROR},
                 {"host-signal", VMM_WORD_TOLD},
                 {"host-qmp-quit", VMM_WORD_TOLD}};
    const char *name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(event, "event"));
    const cJSON *data = cJSON_GetObjectItemCaseSensitive(event, "data");
    const char *reason = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(data, "reason"));
    if (name == NULL || reason == NULL || strcmp(name, "SHUTDOWN") != 0)
        return VMM_WORD_NONE;
    for (size_t i = 0; i < COUNT_OF(table); i++)
        if (strcmp(table[i].reason, reason) == 0)
            return table[i].word;
    return VMM_WORD_NONE;
}

static enum vmm_word word(char *log, const char *instance)
{
    enum vmm_word last = VMM_WORD_NONE;
    (void)instance; /* the connection is this VM's */
    for (const char *line; (line = strsep(&log, "\r\n")) != NULL;) {
        cleanup_json cJSON *event = NULL;
        struct error ignored = {0}; /* the first may be cut off at its beginning */
        enum vmm_word here = VMM_WORD_NONE;
        if (line[0] == '{' && json_parse(line, strlen(line), &event, &ignored) == 0)
            here = event_word(event);
        if (here != VMM_WORD_NONE)
            last = here;
    }
    return last;
}

/* A free port other than 0, waited for until the deadline; 0 if there was none. */
static unsigned take_port(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms)
{
    struct timespec until = {.tv_sec = deadline_ms / 1000, .tv_nsec = deadline_ms % 1000 * 1000000};
    unsigned port = 0;
    pthread_mutex_lock(&vmm->lock);
    for (int timed_out = 0; port == 0 && !timed_out;) {
        for (unsigned i = 1; i < WIRE_SERIAL_PORTS && port == 0; i++)
            if (!(machine->ports_busy & 1u << i))
                port = i;
        if (port == 0)
            timed_out = pthread_cond_timedwait(&vmm->changed, &vmm->lock, &until);
    }
    machine->ports_busy |= port == 0 ? 0 : 1u << port;
    pthread_mutex_unlock(&vmm->lock);
    return port;
}

static void disconnect(struct vmm *vmm, struct vmm_machine *machine, struct vsock_conn *conn,
                       unsigned port)
{
    vsock_conn_free(conn);
    pthread_mutex_lock(&vmm->lock);
    machine->ports_busy &= ~(1u << port);
    pthread_cond_broadcast(&vmm->changed);
    pthread_mutex_unlock(&vmm->lock);
}

static int service(struct vmm *vmm, struct vmm_machine *machine, int64_t deadline_ms,
                   struct vsock_conn **ret, unsigned *ret_port, struct error *err)
{
    unsigned port = take_port(vmm, machine, deadline_ms);
    if (port == 0)
        return error_set(err, ERR_BUSY, 0,
                         "all %d channels of this emulated VM are in use; try again later",
                         WIRE_SERIAL_PORTS - 1);
    if (vsock_serial_open(machine->ports[port], machine->token, machine->gone, deadline_ms, ret,
                          err) < 0) {
        disconnect(vmm, machine, NULL, port);
        return -1;
    }
    *ret_port = port;
    return 0;
}

const struct vmm_hypervisor vmm_qemu = {
    .name = "qemu",
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
