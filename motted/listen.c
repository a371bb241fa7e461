/* The front's listeners: bound here, where root may, and handed down. A Unix socket is root's and
 * the front's group's; TCP without TLS is loopback only, and never without tokens. */
#include "motted/internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { BACKLOG = 1024 };

static int high(int fd, const char *where, struct error *err)
{
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, MOTTED_FD_MIN);
    return moved >= 0 ? moved : error_set(err, ERR_CONFIG, errno, "listening on %s", where);
}

static bool answered(const struct sockaddr_un *address)
{
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ||
           errno != ECONNREFUSED;
}

/* A socket nobody answers on is of a daemon that is gone. A front whose root half was killed a
 * moment ago still holds its own: wait for its end. */
static int remove_stale(const struct sockaddr_un *address, struct error *err)
{
    enum { PATIENCE_MS = 3000, PAUSE_MS = 20 };
    struct stat st;
    if (lstat(address->sun_path, &st) < 0)
        return 0;
    if (!S_ISSOCK(st.st_mode))
        return error_set(err, ERR_CONFIG, 0, "%s is there and is not a socket", address->sun_path);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (answered(address)) {
        if (clock_left_ms(deadline) == 0)
            return error_set(err, ERR_CONFIG, 0, "somebody else listens on %s", address->sun_path);
        poll(NULL, 0, PAUSE_MS);
    }
    if (unlink(address->sun_path) < 0)
        return error_set(err, ERR_CONFIG, errno, "removing the old socket %s", address->sun_path);
    return 0;
}

static int listen_unix(const char *path, gid_t gid, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path[0] != '/' || strlen(path) >= sizeof(address.sun_path))
        return error_set(err, ERR_CONFIG, 0,
                         "`%.120s` is no absolute path of at most %zu "
                         "characters for a socket",
                         path, sizeof(address.sun_path) - 1);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (remove_stale(&address, err) < 0)
        return -1;
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0777); /* nobody connects before owner and mode are right */
    int result = fd < 0 ? -1 : bind(fd, (const struct sockaddr *)&address, sizeof(address));
    umask(mask);
    if (result < 0 || chown(path, 0, gid) < 0 || chmod(path, 0660) < 0 || listen(fd, BACKLOG) < 0)
        return error_set(err, ERR_CONFIG, errno, "listening on %s", path);
    return high(fd, path, err);
}

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

/* Any other would show tokens, and what guests are told, to the network. */
static bool is_loopback(const union address *address)
{
    return address->any.sa_family == AF_INET6 ? IN6_IS_ADDR_LOOPBACK(&address->v6.sin6_addr) != 0
                                              : (ntohl(address->v4.sin_addr.s_addr) >> 24) == 127;
}

/* "127.0.0.1:8080" or "[::1]:8080". */
static int parse_address(const char *text, union address *ret, socklen_t *ret_len,
                         struct error *err)
{
    char host[64];
    uint64_t port = 0;
    const char *colon = strrchr(text, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - text);
    bool v6 = len > 2 && text[0] == '[' && text[len - 1] == ']';
    if (len == 0 || len >= sizeof(host))
        return error_set(err, ERR_CONFIG, 0, "`%.60s` is not ADDRESS:PORT", text);
    snprintf(host, sizeof(host), "%.*s", (int)(v6 ? len - 2 : len), text + (v6 ? 1 : 0));
    if (kv_number("port", colon + 1, 0, 65535, &port, err) < 0)
        return -1;
    memset(ret, 0, sizeof(*ret));
    if (v6 ? inet_pton(AF_INET6, host, &ret->v6.sin6_addr) != 1
           : inet_pton(AF_INET, host, &ret->v4.sin_addr) != 1)
        return error_set(err, ERR_CONFIG, 0, "`%.60s` is not a numeric address", host);
    ret->any.sa_family = v6 ? AF_INET6 : AF_INET;
    ret->v4.sin_port = htons((uint16_t)port); /* the same place in both */
    *ret_len = v6 ? sizeof(ret->v6) : sizeof(ret->v4);
    return 0;
}

static int listen_tcp(const char *text, bool encrypted, struct error *err)
{
    union address address = {.v6 = {0}};
    socklen_t len = 0;
    int on = 1;
    if (parse_address(text, &address, &len, err) < 0)
        return -1;
    if (!encrypted && !is_loopback(&address))
        return error_set(err, ERR_CONFIG, 0,
                         "tcp:%.60s: without TLS it is for 127.0.0.1 and [::1] only; use "
                         "tls:%.60s with tls-certificate and tls-key",
                         text, text);
    cleanup_close int fd = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
        bind(fd, &address.any, len) < 0 || listen(fd, BACKLOG) < 0)
        return error_set(err, ERR_CONFIG, errno, "listening on %s", text);
    return high(fd, text, err);
}

static int listen_on(const char *where, gid_t gid, const char **ret_kind, struct error *err)
{
    static const char *const kinds[] = {"unix", "tcp", "tls"};
    const char *colon = strchr(where, ':');
    size_t len = colon == NULL ? 0 : (size_t)(colon - where);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        if (len != strlen(kinds[i]) || strncmp(where, kinds[i], len) != 0)
            continue;
        *ret_kind = kinds[i];
        return i == 0 ? listen_unix(colon + 1, gid, err) : listen_tcp(colon + 1, i == 2, err);
    }
    return error_set(err, ERR_CONFIG, 0,
                     "`%.60s` is no place to listen on: use unix:/PATH, tcp:ADDRESS:PORT or "
                     "tls:ADDRESS:PORT",
                     where);
}

static bool starts_with(const char *text, const char *start)
{
    return strncmp(text, start, strlen(start)) == 0;
}

int motted_listen_check(const struct motted_config *config, struct error *err)
{
    bool certificate = config->tls_certificate[0] != '\0', key = config->tls_key[0] != '\0';
    if (certificate != key)
        return error_set(err, ERR_CONFIG, 0, "tls-certificate and tls-key need each other");
    if (starts_with(config->metrics_listen, "tls:"))
        return error_set(err, ERR_CONFIG, 0, "metrics-listen is unix: or tcp: on the loopback");
    for (size_t i = 0; i < config->listen_count; i++) {
        const char *where = config->listen[i];
        if (!starts_with(where, "unix:") && config->token_file[0] == '\0')
            return error_set(err, ERR_CONFIG, 0,
                             "%s: over TCP callers are known by their tokens; give --token-file",
                             where);
        if (starts_with(where, "tls:") && !key)
            return error_set(err, ERR_CONFIG, 0, "%s: give --tls-certificate and --tls-key", where);
    }
    return 0;
}

int motted_listen_all(const struct motted_config *config, struct motted_front *front,
                      struct error *err)
{
    if (motted_listen_check(config, err) < 0)
        return -1;
    for (size_t i = 0; i < config->listen_count; i++) {
        int fd = listen_on(config->listen[i], front->gid, &front->kinds[i], err);
        if (fd < 0)
            return -1;
        front->listeners[front->listener_count++] = fd;
    }
    if (config->metrics_listen[0] == '\0')
        return 0;
    const char *kind = NULL;
    front->metrics = listen_on(config->metrics_listen, front->gid, &kind, err);
    return front->metrics < 0 ? -1 : 0;
}
