/* Copies of what a VMM wrote, which may go on writing: each page is read once, and what was read is
 * what counts. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

enum { CHUNK = 256 * HASH_PAGE };

int priv_disk_error(struct error *err, int sys, const char *what)
{
    bool full = sys == ENOSPC || sys == EDQUOT;
    return error_set(err, full ? ERR_DISK_FULL : ERR_SYSTEM, sys, "%s", what);
}

int priv_copying_on(void *context, struct error *err)
{
    const struct priv_copying *copying = context;
    struct pollfd stop = {.fd = copying->server->stop, .events = POLLIN};
    pthread_mutex_lock(&copying->server->lock);
    bool hurried = copying->slot->hurried;
    pthread_mutex_unlock(&copying->server->lock);
    if (hurried || poll(&stop, 1, 0) != 0)
        return error_set(err, ERR_CANCELLED, 0, "the VM was deleted while it was copied");
    return 0;
}

/* Whole pages but for the last. Runs of pages that are not zero are written at once. */
static int write_pages(int to, const uint8_t *data, size_t len, off_t at)
{
    for (size_t begin = 0, end; begin < len; begin = end) {
        size_t size = len - begin < HASH_PAGE ? len - begin : HASH_PAGE;
        end = begin + size;
        if (hash_page_is_zero(data + begin, size))
            continue;
        while (end < len) {
            size = len - end < HASH_PAGE ? len - end : HASH_PAGE;
            if (hash_page_is_zero(data + end, size))
                break;
            end += size;
        }
        for (size_t done = begin; done < end;) {
            ssize_t n = pwrite(to, data + done, end - done, at + (off_t)done);
            if (n < 0 && errno != EINTR)
                return -1;
            done += n < 0 ? 0 : (size_t)n;
        }
    }
    return 0;
}

/* Fewer than asked for only at the end of the file. */
static ssize_t read_some(int from, uint8_t *data, size_t len, off_t at)
{
    size_t done = 0;
    for (ssize_t n; done < len; done += (size_t)n) {
        n = pread(from, data + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            n = 0;
        else if (n < 0)
            return -1;
        else if (n == 0)
            break;
    }
    return (ssize_t)done;
}

int priv_copy_pages(int from, int to, uint64_t size, bool consume,
                    const struct priv_copying *copying, struct error *err)
{
    cleanup_free uint8_t *chunk = malloc(CHUNK);
    struct priv_copying context = *copying;
    if (chunk == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a snapshot");
    if (ftruncate(to, (off_t)size) < 0)
        return priv_disk_error(err, errno, "making a file of the snapshot");
    for (off_t at = 0; (at = lseek(from, at, SEEK_DATA)) >= 0 && at < (off_t)size;) {
        at -= at % HASH_PAGE;
        uint64_t left = size - (uint64_t)at;
        ssize_t n = read_some(from, chunk, left < CHUNK ? (size_t)left : CHUNK, at);
        if (n < 0)
            return priv_disk_error(err, errno, "reading what the snapshot is made of");
        if (n == 0)
            return 0;
        if (priv_copying_on(&context, err) < 0)
            return -1;
        if (write_pages(to, chunk, (size_t)n, at) < 0)
            return priv_disk_error(err, errno, "writing the snapshot");
        if (consume) /* a disk that cannot needs the room for both */
            (void)fallocate(from, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, n);
        at += n;
    }
    return 0;
}
