/* HTTP as far as a benchmark needs it: both sides are known. */
#include "bench/common/bench.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>

int bench_connect(const char *path)
{
    const struct timespec nap = {.tv_nsec = 50000};
    const struct timeval patience = {.tv_sec = 30};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    double deadline = bench_now_ns() + 5e9;
    bench_must(strlen(path) < sizeof(address.sun_path), path);
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bench_must(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0,
               "a socket");
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        bench_must((errno == ECONNREFUSED || errno == ENOENT) && bench_now_ns() < deadline, path);
        nanosleep(&nap, NULL);
    }
    return fd;
}

void bench_http_open(struct bench_http *http, const char *path)
{
    http->fd = bench_connect(path);
    http->len = 0;
}

static void send_request(const struct bench_http *http, const char *method, const char *target,
                         const char *body)
{
    char text[4096];
    size_t body_len = body == NULL ? 0 : strlen(body);
    int len = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: motte\r\n", method, target);
    if (body != NULL)
        len += snprintf(text + len, sizeof(text) - (size_t)len,
                        "Content-Type: application/json\r\nContent-Length: %zu\r\n", body_len);
    len += snprintf(text + len, sizeof(text) - (size_t)len, "\r\n%s", body == NULL ? "" : body);
    bench_must(len < (int)sizeof(text), "a request that long");
    bench_must(send(http->fd, text, (size_t)len, MSG_NOSIGNAL) == len, "sending a request");
}

/* The end of the headers is there: how long is all of it? */
static size_t whole(const struct bench_http *http, const char *end_of_headers)
{
    size_t headers = (size_t)(end_of_headers - http->text) + 4;
    const char *length = strcasestr(http->text, "\r\nContent-Length:");
    if (length == NULL || length > end_of_headers)
        return headers;
    return headers + strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
}

int bench_http_call(struct bench_http *http, const char *method, const char *target,
                    const char *body)
{
    size_t wanted = SIZE_MAX;
    send_request(http, method, target, body);
    http->len = 0;
    while (http->len < wanted) {
        ssize_t n = recv(http->fd, http->text + http->len, sizeof(http->text) - 1 - http->len, 0);
        bench_must(n > 0, "an answer");
        http->len += (size_t)n;
        http->text[http->len] = '\0';
        const char *end = strstr(http->text, "\r\n\r\n");
        if (end != NULL && wanted == SIZE_MAX)
            wanted = whole(http, end);
    }
    return atoi(http->text + strlen("HTTP/1.1 "));
}
