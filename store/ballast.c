/*
 * A file that keeps room on the disk for the ends of VMs. While it stands, new VMs may be made; when
 * the disk is full it is given up, so that deletes still fit, and nobody else gets the room: no new
 * VM until it could be made again.
 */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

int store_ballast_open(struct store *store, const char *dir, struct error *err)
{
    cleanup_close int parent = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    store->ballast =
        openat(parent, "ballast", O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
    struct stat st;
    if (store->ballast < 0 || fstat(store->ballast, &st) < 0)
        return error_set(err, errno == ENOSPC ? ERR_STORE_FULL : ERR_STORE, errno,
                         "opening %.120s/ballast", dir);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_STORE, 0, "%.120s/ballast is not a regular file: remove it", dir);
    struct error full = {0}; /* no reason not to start: VMs may have to be ended */
    (void)store_ballast_take(store, &full);
    return 0;
}

/* Asked for again, a full disk may refuse what is there already. */
static bool is_there(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_size == STORE_BALLAST &&
           st.st_blocks >= STORE_BALLAST / 512;
}

int store_ballast_take(struct store *store, struct error *err)
{
    if (store->ballast_taken || is_there(store->ballast)) {
        store->ballast_taken = true;
        return 0;
    }
    /* A file system that cannot set blocks aside does not keep the promise, and no VM from being
     * made. */
    if (fallocate(store->ballast, 0, 0, STORE_BALLAST) < 0 && errno != EOPNOTSUPP) {
        int why = errno;
        if (ftruncate(store->ballast, 0) < 0) /* a part of it is no use */
            return error_set(err, ERR_STORE, errno, "giving back room for ending VMs");
        if (why == ENOSPC || why == EDQUOT)
            return error_set(err, ERR_STORE_FULL, 0,
                             "the disk of the state directory has less than %d MiB left, which are "
                             "kept for ending VMs: free space on it",
                             STORE_BALLAST >> 20);
        return error_set(err, ERR_STORE, why, "setting room aside for ending VMs");
    }
    store->ballast_taken = true;
    return 0;
}

bool store_ballast_drop(struct store *store)
{
    bool taken = store->ballast_taken;
    store->ballast_taken = false;
    return taken && ftruncate(store->ballast, 0) == 0;
}
