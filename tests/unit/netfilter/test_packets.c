/* R16: what a process under a VM's uid sends over loopback is dropped and counted, whatever the
 * kind of socket; what others send passes. */
#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/fsuid.h>
#include <sys/socket.h>

struct target {
    int family;
    struct sockaddr_storage address;
    socklen_t len;
};

static struct target loopback(bool ipv6, uint16_t port)
{
    struct target target = {.family = ipv6 ? AF_INET6 : AF_INET};
    if (ipv6) {
        struct sockaddr_in6 *to = (void *)&target.address;
        *to = (struct sockaddr_in6){
            .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_addr = IN6ADDR_LOOPBACK_INIT};
        target.len = sizeof(*to);
    } else {
        struct sockaddr_in *to = (void *)&target.address;
        *to = (struct sockaddr_in){.sin_family = AF_INET,
                                   .sin_port = htons(port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        target.len = sizeof(*to);
    }
    return target;
}

/* A socket on a port of the kernel's choice; *target becomes its address. */
static int receiver(bool ipv6, int type, struct target *target)
{
    *target = loopback(ipv6, 0);
    int fd = socket(target->family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert(fd >= 0 && bind(fd, (struct sockaddr *)&target->address, target->len) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&target->address, &target->len) == 0);
    cr_assert(type != SOCK_STREAM || listen(fd, 8) == 0);
    return fd;
}

static int send_datagram(const void *context)
{
    const struct target *to = context;
    cleanup_close int fd = socket(to->family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char uid[16];
    int len = snprintf(uid, sizeof(uid), "%u", getuid());
    return sendto(fd, uid, (size_t)len, 0, (const struct sockaddr *)&to->address, to->len) == len
               ? 0
               : errno;
}

static int connect_stream(const void *context)
{
    const struct target *to = context;
    cleanup_close int fd = socket(to->family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (connect(fd, (const struct sockaddr *)&to->address, to->len) == 0)
        return 0;
    if (errno != EINPROGRESS)
        return errno;
    /* A SYN is answered at once on loopback, or it was dropped, and the kernel tries again for
     * long. */
    struct pollfd wait = {.fd = fd, .events = POLLOUT};
    return poll(&wait, 1, 500) == 1 ? 0 : ETIMEDOUT;
}

static char *next_datagram(int fd, char text[16])
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    cr_assert(poll(&wait, 1, DEADLINE_MS) == 1, "nothing came");
    ssize_t len = recv(fd, text, 15, 0);
    cr_assert(len > 0);
    text[len] = '\0';
    return text;
}

static void datagrams(bool ipv6)
{
    cleanup_support struct support support = support_enter();
    struct target to;
    char text[16], vm_uid[16], other_uid[16];
    snprintf(vm_uid, sizeof(vm_uid), "%u", UID_BASE + 7);
    snprintf(other_uid, sizeof(other_uid), "%d", UID_OTHER);
    cleanup_close int fd = receiver(ipv6, SOCK_DGRAM, &to);
    cr_assert(support_as(UID_BASE + 7, send_datagram, &to) == 0);
    cr_expect_str_eq(next_datagram(fd, text), vm_uid, "does not pass before");

    support_open(&support);
    /* No chain yet, and yet nothing leaves: the roots end in DROP. */
    cr_expect(support_as(UID_BASE + 7, send_datagram, &to) == EPERM);
    cr_expect(support_as(UID_BASE, send_datagram, &to) == EPERM);
    cr_expect(support_as(UID_BASE + UID_COUNT - 1, send_datagram, &to) == EPERM);
    support_add(&support, 7);
    support_add(&support, 8);
    cr_expect(support_as(UID_BASE + 9, send_datagram, &to) == EPERM, "unassigned, beside them");
    for (int i = 0; i < 3; i++)
        cr_expect(support_as(UID_BASE + 7, send_datagram, &to) == EPERM);
    cr_expect(support_count(&support, 7) == 3);
    cr_expect(support_count(&support, 8) == 0);
    struct netfilter_vm vm = support_vm(7);
    struct error err = {0};
    cr_assert(netfilter_remove(support.netfilter, &vm, &err) == 0, "%s", err.msg);
    cr_expect(support_as(UID_BASE + 7, send_datagram, &to) == EPERM);

    /* Loopback keeps the order: had one of the VM's come through, it would be read first. */
    cr_expect(support_as(UID_OTHER, send_datagram, &to) == 0);
    cr_expect_str_eq(next_datagram(fd, text), other_uid);
    cr_expect(support_as(UID_BASE - 1, send_datagram, &to) == 0, "the uid below the range");
    cr_expect(support_as(UID_BASE + UID_COUNT, send_datagram, &to) == 0, "the uid above it");
}

Test(netfilter_packets, R16_R14_udp_of_a_vm_is_dropped_and_counted)
{
    datagrams(false);
}

Test(netfilter_packets, R16_R15_udp_over_ipv6_of_a_vm_is_dropped_and_counted)
{
    datagrams(true);
}

static void streams(bool ipv6)
{
    cleanup_support struct support support = support_enter();
    struct target to;
    cleanup_close int fd = receiver(ipv6, SOCK_STREAM, &to);
    cr_assert(support_as(UID_BASE + 7, connect_stream, &to) == 0);
    cleanup_close int before = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    cr_assert(before >= 0, "does not pass before");

    support_open(&support);
    support_add(&support, 7);
    cr_expect(support_as(UID_BASE + 7, connect_stream, &to) == ETIMEDOUT);
    cr_expect(support_count(&support, 7) >= 1);
    cleanup_close int vm = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    cr_expect(vm == -1 && errno == EAGAIN, "the VM got through");
    cr_expect(support_as(UID_OTHER, connect_stream, &to) == 0);
    cleanup_close int other = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    cr_expect(other >= 0, "%s", strerror(errno));
}

Test(netfilter_packets, R16_R14_tcp_of_a_vm_is_dropped_and_counted)
{
    streams(false);
}

Test(netfilter_packets, R16_R15_tcp_over_ipv6_of_a_vm_is_dropped_and_counted)
{
    streams(true);
}

/* ---- all kinds of sockets ------------------------------------------------------------------- */

static const struct kind {
    const char *name;
    int type, protocol;
    bool raw, connects;
} kinds[] = {
    {"UDP-Lite", SOCK_DGRAM, IPPROTO_UDPLITE, false, false},
    {"MPTCP", SOCK_STREAM, IPPROTO_MPTCP, false, true},
    {"ping", SOCK_DGRAM, IPPROTO_ICMP, false, false},
    {"raw", SOCK_RAW, IPPROTO_ICMP, true, false},
};

struct attempt {
    const struct kind *kind;
    bool ipv6;
    uint32_t uid;
};

/* A raw socket needs a capability that a uid of its own does not leave: only the owner is changed.
 * The socket's error says little (an ICMPv6 sendto succeeds though its packet was dropped): count.
 */
static int attempt_one(const void *context)
{
    const struct attempt *attempt = context;
    const struct kind *kind = attempt->kind;
    struct target to = loopback(attempt->ipv6, kind->protocol == IPPROTO_ICMP ? 0 : 4444);
    unsigned char echo[16] = {attempt->ipv6 ? 128 : 8};
    int protocol =
        kind->protocol == IPPROTO_ICMP && attempt->ipv6 ? IPPROTO_ICMPV6 : kind->protocol;
    if (kind->raw)
        setfsuid(attempt->uid);
    cleanup_close int fd = socket(to.family, kind->type | SOCK_NONBLOCK | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        return errno;
    if (kind->connects)
        connect(fd, (struct sockaddr *)&to.address, to.len);
    else
        sendto(fd, echo, sizeof(echo), 0, (struct sockaddr *)&to.address, to.len);
    return 0;
}

static void every_kind(bool ipv6)
{
    cleanup_support struct support support = support_enter();
    support_do("echo '0 2147483647' >/proc/sys/net/ipv4/ping_group_range");
    support_open(&support);
    support_add(&support, 7);
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct attempt attempt = {&kinds[i], ipv6, UID_BASE + 7};
        uint64_t before = support_count(&support, 7);
        cr_assert(support_as(kinds[i].raw ? 0 : attempt.uid, attempt_one, &attempt) == 0,
                  "no %s socket on this kernel", kinds[i].name);
        uint64_t after = support_count(&support, 7);
        cr_expect(after > before, "%s left uncounted", kinds[i].name);
        attempt.uid = UID_OTHER;
        cr_assert(support_as(kinds[i].raw ? 0 : attempt.uid, attempt_one, &attempt) == 0);
        cr_expect(support_count(&support, 7) == after, "%s of another uid", kinds[i].name);
    }
}

Test(netfilter_packets, R16_R14_every_kind_of_socket)
{
    every_kind(false);
}

Test(netfilter_packets, R16_R15_every_kind_of_socket_over_ipv6)
{
    every_kind(true);
}

/* A later program's ACCEPT in table filter opens nothing. */
Test(netfilter_packets, R14_an_accept_in_filter_opens_nothing)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    support_add(&support, 7);
    support_do("iptables-legacy -w 5 -I OUTPUT -j ACCEPT");
    struct target to = loopback(false, 4444);
    cr_expect(support_as(UID_BASE + 7, send_datagram, &to) == EPERM);
    support_do("iptables-legacy -w 5 -F");
    cr_expect(support_as(UID_BASE + 7, send_datagram, &to) == EPERM);
    cr_expect(support_count(&support, 7) == 2);
}
