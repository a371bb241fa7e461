/* A Unix socket as a VMM has it, for tests of what connects to one. */
#ifndef MOTTE_TESTS_VSOCK_SERVER_H
#define MOTTE_TESTS_VSOCK_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/* A server on a Unix socket of its own: `serve` gets each connection in turn and its number. */
struct server {
    char dir[64], path[96];
    int listener, uds; /* uds: O_PATH, as the root half hands it out */
    void (*serve)(int fd, int number);
    pthread_t thread;
};

/* Without `serve` nobody listens. */
void server_start(struct server *server, void (*serve)(int fd, int number));
void server_stop(struct server *server);
/* As Firecracker reads it: the first segment must hold ten bytes, then up to the line's end. */
bool server_read_connect(int fd, uint32_t *ret_port);

#endif
