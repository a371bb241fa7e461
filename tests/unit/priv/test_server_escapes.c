/*
 * R16: three walls keep a VMM off the network. Each way round the third one, the firewall's chains,
 * is tried twice by a process under the VM's uid: from the VMM's own place, where the first wall
 * (an empty network namespace) must hold, and from the host's namespace, which shows what the
 * chains alone stop and what they do not. The second wall, seccomp, is tried by itself.
 */
#include "break_out.h"
#include "sniff.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

enum {
    SEEN_MS = 3000,    /* what gets out is seen at once, but for TCP's retransmission */
    NOT_SEEN_MS = 400, /* and what has not been seen by then does not come */
    LISTEN_MS = 1500,
    DIALS = 12,
    PORT = 4321,
};

static const char SECRET[] = {'S', 'E', 'C', 'R', 'E', 'T'};
/* In 239.74.79.73 and ff02:4a4f:494e::, the groups that are joined. */
static const char GROUP[] = {'J', 'O', 'I'};

static struct bench bench;
static struct bench_vm vm;

struct attempt {
    bool ipv6;
    unsigned interface; /* of the host's, by its number there */
    int fd;             /* made before the change of uid, or -1 */
    int ready;          /* of a pipe: a listener is there */
};

static socklen_t address(bool ipv6, bool any, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    if (ipv6) {
        struct sockaddr_in6 *to = (void *)out;
        to->sin6_family = AF_INET6;
        to->sin6_port = htons(PORT);
        to->sin6_addr = any ? in6addr_any : in6addr_loopback;
        return sizeof(*to);
    }
    struct sockaddr_in *to = (void *)out;
    to->sin_family = AF_INET;
    to->sin_port = htons(PORT);
    to->sin_addr.s_addr = htonl(any ? INADDR_ANY : INADDR_LOOPBACK);
    return sizeof(*to);
}

static int open_datagram(void *context)
{
    struct attempt *attempt = context;
    attempt->fd = socket(attempt->ipv6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return attempt->fd < 0 ? errno : 0;
}

static int send_secret(void *context)
{
    const struct attempt *attempt = context;
    struct sockaddr_storage to;
    socklen_t len = address(attempt->ipv6, false, &to);
    return sendto(attempt->fd, SECRET, sizeof(SECRET), 0, (struct sockaddr *)&to, len) < 0 ? errno
                                                                                           : 0;
}

static int datagram(void *context)
{
    int error = open_datagram(context);
    return error != 0 ? error : send_secret(context);
}

/* The kernel itself reports the groups that a socket joins. */
static int join_group(void *context)
{
    const struct attempt *attempt = context;
    int error = open_datagram(context);
    if (error != 0)
        return error;
    struct ip_mreqn four = {.imr_ifindex = (int)attempt->interface};
    four.imr_multiaddr.s_addr = htonl(239u << 24);
    memcpy((char *)&four.imr_multiaddr + 1, GROUP, sizeof(GROUP));
    struct ipv6_mreq six = {.ipv6mr_interface = attempt->interface};
    six.ipv6mr_multiaddr.s6_addr[0] = 0xff;
    six.ipv6mr_multiaddr.s6_addr[1] = 2;
    memcpy(&six.ipv6mr_multiaddr.s6_addr[2], GROUP, sizeof(GROUP));
    int result = attempt->ipv6
                     ? setsockopt(attempt->fd, IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, &six, sizeof(six))
                     : setsockopt(attempt->fd, IPPROTO_IP, IP_ADD_MEMBERSHIP, &four, sizeof(four));
    return result < 0 ? errno : 0;
}

/* A listener without a queue answers with cookies, which have no socket and so no owner; what was
 * written before close(2) is sent again when the socket has no owner any more. */
static int serve_and_close(void *context)
{
    const struct attempt *attempt = context;
    struct sockaddr_storage at;
    socklen_t len = address(attempt->ipv6, true, &at);
    int fd = socket(at.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, len) < 0 || listen(fd, 0) < 0)
        return errno;
    if (write(attempt->ready, "r", 1) != 1)
        return 1;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int conn = poll(&p, 1, LISTEN_MS) == 1 ? accept(fd, NULL, NULL) : -1;
    if (conn < 0)
        return ETIMEDOUT;
    ssize_t n = write(conn, SECRET, sizeof(SECRET));
    close(conn);
    return n == (ssize_t)sizeof(SECRET) ? 0 : errno;
}

