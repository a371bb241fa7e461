/* See bench.h. */
#include "bench/common/bench.h"

#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

void bench_must(bool ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    exit(1);
}

double bench_now_ns(void)
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

double bench_median(double *samples, size_t count)
{
    qsort(samples, count, sizeof(*samples), compare);
    return samples[count / 2];
}

static ino_t namespace_inode(void)
{
    struct stat st;
    bench_must(stat("/proc/self/ns/net", &st) == 0, "/proc/self/ns/net");
    return st.st_ino;
}

void bench_own_network(void)
{
    ino_t outside = namespace_inode();
    bench_must(unshare(CLONE_NEWNET) == 0, "a network namespace of its own (run as root)");
    errno = 0;
    bench_must(namespace_inode() != outside, "still in the host's network namespace, refused");
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bench_must(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0, "lo");
}

bool bench_command(char line[static BENCH_LINE_MAX])
{
    if (fgets(line, BENCH_LINE_MAX, stdin) == NULL)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return true;
}
