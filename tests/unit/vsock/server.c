#include "server.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void *serve_all(void *context)
{
    struct server *server = context;
    for (int number = 0;; number++) {
        int fd = accept(server->listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        server->serve(fd, number);
        close(fd);
    }
}

void server_start(struct server *server, void (*serve)(int fd, int number))
{
    *server = (struct server){.dir = "/tmp/vsock-test-XXXXXX", .serve = serve};
    cr_assert(mkdtemp(server->dir) != NULL);
    snprintf(server->path, sizeof server->path, "%s/s", server->dir);
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof addr.sun_path, "%s", server->path);
    server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(server->listener, (const struct sockaddr *)&addr, sizeof addr), 0);
    server->uds = open(server->path, O_PATH | O_CLOEXEC);
    cr_assert_geq(server->uds, 0);
    if (serve) {
        cr_assert_eq(listen(server->listener, 16), 0);
        pthread_create(&server->thread, NULL, serve_all, server);
    }
}

void server_stop(struct server *server)
{
    shutdown(server->listener, SHUT_RDWR);
    if (server->serve)
        pthread_join(server->thread, NULL);
    close(server->listener);
    close(server->uds);
    unlink(server->path);
    rmdir(server->dir);
}

bool server_read_connect(int fd, uint32_t *ret_port)
{
    char line[33] = "", *end = line;
    ssize_t got = recv(fd, line, 32, 0);
    if (got < 10 || strncmp(line, "CONNECT ", 8) != 0)
        return false;
    *ret_port = (uint32_t)strtoul(line + 8, &end, 10);
    return strcmp(end, "\n") == 0;
}