static void dial(bool ipv6, int fds[static DIALS])
{
    struct sockaddr_storage to;
    socklen_t len = address(ipv6, false, &to);
    for (int i = 0; i < DIALS; i++) {
        fds[i] = socket(to.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(fds[i], (struct sockaddr *)&to, len);
        /* One after the other, so that the queue is full for the later ones, which get no answer. */
        struct pollfd answer = {.fd = fds[i], .events = POLLOUT};
        poll(&answer, 1, 20);
    }
}

static int packet_socket(void *context)
{
    const struct attempt *attempt = context;
    struct sockaddr_ll to = {.sll_family = AF_PACKET,
                             .sll_protocol = htons(ETH_P_802_EX1),
                             .sll_ifindex = (int)attempt->interface,
                             .sll_halen = 6};
    int fd = attempt->fd;
    if (fd < 0)
        fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    return sendto(fd, SECRET, sizeof(SECRET), 0, (struct sockaddr *)&to, sizeof(to)) < 0 ? errno
                                                                                         : 0;
}

static int open_packet(void *context)
{
    struct attempt *attempt = context;
    attempt->fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return attempt->fd < 0 ? errno : 0;
}

static int raw_socket(void *context)
{
    const struct attempt *attempt = context;
    int fd = socket(attempt->ipv6 ? AF_INET6 : AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_UDP);
    return fd < 0 ? errno : 0;
}

/* What each attempt meets: an errno, or LEAVES. */
enum { LEAVES = 0 };

static const struct escape {
    const char *name;
    int (*first)(void *);
    int (*then)(void *);
    bool listens;
    int in_jail; /* the namespace's answer, or the missing capability's */
    bool leaves_host;
} escapes[] = {
    {"a datagram", NULL, datagram, false, ENETUNREACH, false},
    {"a raw socket", NULL, raw_socket, false, EPERM, false},
    {"a packet socket", NULL, packet_socket, false, EPERM, false},
    /* The chains see none of these; the first wall stops them all. */
    {"a socket made before the change of uid", open_datagram, send_secret, false, ENETUNREACH,
     true},
    {"a packet socket made before the change of uid", open_packet, packet_socket, false, ENXIO,
     true},
    {"joining a group", NULL, join_group, false, ENODEV, true},
    {"cookies and a retransmission", NULL, serve_and_close, true, ETIMEDOUT, true},
};

/* Its exit code, and whether anything was seen on an interface. */
static int try_escape(const struct escape *escape, enum break_out_place place, bool ipv6,
                      bool *ret_seen)
{
    int ready[2], dials[DIALS];
    char r;
    cr_assert_eq(pipe2(ready, O_CLOEXEC), 0);
    struct attempt attempt = {
        .ipv6 = ipv6, .interface = if_nametoindex("out0"), .fd = -1, .ready = ready[1]};
    struct break_out how = {.vm = &vm,
                            .place = place,
                            .first = escape->first,
                            .then = escape->then,
                            .context = &attempt};
    cr_assert_gt(attempt.interface, 0);
    cleanup_close int sniff = sniff_open();
    pid_t pid = break_out_start(&how);
    close(ready[1]);
    if (escape->listens) {
        cr_assert_eq(read(ready[0], &r, 1), 1, "no listener");
        dial(ipv6, dials);
    }
    int code = break_out_end(pid);
    bool group = escape->then == join_group;
    *ret_seen = sniff_sees(sniff, group ? GROUP : SECRET, group ? sizeof(GROUP) : sizeof(SECRET),
                           place == BREAK_OUT_HOST && escape->leaves_host ? SEEN_MS : NOT_SEEN_MS);
    for (int i = 0; escape->listens && i < DIALS; i++)
        close(dials[i]);
    close(ready[0]);
    return code;
}

static void begin(void)
{
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    cr_assert_eq(system("ip link set lo up && ip link add out0 type veth peer name out1 && "
                        "ip addr add 192.0.2.1/24 dev out0 && "
                        "ip addr add 2001:db8::1/64 dev out0 nodad && "
                        "ip link set out0 up && ip link set out1 up"),
                 0);
}

static void every_escape(bool ipv6)
{
    begin();
    for (size_t i = 0; i < COUNT_OF(escapes); i++) {
        const struct escape *escape = &escapes[i];
        bool seen = false;
        int code = try_escape(escape, BREAK_OUT_JAIL, ipv6, &seen);
        int wanted = ipv6 && escape->in_jail == ENETUNREACH ? EADDRNOTAVAIL : escape->in_jail;
        cr_expect_eq(code, wanted, "%s in the jail: %d (%s)", escape->name, code, strerror(code));
        cr_expect_not(seen, "%s left the jail", escape->name);
        try_escape(escape, BREAK_OUT_HOST, ipv6, &seen);
        cr_expect_eq(seen, escape->leaves_host, "%s %s the host under the VM's uid", escape->name,
                     seen ? "left" : "did not leave");
    }
    bench_close(&bench);
}

Test(priv_escapes, R16_wall_one_the_namespace_stops_what_the_chains_do_not_see, .timeout = 120)
{
    every_escape(false);
}

Test(priv_escapes, R16_R15_wall_one_the_namespace_stops_it_over_ipv6, .timeout = 120)
{
    every_escape(true);
}

/* ---- a descriptor from outside; the namespace's own edges ---- */

/* The one thing that passes both the namespace and the chains, so that a VMM must hold none:
 * test_R26_a_vmm_holds_only_descriptors_of_its_own. */
Test(priv_escapes, R16_a_socket_of_the_host_would_pass_and_so_none_is_given, .timeout = 60)
{
    begin();
    struct attempt attempt = {.ipv6 = false};
    struct break_out how = {
        .vm = &vm, .place = BREAK_OUT_JAIL, .then = send_secret, .context = &attempt};
    cr_assert_eq(open_datagram(&attempt), 0);
    cleanup_close int sniff = sniff_open();
    cr_assert_eq(break_out(&how), LEAVES);
    cr_assert(sniff_sees(sniff, SECRET, sizeof(SECRET), SEEN_MS));
    close(attempt.fd);
    bench_close(&bench);
}

static int raise_loopback(void *context)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    (void)context;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? errno : 0;
}

