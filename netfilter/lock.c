/* The lock that all iptables-legacy programs of the host share; libiptc itself takes none. */
#include "netfilter/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <time.h>

enum { LOCK_POLL_MS = 2 }; /* flock has no deadline, and an alarm would be the whole process's */

int netfilter_lock(const char *path, int timeout_ms, struct error *err)
{
    int64_t deadline = clock_mono_ms() + timeout_ms;
    cleanup_close int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_set(err, ERR_FIREWALL_LOCK, errno, "opening the firewall lock %s", path);
    while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return error_set(err, ERR_FIREWALL_LOCK, errno, "locking %s", path);
        if (clock_left_ms(deadline) == 0)
            return error_set(
                err, ERR_FIREWALL_LOCK, 0,
                "another program has held the firewall lock %s for %d ms; find it with "
                "`fuser -v %s` and let it end",
                path, timeout_ms, path);
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
    return TAKE_FD(fd);
}
