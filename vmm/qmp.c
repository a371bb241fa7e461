/* One command on QEMU's monitor protocol: JSON lines, a greeting, capabilities, then the command.
 * (QEMU docs/interop/qmp-spec.) The peer is a confined but untrusted process: bounded, with a
 * deadline. */
#include "vmm/internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { LINE_MAX_BYTES = 16384 };

struct qmp {
    int fd;
    int64_t deadline_ms;
    size_t len;
    char line[LINE_MAX_BYTES];
};

/* The next line as JSON. */
static int qmp_read(struct qmp *qmp, cJSON **ret, struct error *err)
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
        struct pollfd p = {.fd = qmp->fd, .events = POLLIN};
        int left = clock_left_ms(qmp->deadline_ms); /* events without end do not get past it */
        if (qmp->len == sizeof(qmp->line) || left == 0 || poll(&p, 1, left) <= 0)
            return error_set(err, ERR_HYPERVISOR, 0, "QEMU's monitor does not answer");
        ssize_t n = read(qmp->fd, qmp->line + qmp->len, sizeof(qmp->line) - qmp->len);
        if (n <= 0)
            return error_set(err, ERR_HYPERVISOR, n < 0 ? errno : 0, "QEMU's monitor went away");
        qmp->len += (size_t)n;
    }
}

static int qmp_execute(struct qmp *qmp, const char *command, struct error *err)
{
    cleanup_json cJSON *request = cJSON_CreateObject();
    json_add_string(request, "execute", command);
    cleanup_free char *text = json_print(request);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for QEMU's monitor");
    size_t len = strlen(text);
    text[len] = '\n'; /* in the place of the NUL */
    if (send(qmp->fd, text, len + 1, MSG_NOSIGNAL) != (ssize_t)len + 1)
        return error_set(err, ERR_HYPERVISOR, errno, "writing to QEMU's monitor");
    for (;;) {
        cleanup_json cJSON *reply = NULL;
        if (qmp_read(qmp, &reply, err) < 0)
            return -1;
        if (cJSON_GetObjectItemCaseSensitive(reply, "return") != NULL)
            return 0;
        if (cJSON_GetObjectItemCaseSensitive(reply, "error") != NULL)
            return error_set(err, ERR_HYPERVISOR, 0, "QEMU refused the command %s", command);
    }
}

int vmm_qmp_talk(int fd, const char *command, struct error *err)
{
    cleanup_free struct qmp *qmp = calloc(1, sizeof(*qmp));
    if (qmp == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for QEMU's monitor");
    qmp->fd = fd;
    qmp->deadline_ms = clock_mono_ms() + VMM_API_TIMEOUT_MS;
    cleanup_json cJSON *greeting = NULL;
    if (qmp_read(qmp, &greeting, err) < 0 || qmp_execute(qmp, "qmp_capabilities", err) < 0)
        return -1;
    return qmp_execute(qmp, command, err);
}

int vmm_qmp_command(int socket_fd, const char *command, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", socket_fd);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "connecting to QEMU's monitor");
    return vmm_qmp_talk(fd, command, err);
}
