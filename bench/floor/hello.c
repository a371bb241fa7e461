/* The guest's hello, and one connection to its agent. */
#include "bench/floor/floor.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static const uint8_t new_token[WIRE_TOKEN_SIZE] = {1}; /* of whoever is restored */

/* Firecracker connects to <vsock path>_<port> when its guest connects to the host. */
void floor_make_hello(struct floor_vm *vm)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[32];
    snprintf(name, sizeof(name), "v.sock_%d", WIRE_PORT_HELLO);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", vm->root, name);
    vm->hello = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bench_must(vm->hello >= 0 &&
                   bind(vm->hello, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
                   listen(vm->hello, SOMAXCONN) == 0 &&
                   fchownat(vm->root, name, vm->slot.uid, vm->slot.uid, 0) == 0,
               "the socket for the guest's hello");
}

static void receive(int fd, void *out, size_t len)
{
    bench_must(recv(fd, out, len, MSG_WAITALL) == (ssize_t)len, "the guest's hello");
}

/* Its words are not judged but for its instance, which tells that it is this VM's. */
static void take_hello(const struct floor_vm *vm, int fd)
{
    static const char answer[] =
        "\0\0\0\23J{\"id\":1,\"ok\":true}"; /* the length, then the frame */
    enum { ANSWER = WIRE_HEADER_SIZE + 19 };
    uint8_t header[WIRE_HEADER_SIZE];
    char text[4096];
    receive(fd, header, sizeof(header));
    size_t len = (size_t)header[2] << 8 | header[3];
    bench_must(header[0] == 0 && header[1] == 0 && len < sizeof(text), "a hello that long");
    receive(fd, text, len);
    text[len] = '\0';
    bench_must(strstr(text, vm->slot.instance) != NULL, "another guest's hello");
    bench_must(send(fd, answer, ANSWER, MSG_NOSIGNAL) == ANSWER, "answering a hello");
}

/* A session on a serial port of QEMU's begins with a mark, which comes back; what comes before it is
 * of an earlier one. */
static int open_port(const struct floor_vm *vm, int port,
                     const uint8_t token[static WIRE_TOKEN_SIZE])
{
    enum { MARK = WIRE_TOKEN_SIZE + WIRE_NONCE_SIZE };
    uint8_t mark[MARK], seen[MARK];
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/fd/%d/vm/port.%d", vm->root, port);
    memcpy(mark, token, WIRE_TOKEN_SIZE);
    bench_must(getrandom(mark + WIRE_TOKEN_SIZE, WIRE_NONCE_SIZE, 0) == WIRE_NONCE_SIZE, "a nonce");
    int fd = bench_connect(path);
    bench_must(send(fd, mark, MARK, MSG_NOSIGNAL) == MARK, "opening a session");
    receive(fd, seen, MARK);
    while (memcmp(seen, mark, MARK) != 0) {
        memmove(seen, seen + 1, MARK - 1);
        receive(fd, seen + MARK - 1, 1);
    }
    return fd;
}

void floor_hello(struct floor_vm *vm)
{
    struct pollfd fds[] = {{.fd = vm->hello, .events = POLLIN},
                           {.fd = vm->pidfd, .events = POLLIN}};
    bench_must(poll(fds, COUNT_OF(fds), 10000) > 0 && fds[1].revents == 0, "waiting for a hello");
    cleanup_close int fd = accept4(vm->hello, NULL, NULL, SOCK_CLOEXEC);
    bench_must(fd >= 0, "accepting a hello");
    take_hello(vm, fd);
}

/* -1: cut before it was answered, as may happen while a guest comes back. */
static int connect_agent(const struct floor_vm *vm)
{
    char path[48], ask[32], answer[32] = "";
    snprintf(path, sizeof(path), "/proc/self/fd/%d/v.sock", vm->root);
    cleanup_close int fd = bench_connect(path);
    int len = snprintf(ask, sizeof(ask), "CONNECT %d\n", WIRE_PORT_SERVICE);
    if (send(fd, ask, (size_t)len, MSG_NOSIGNAL) != len ||
        recv(fd, answer, sizeof(answer) - 1, 0) <= 3)
        return -1;
    bench_must(strncmp(answer, "OK ", 3) == 0, "connecting to the agent");
    return TAKE_FD(fd);
}

void floor_connect(const struct floor_vm *vm)
{
    cleanup_close int fd = connect_agent(vm);
    bench_must(fd >= 0, "connecting to the agent");
}

/* One frame there and one back; false when the connection was cut. */
static bool ask_agent(int fd, const char *request, char *answer, size_t size)
{
    char frame[2048];
    size_t len = strlen(request);
    uint8_t header[WIRE_HEADER_SIZE] = {0, 0, (uint8_t)(len >> 8), (uint8_t)len};
    bench_must(sizeof(header) + len < sizeof(frame), "a request that long");
    memcpy(frame, header, sizeof(header));
    memcpy(frame + sizeof(header), request, len);
    len += sizeof(header);
    if (send(fd, frame, len, MSG_NOSIGNAL) != (ssize_t)len ||
        recv(fd, header, sizeof(header), MSG_WAITALL) != sizeof(header))
        return false;
    len = (size_t)header[2] << 8 | header[3];
    bench_must(header[0] == 0 && header[1] == 0 && len < size, "an answer that long");
    answer[len] = '\0';
    return recv(fd, answer, len, MSG_WAITALL) == (ssize_t)len;
}

/* The same words for all: nobody judges here whether two guests differ. */
static bool restore(const struct floor_vm *vm, int fd)
{
    char request[1024], answer[1024] = "", token[2 * WIRE_TOKEN_SIZE + 1];
    hash_to_hex(new_token, WIRE_TOKEN_SIZE, token);
    snprintf(request, sizeof(request),
             "J{\"op\":\"restore\",\"instance\":\"%s\",\"generation\":1000,\"wall_ms\":%lld,"
             "\"uptime_ms\":1000,\"entropy\":\"%0128d\",\"hostname\":\"floor\","
             "\"machine_id\":\"%032d\",\"token\":\"%s\",\"id\":1}",
             vm->slot.instance, (long long)clock_wall_ms(), 1, 1, token);
    if (!ask_agent(fd, request, answer, sizeof(answer)))
        return false;
    bench_must(strstr(answer, "\"ok\":true") != NULL, answer);
    return true;
}

void floor_restore(const struct floor_vm *vm)
{
    enum { ATTEMPTS = 50 };
    bool answered = false;
    for (int i = 0; i < ATTEMPTS && !answered; i++) {
        cleanup_close int fd = connect_agent(vm);
        answered = fd >= 0 && restore(vm, fd);
    }
    bench_must(answered, "an agent that becomes another machine");
}

void floor_qemu_restore(const struct floor_vm *vm)
{
    cleanup_close int service = open_port(vm, 1, vm->floor->token);
    bench_must(restore(vm, service), "an agent that becomes another machine");
    cleanup_close int hello = open_port(vm, 0, new_token);
    take_hello(vm, hello);
}