static int leave_namespaces(void *context)
{
    const int *fd = context;
    int refused = 0;
    refused += setns(*fd, CLONE_NEWNET) < 0 && errno == EPERM;
    refused += unshare(CLONE_NEWNET) < 0 && errno == EPERM;
    refused += mount("none", "/", "tmpfs", 0, NULL) < 0 && errno == EPERM;
    refused += mknod("/mine", S_IFCHR | 0600, makedev(1, 1)) < 0 && errno == EPERM;
    refused += chroot("/dev") < 0 && errno == EPERM;
    return refused;
}

static int call_abstract(void *context)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    (void)context;
    memcpy(to.sun_path, "\0motte", 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (struct sockaddr *)&to, offsetof(struct sockaddr_un, sun_path) + 6) < 0
               ? errno
               : 0;
}

static int listen_abstract(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    memcpy(at.sun_path, "\0motte", 6);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&at, offsetof(struct sockaddr_un, sun_path) + 6), 0);
    cr_assert_eq(listen(fd, 1), 0);
    return fd;
}

Test(priv_escapes, R26_a_vmm_cannot_change_or_leave_its_namespaces, .timeout = 60)
{
    begin();
    cleanup_close int host = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    cleanup_close int listener = listen_abstract();
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .then = raise_loopback};
    cr_expect_eq(break_out(&how), EPERM, "lo can be raised");
    how.then = call_abstract;
    cr_expect_eq(break_out(&how), ECONNREFUSED, "the host's abstract sockets are in reach");
    how.then = leave_namespaces;
    how.context = &host;
    cr_expect_eq(break_out(&how), 5);
    bench_close(&bench);
}

/* ---- wall two: seccomp ---- */

struct filtered {
    struct priv_bpf filter;
    int family, type;
};

static int load_and_socket(void *context)
{
    const struct filtered *filtered = context;
    if (priv_seccomp_load(&filtered->filter) < 0)
        return 125;
    long fd = syscall(SYS_socket, filtered->family, filtered->type, 0);
    syscall(SYS_exit_group, fd >= 0 ? 0 : 1);
    return 124;
}

Test(priv_escapes, R16_R23_wall_two_seccomp_makes_no_socket_but_unix_ones, .timeout = 60)
{
    static const int families[] = {AF_INET,   AF_INET6, AF_PACKET, AF_NETLINK,   AF_VSOCK,
                                   AF_BRIDGE, AF_ALG,   AF_XDP,    AF_BLUETOOTH, AF_KEY};
    enum { UNIX_TYPE = SOCK_STREAM | SOCK_CLOEXEC };
    begin();
    for (enum priv_seccomp level = PRIV_SECCOMP_MINIMAL; level <= PRIV_SECCOMP_BASIC; level++)
        for (enum priv_seccomp_thread t = 0; t < PRIV_THREAD_COUNT; t++) {
            struct filtered filtered = {.type = UNIX_TYPE};
            struct error err = {0};
            struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .context = &filtered};
            how.then = load_and_socket;
            cr_assert_eq(priv_seccomp_firecracker(level, t, &filtered.filter, &err), 0);
            for (size_t i = 0; i < COUNT_OF(families); i++) {
                filtered.family = families[i];
                cr_expect_eq(break_out(&how), 128 + SIGSYS, "level %d thread %d family %d",
                             (int)level, (int)t, families[i]);
            }
            filtered.family = AF_UNIX;
            cr_expect_eq(break_out(&how), t == PRIV_THREAD_VCPU ? 128 + SIGSYS : 0);
            priv_bpf_release(&filtered.filter);
        }
    bench_close(&bench);
}
