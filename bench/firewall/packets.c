/* See packets.h. */
#include "packets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { ROUNDS = 200, TRIPS = 50, PAYLOAD = 64 };

static void must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

double packets_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

double packets_median(double *samples, size_t count)
{
    qsort(samples, count, sizeof(*samples), compare);
    return samples[count / 2];
}

static ino_t namespace_inode(void)
{
    struct stat st;
    must(stat("/proc/self/ns/net", &st) == 0, "/proc/self/ns/net");
    return st.st_ino;
}

void packets_enter(void)
{
    ino_t outside = namespace_inode();
    must(unshare(CLONE_NEWNET) == 0, "a network namespace of its own (run as root)");
    errno = 0;
    must(namespace_inode() != outside, "still in the host's network namespace, refused");
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0, "lo");
}

static int bound_socket(struct sockaddr_in *address)
{
    socklen_t len = sizeof(*address);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    must(fd >= 0 && bind(fd, (struct sockaddr *)address, len) == 0 &&
             getsockname(fd, (struct sockaddr *)address, &len) == 0,
         "a socket");
    return fd;
}

struct packets_pair packets_pair_make(void)
{
    struct sockaddr_in a, b;
    struct packets_pair pair;
    pair.here = bound_socket(&a);
    pair.there = bound_socket(&b);
    must(connect(pair.here, (struct sockaddr *)&b, sizeof(b)) == 0 &&
             connect(pair.there, (struct sockaddr *)&a, sizeof(a)) == 0,
         "connecting");
    return pair;
}

static double some_trips(const struct packets_pair *pair)
{
    char data[PAYLOAD] = {0};
    double start = packets_now_ns();
    for (int i = 0; i < TRIPS; i++)
        must(send(pair->here, data, sizeof(data), 0) == PAYLOAD &&
                 recv(pair->there, data, sizeof(data), 0) == PAYLOAD &&
                 send(pair->there, data, sizeof(data), 0) == PAYLOAD &&
                 recv(pair->here, data, sizeof(data), 0) == PAYLOAD,
             "a round trip");
    return (packets_now_ns() - start) / TRIPS;
}

struct packets_trips packets_round_trips(const struct packets_pair pairs[PACKETS_KINDS])
{
    static double samples[PACKETS_KINDS][ROUNDS];
    struct packets_trips trips;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < PACKETS_KINDS; i++)
            samples[i][round] = some_trips(&pairs[i]);
    for (int i = 0; i < PACKETS_KINDS; i++)
        trips.ns[i] = packets_median(samples[i], ROUNDS);
    const double *sorted = samples[PACKETS_PLAIN];
    trips.noise_ns = sorted[ROUNDS * 3 / 4] - sorted[ROUNDS / 4];
    return trips;
}

static double refused_here(void)
{
    static double samples[ROUNDS];
    struct sockaddr_in to;
    char data[PAYLOAD] = {0};
    cleanup_close int receiver = bound_socket(&to);
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int round = 0; round < ROUNDS; round++) {
        double start = packets_now_ns();
        for (int i = 0; i < TRIPS; i++)
            must(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)) == -1 &&
                     errno == EPERM,
                 "a send under a VM's uid was not refused");
        samples[round] = (packets_now_ns() - start) / TRIPS;
    }
    return packets_median(samples, ROUNDS);
}

double packets_refused(uint32_t uid)
{
    int results[2], status;
    double ns = 0;
    must(pipe2(results, O_CLOEXEC) == 0, "a pipe");
    pid_t pid = fork();
    must(pid >= 0, "a process");
    if (pid == 0) {
        must(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
                 setresuid(uid, uid, uid) == 0,
             "the VM's uid");
        ns = refused_here();
        _exit(write(results[1], &ns, sizeof(ns)) == sizeof(ns) ? 0 : 1);
    }
    close(results[1]);
    bool got = read(results[0], &ns, sizeof(ns)) == sizeof(ns);
    close(results[0]);
    must(waitpid(pid, &status, 0) == pid && got, "the time of a refused send");
    return ns;
}
