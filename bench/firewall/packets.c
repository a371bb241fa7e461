/* See packets.h. */
#include "packets.h"

#include "bench/common/bench.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { ROUNDS = 200, TRIPS = 50, PAYLOAD = 64 };

static int bound_socket(struct sockaddr_in *address)
{
    socklen_t len = sizeof(*address);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bench_must(fd >= 0 && bind(fd, (struct sockaddr *)address, len) == 0 &&
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
    bench_must(connect(pair.here, (struct sockaddr *)&b, sizeof(b)) == 0 &&
                   connect(pair.there, (struct sockaddr *)&a, sizeof(a)) == 0,
               "connecting");
    return pair;
}

static double some_trips(const struct packets_pair *pair)
{
    char data[PAYLOAD] = {0};
    double start = bench_now_ns();
    for (int i = 0; i < TRIPS; i++)
        bench_must(send(pair->here, data, sizeof(data), 0) == PAYLOAD &&
                       recv(pair->there, data, sizeof(data), 0) == PAYLOAD &&
                       send(pair->there, data, sizeof(data), 0) == PAYLOAD &&
                       recv(pair->here, data, sizeof(data), 0) == PAYLOAD,
                   "a round trip");
    return (bench_now_ns() - start) / TRIPS;
}

struct packets_trips packets_round_trips(const struct packets_pair pairs[PACKETS_KINDS])
{
    static double samples[PACKETS_KINDS][ROUNDS];
    struct packets_trips trips;
    for (int round = 0; round < ROUNDS; round++)
        for (int i = 0; i < PACKETS_KINDS; i++)
            samples[i][round] = some_trips(&pairs[i]);
    for (int i = 0; i < PACKETS_KINDS; i++)
        trips.ns[i] = bench_median(samples[i], ROUNDS);
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
        double start = bench_now_ns();
        for (int i = 0; i < TRIPS; i++)
            bench_must(sendto(fd, data, sizeof(data), 0, (struct sockaddr *)&to, sizeof(to)) ==
                               -1 &&
                           errno == EPERM,
                       "a send under a VM's uid was not refused");
        samples[round] = (bench_now_ns() - start) / TRIPS;
    }
    return bench_median(samples, ROUNDS);
}

double packets_refused(uint32_t uid)
{
    int results[2], status;
    double ns = 0;
    bench_must(pipe2(results, O_CLOEXEC) == 0, "a pipe");
    pid_t pid = fork();
    bench_must(pid >= 0, "a process");
    if (pid == 0) {
        bench_must(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
                       setresuid(uid, uid, uid) == 0,
                   "the VM's uid");
        ns = refused_here();
        _exit(write(results[1], &ns, sizeof(ns)) == sizeof(ns) ? 0 : 1);
    }
    close(results[1]);
    bool got = read(results[0], &ns, sizeof(ns)) == sizeof(ns);
    close(results[0]);
    bench_must(waitpid(pid, &status, 0) == pid && got, "the time of a refused send");
    return ns;
}
