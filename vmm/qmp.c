/* Commands on QEMU's monitor protocol: JSON lines, a greeting, capabilities, then the commands.
 * (QEMU docs/interop/qmp-spec.) The peer is a confined but untrusted process: bounded, with a
 * deadline. */
#include "vmm/qmp_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum {
    HALTED_SAMPLES = 10,
    HALTED_PAUSE_MS = 100,
};

/* The next line as JSON. */
int vmm_qmp_read(struct qmp *qmp, cJSON **ret, struct error *err)
{
    for (;;) {
        char *end = memchr(qmp->line, '\n', qmp->len);
        if (end != NULL) {
            size_t len = (size_t)(end - qmp->line), used = len + 1;
            int result =
                json_parse(qmp->line, len > 0 && end[-1] == '\r' ? len - 1 : len, ret, err);
            memmove(qmp->line, qmp->line + used, qmp->len - used);
            qmp->len -= used;
            return result;
        }
        struct pollfd fds[] = {{.fd = qmp->fd, .events = POLLIN},
                               {.fd = qmp->gone, .events = POLLIN}};
        int left = clock_left_ms(qmp->deadline_ms); /* events without end do not get past it */
        if (qmp->len == sizeof(qmp->line))
            return error_set(err, ERR_HYPERVISOR, 0, "QEMU's monitor answers without end");
        if (left == 0 || poll(fds, COUNT_OF(fds), left) <= 0)
            return error_set(err, ERR_HYPERVISOR_TIMEOUT, 0, "QEMU's monitor does not answer");
        if (fds[0].revents == 0)
            return error_set(err, ERR_CANCELLED, 0, "the VM was ended while QEMU was at work");
        ssize_t n = read(qmp->fd, qmp->line + qmp->len, sizeof(qmp->line) - qmp->len);
        if (n <= 0)
            return error_set(err, ERR_HYPERVISOR, n < 0 ? errno : 0, "QEMU's monitor went away");
        qmp->len += (size_t)n;
    }
}

/* One byte at least goes with the descriptor, so all of the command does. */
static int qmp_send(const struct qmp *qmp, char *text, size_t len, int fd, struct error *err)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = text, .iov_len = len};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    if (fd >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    if (sendmsg(qmp->fd, &message, MSG_NOSIGNAL) != (ssize_t)len)
        return error_set(err, ERR_HYPERVISOR, errno, "writing to QEMU's monitor");
    return 0;
}

/* `fd` or -1: goes with it. */
static int execute(struct qmp *qmp, const char *command, const char *arguments, int fd, cJSON **ret,
                   struct error *err)
{
    cleanup_json cJSON *request = cJSON_CreateObject();
    json_add_string(request, "execute", command);
    if (arguments != NULL)
        cJSON_AddRawToObject(request, "arguments", arguments);
    cleanup_free char *text = json_print(request);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for QEMU's monitor");
    size_t len = strlen(text);
    text[len] = '\n'; /* in the place of the NUL */
    if (qmp_send(qmp, text, len + 1, fd, err) < 0)
        return -1;
    for (;;) {
        cleanup_json cJSON *reply = NULL;
        if (vmm_qmp_read(qmp, &reply, err) < 0)
            return -1;
        vmm_qmp_hear(qmp, reply);
        cJSON *value = cJSON_DetachItemFromObjectCaseSensitive(reply, "return");
        if (value != NULL) {
            if (ret != NULL)
                *ret = value;
            else
                cJSON_Delete(value);
            return 0;
        }
        if (cJSON_GetObjectItemCaseSensitive(reply, "error") != NULL)
            return error_set(err, ERR_HYPERVISOR, 0, "QEMU refused the command %s", command);
    }
}

int vmm_qmp_execute(struct qmp *qmp, const char *command, const char *arguments, cJSON **ret,
                    struct error *err)
{
    return execute(qmp, command, arguments, -1, ret, err);
}

int vmm_qmp_lend(struct qmp *qmp, int fd, const char *name, struct error *err)
{
    char arguments[64];
    snprintf(arguments, sizeof(arguments), "{\"fdname\":\"%s\"}", name);
    return execute(qmp, "getfd", arguments, fd, NULL, err);
}

