/* R14: packets through an interface that bears a VM's name, routed and bridged. The host is this
 * test's namespace; "guest" is behind the VM's interface, "other" behind another. */
#include "support.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* A process that holds a namespace of its own. */
static pid_t make_namespace(void)
{
    int ready[2];
    cr_assert(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (unshare(CLONE_NEWNET) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    cr_assert(read(ready[0], &byte, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void enter(pid_t pid)
{
    cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    cr_assert(fd >= 0 && setns(fd, CLONE_NEWNET) == 0);
}

/* A UDP socket in a process's namespace, bound to address:4444; we come back afterwards. */
static int socket_in(pid_t pid, int family, const char *address)
{
    cleanup_close int here = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    cr_assert(here >= 0);
    if (pid != 0)
        enter(pid);
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_in in4 = {.sin_family = AF_INET, .sin_port = htons(4444)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(4444)};
    void *at = family == AF_INET ? (void *)&in4.sin_addr : (void *)&in6.sin6_addr;
    cr_assert(inet_pton(family, address, at) == 1);
    int bound = family == AF_INET ? bind(fd, (struct sockaddr *)&in4, sizeof(in4))
                                  : bind(fd, (struct sockaddr *)&in6, sizeof(in6));
    cr_assert(bound == 0, "%s: %s", address, strerror(errno));
    cr_assert(setns(here, CLONE_NEWNET) == 0);
    return fd;
}

struct place {
    pid_t pid;
    const char *v4, *v6;
    int fd[2]; /* v4, v6 */
};

static void open_sockets(struct place *place)
{
    place->fd[0] = socket_in(place->pid, AF_INET, place->v4);
    place->fd[1] = socket_in(place->pid, AF_INET6, place->v6);
}

static void close_sockets(struct place *place)
{
    close(place->fd[0]);
    close(place->fd[1]);
}

static bool send_to(const struct place *from, const struct place *to, bool ipv6)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    cr_assert(getsockname(to->fd[ipv6], (struct sockaddr *)&address, &len) == 0);
    return sendto(from->fd[ipv6], "x", 1, 0, (struct sockaddr *)&address, len) == 1;
}

/* Links need a moment to come up: try until one arrives. */
static void expect_passes(const struct place *from, const struct place *to, bool ipv6)
{
    int64_t deadline = clock_mono_ms() + DEADLINE_MS;
    struct pollfd wait = {.fd = to->fd[ipv6], .events = POLLIN};
    do {
        cr_assert(clock_left_ms(deadline) > 0, "%s to %s does not pass before", from->v4, to->v4);
        send_to(from, to, ipv6);
    } while (poll(&wait, 1, 50) == 0);
    char byte;
    while (recv(to->fd[ipv6], &byte, 1, 0) == 1 || poll(&wait, 1, 100) == 1)
        continue;
}

static uint64_t vm_packets(struct support *support)
{
    return support_count(support, 7);
}

/* Packets that went to MOTTE_phys. */
static uint64_t bridged_packets(struct support *support)
{
    (void)support;
    cleanup_free char *sum = support_run(
        "for i in iptables ip6tables; do $i-legacy -w 5 -t security -nvxL MOTTE_phys; done | "
        "awk '$3 == \"DROP\" { n += $1 } END { print n }'");
    return strtoull(sum, NULL, 10);
}

static void expect_dropped(struct support *support, uint64_t (*packets)(struct support *support),
                           const struct place *from, const struct place *to, bool ipv6)
{
    uint64_t before = packets(support);
    int64_t deadline = clock_mono_ms() + DEADLINE_MS;
    send_to(from, to, ipv6);
    while (packets(support) == before)
        cr_assert(clock_left_ms(deadline) > 0, "%s to %s: not counted", from->v4, to->v4);
}

static void expect_nothing_came(const struct place *place)
{
    char byte;
    for (int v6 = 0; v6 < 2; v6++)
        cr_expect(recv(place->fd[v6], &byte, 1, 0) == -1 && errno == EAGAIN, "%s got a packet",
                  v6 ? place->v6 : place->v4);
}

static void up(pid_t pid, const char *interface, const char *v4, const char *v6)
{
    char prefix[64] = "";
    if (pid != 0)
        snprintf(prefix, sizeof(prefix), "nsenter -n -t %d", (int)pid);
    support_do("%s ip addr add %s/24 dev %s", prefix, v4, interface);
    support_do("%s ip -6 addr add %s/64 dev %s nodad", prefix, v6, interface);
    support_do("%s ip link set %s up", prefix, interface);
}

static void end(pid_t pid)
{
    cr_assert(kill(pid, SIGKILL) == 0 && waitpid(pid, NULL, 0) == pid);
}

Test(netfilter_interfaces, R14_R15_routed_in_and_out)
{
    cleanup_support struct support support = support_enter();
    char name[NETFILTER_INTERFACE_MAX + 1];
    netfilter_interface_name(support_vm(7).instance, name);
    struct place guest = {make_namespace(), "10.77.1.2", "fd77:1::2", {-1, -1}};
    struct place other = {make_namespace(), "10.77.2.2", "fd77:2::2", {-1, -1}};
    struct place host = {0, "10.77.1.1", "fd77:1::1", {-1, -1}};
    support_do("ip link add %s type veth peer name g0 netns %d", name, (int)guest.pid);
    support_do("ip link add plain type veth peer name o0 netns %d", (int)other.pid);
    support_do("echo 1 >/proc/sys/net/ipv4/ip_forward");
    support_do("echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
    up(0, name, host.v4, host.v6);
    up(0, "plain", "10.77.2.1", "fd77:2::1");
    up(guest.pid, "g0", guest.v4, guest.v6);
    up(other.pid, "o0", other.v4, other.v6);
    support_do("nsenter -n -t %d ip route add default via %s", (int)guest.pid, host.v4);
    support_do("nsenter -n -t %d ip -6 route add default via %s", (int)guest.pid, host.v6);
    support_do("nsenter -n -t %d ip route add default via 10.77.2.1", (int)other.pid);
    support_do("nsenter -n -t %d ip -6 route add default via fd77:2::1", (int)other.pid);
    const struct place *const ways[][2] = {
        {&guest, &other}, /* FORWARD -i */
        {&other, &guest}, /* FORWARD -o */
        {&guest, &host},  /* INPUT -i */
        {&host, &guest},  /* OUTPUT -o */
    };
    open_sockets(&guest);
    open_sockets(&other);
    open_sockets(&host);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        for (int v6 = 0; v6 < 2; v6++)
            expect_passes(ways[i][0], ways[i][1], v6);
    support_open(&support);
    support_add(&support, 7);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        for (int v6 = 0; v6 < 2; v6++)
            expect_dropped(&support, vm_packets, ways[i][0], ways[i][1], v6);
    expect_nothing_came(&guest);
    expect_nothing_came(&other);
    expect_nothing_came(&host);
    close_sockets(&guest);
    close_sockets(&other);
    close_sockets(&host);
    end(guest.pid);
    end(other.pid);
}

Test(netfilter_interfaces, R14_R15_bridged_ports)
{
    cleanup_support struct support support = support_enter();
    char name[NETFILTER_INTERFACE_MAX + 1];
    netfilter_interface_name(support_vm(7).instance, name);
    struct place guest = {make_namespace(), "10.78.0.2", "fd78::2", {-1, -1}};
    struct place other = {make_namespace(), "10.78.0.3", "fd78::3", {-1, -1}};
    struct place host = {0, "10.78.0.1", "fd78::1", {-1, -1}};
    support_do("ip link add br0 type bridge forward_delay 0");
    support_do("ip link add %s master br0 type veth peer name g0 netns %d", name, (int)guest.pid);
    support_do("ip link add plain master br0 type veth peer name o0 netns %d", (int)other.pid);
    support_do("ip link set %s up && ip link set plain up", name);
    up(0, "br0", host.v4, host.v6);
    up(guest.pid, "g0", guest.v4, guest.v6);
    up(other.pid, "o0", other.v4, other.v6);
    /* From the host to a bridged port no rule can tell: OUTPUT sees br0 only. */
    const struct place *const ways[][2] = {
        {&guest, &other}, /* FORWARD physdev-in */
        {&other, &guest}, /* FORWARD physdev-out */
        {&guest, &host},  /* INPUT physdev-in */
    };
    open_sockets(&guest);
    open_sockets(&other);
    open_sockets(&host);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        for (int v6 = 0; v6 < 2; v6++)
            expect_passes(ways[i][0], ways[i][1], v6);
    support_open(&support);
    support_add(&support, 7);
    for (size_t i = 0; i < COUNT_OF(ways); i++)
        for (int v6 = 0; v6 < 2; v6++)
            expect_dropped(&support, bridged_packets, ways[i][0], ways[i][1], v6);
    expect_nothing_came(&guest);
    expect_nothing_came(&other);
    expect_nothing_came(&host);
    expect_passes(&other, &host, false); /* a port that is not ours */
    close_sockets(&guest);
    close_sockets(&other);
    close_sockets(&host);
    end(guest.pid);
    end(other.pid);
}
