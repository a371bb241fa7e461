#include "guest/internal.h"
#include <linux/vm_sockets.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, HELLO_WAIT_MS = 10000, HELLO_PAUSE_US = 5000 };

int guest_vsock_listen(void)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = WIRE_PORT_SERVICE};
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&addr, sizeof addr) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

int guest_vsock_accept(int listener)
{
    struct sockaddr_vm peer = {0};
    socklen_t len = sizeof peer;
    int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0 || peer.svm_cid == VMADDR_CID_HOST)
        return fd;
    close(fd); /* a process of this guest: it has no business here */
    return -1;
}

int guest_vsock_hello(void)
{
    const struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = WIRE_PORT_HELLO};
    int64_t deadline = guest_mono_ms() + HELLO_WAIT_MS;
    do {
        int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (const struct sockaddr *)&addr, sizeof addr) == 0)
            return fd;
        if (fd >= 0)
            close(fd);
        usleep(HELLO_PAUSE_US);
    } while (guest_mono_ms() < deadline);
    return -1;
}
