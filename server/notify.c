/* Readiness for the service manager: sd_notify's one datagram, without the library. */
#include "server/internal.h"

#include <errno.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

int server_notify(const char *text, struct error *err)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL)
        return 0;
    size_t len = strlen(path);
    if (len < 2 || len >= sizeof(address.sun_path) || (path[0] != '/' && path[0] != '@'))
        return error_set(err, ERR_CONFIG, 0, "NOTIFY_SOCKET is not a path: `%s`", path);
    memcpy(address.sun_path, path, len);
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    cleanup_close int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    size_t text_len = strlen(text);
    if (fd < 0 || sendto(fd, text, text_len, MSG_NOSIGNAL, (const struct sockaddr *)&address,
                         size) != (ssize_t)text_len)
        return error_set(err, ERR_SYSTEM, errno, "cannot tell the service manager");
    return 0;
}
