/* A raw HTTP client for tests. */
#include "tests/unit/api/http.h"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { WAIT_MS = 20000 };

int http_connect_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int http_connect_tcp(unsigned port)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool http_send(int fd, const char *text)
{
    size_t len = strlen(text);
    while (len > 0) {
        ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);
        if (sent < 0)
            return false;
        text += sent;
        len -= (size_t)sent;
    }
    return true;
}

/* Bytes read, 0 at the end of the connection, -1 when nothing comes. */
static ssize_t receive(int fd, void *out, size_t size)
{
    struct pollfd event = {.fd = fd, .events = POLLIN};
    if (poll(&event, 1, WAIT_MS) != 1)
        return -1;
    ssize_t got = recv(fd, out, size, 0);
    return got < 0 ? 0 : got; /* a reset is an end too */
}

static bool read_head(int fd, struct http_answer *answer)
{
    size_t len = 0;
    while (len + 1 < sizeof(answer->head)) {
        if (receive(fd, answer->head + len, 1) != 1)
            return false;
        answer->head[++len] = '\0';
        if (len >= 4 && strcmp(answer->head + len - 4, "\r\n\r\n") == 0)
            return sscanf(answer->head, "HTTP/1.1 %u", &answer->status) == 1;
    }
    return false;
}

struct http_answer http_read(int fd)
{
    struct http_answer answer = {0};
    char length[32];
    do {
        answer.status = 0;
        if (!read_head(fd, &answer))
            return (struct http_answer){0};
    } while (answer.status == 100);
    http_header(&answer, "Content-Length", length, sizeof(length));
    size_t wanted = length[0] != '\0' ? strtoul(length, NULL, 10) : 0;
    answer.body = calloc(1, wanted + 1);
    while (answer.body_len < wanted) {
        ssize_t got = receive(fd, answer.body + answer.body_len, wanted - answer.body_len);
        if (got <= 0)
            break;
        answer.body_len += (size_t)got;
    }
    return answer;
}

void http_release(struct http_answer *answer)
{
    free(answer->body);
    answer->body = NULL;
}

void http_header(const struct http_answer *answer, const char *name, char *out, size_t size)
{
    size_t len = strlen(name);
    out[0] = '\0';
    for (const char *line = strstr(answer->head, "\r\n"); line != NULL;
         line = strstr(line + 2, "\r\n"))
        if (strncasecmp(line + 2, name, len) == 0 && line[2 + len] == ':') {
            const char *value = line + 3 + len + strspn(line + 3 + len, " ");
            snprintf(out, size, "%.*s", (int)strcspn(value, "\r"), value);
            return;
        }
}

bool http_closed(int fd)
{
    char junk[4096];
    ssize_t got = 0;
    while ((got = receive(fd, junk, sizeof(junk))) > 0)
        continue;
    return got == 0;
}

struct http_answer http_ask(const char *path, const char *text)
{
    cleanup_close int fd = http_connect_unix(path);
    if (fd < 0 || !http_send(fd, text))
        return (struct http_answer){0};
    return http_read(fd);
}
