/* See sniff.h. */
#include "sniff.h"

#include "bench.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sys/socket.h>

int sniff_open(void)
{
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    CHECK(fd >= 0);
    return fd;
}

bool sniff_sees(int fd, const void *bytes, size_t len, int timeout_ms)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    for (;;) {
        unsigned char packet[2048];
        struct sockaddr_ll from;
        socklen_t from_len = sizeof(from);
        ssize_t n = recvfrom(fd, packet, sizeof(packet), 0, (struct sockaddr *)&from, &from_len);
        if (n > 0 && memmem(packet, (size_t)n, bytes, len) != NULL)
            return true;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (n < 0 && poll(&p, 1, clock_left_ms(deadline)) <= 0)
            return false;
    }
}