struct qmp *vmm_qmp_open(int fd, int64_t deadline_ms, struct error *err)
{
    cleanup_free struct qmp *qmp = calloc(1, sizeof(*qmp));
    if (qmp == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for QEMU's monitor");
        return NULL;
    }
    qmp->fd = fd;
    qmp->gone = -1;
    qmp->deadline_ms = deadline_ms;
    cleanup_json cJSON *greeting = NULL;
    if (vmm_qmp_read(qmp, &greeting, err) < 0 ||
        vmm_qmp_execute(qmp, "qmp_capabilities", NULL, NULL, err) < 0)
        return NULL;
    return TAKE_PTR(qmp);
}

int vmm_qmp_talk(int fd, const char *command, int timeout_ms, struct error *err)
{
    cleanup_free struct qmp *qmp = vmm_qmp_open(fd, clock_mono_ms() + timeout_ms, err);
    return qmp == NULL ? -1 : vmm_qmp_execute(qmp, command, NULL, NULL, err);
}

/* What does not run is paused, whatever stopped it. */
int vmm_qmp_status(int fd, int timeout_ms, bool *ret_paused, struct error *err)
{
    cleanup_json cJSON *status = NULL;
    cleanup_free struct qmp *qmp = vmm_qmp_open(fd, clock_mono_ms() + timeout_ms, err);
    if (qmp == NULL || vmm_qmp_execute(qmp, "query-status", NULL, &status, err) < 0)
        return -1;
    *ret_paused = cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(status, "running"));
    return 0;
}

/* Does every processor stand at a HLT? 1, 0, -1. */
static int halted_now(struct qmp *qmp, struct error *err)
{
    cleanup_json cJSON *registers = NULL;
    if (vmm_qmp_execute(qmp, "human-monitor-command", "{\"command-line\":\"info registers -a\"}",
                        &registers, err) < 0)
        return -1;
    const char *text = cJSON_GetStringValue(registers);
    return text != NULL && strstr(text, "HLT=1") != NULL && strstr(text, "HLT=0") == NULL;
}

/* A guest that boots halts for moments only. */
static int halted_for_long(struct qmp *qmp, struct error *err)
{
    for (int i = 0; i < HALTED_SAMPLES; i++) {
        int halted = halted_now(qmp, err);
        if (halted <= 0)
            return halted;
        poll(NULL, 0, HALTED_PAUSE_MS);
    }
    return 1;
}

/* QEMU runs with -no-reboot, which holds for our resets too unless lifted. */
static int reset(struct qmp *qmp, struct error *err)
{
    return vmm_qmp_execute(qmp, "set-action", "{\"reboot\":\"reset\"}", NULL, err) < 0 ||
                   vmm_qmp_execute(qmp, "system_reset", NULL, NULL, err) < 0 ||
                   vmm_qmp_execute(qmp, "set-action", "{\"reboot\":\"shutdown\"}", NULL, err) < 0
               ? -1
               : 0;
}

int vmm_qmp_connect(int socket_fd, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", socket_fd);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "connecting to QEMU's monitor");
    return TAKE_FD(fd);
}

int vmm_qmp_command(int socket_fd, const char *command, int timeout_ms, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    return fd < 0 ? -1 : vmm_qmp_talk(fd, command, timeout_ms, err);
}

int vmm_qmp_alive(int socket_fd, int timeout_ms, bool *ret_paused, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    return fd < 0 ? -1 : vmm_qmp_status(fd, timeout_ms, ret_paused, err);
}

/* Nothing is waited for: a QEMU that hangs must not hold up who only listens. */
int vmm_qmp_listen(int socket_fd, struct error *err)
{
    static const char begin[] = "{\"execute\":\"qmp_capabilities\"}\n";
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    if (fd < 0)
        return -1;
    if (send(fd, begin, strlen(begin), MSG_NOSIGNAL) != (ssize_t)strlen(begin))
        return error_set(err, ERR_HYPERVISOR, errno, "writing to QEMU's monitor");
    return TAKE_FD(fd);
}

int vmm_qmp_reset_if_halted(int socket_fd, int64_t deadline_ms, struct error *err)
{
    cleanup_close int fd = vmm_qmp_connect(socket_fd, err);
    if (fd < 0)
        return -1;
    cleanup_free struct qmp *qmp = vmm_qmp_open(fd, deadline_ms, err);
    if (qmp == NULL)
        return -1;
    int halted = halted_for_long(qmp, err);
    return halted <= 0 ? halted : reset(qmp, err);
}
