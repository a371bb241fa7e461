/* SHA-256 of what is in a sparse file: holes and pages of zeros cost next to nothing. */
#include "base/base.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <sys/stat.h>

enum { CHUNK = 256 * HASH_PAGE };

bool hash_page_is_zero(const uint8_t *data, size_t len)
{
    /* It equals itself shifted by one, and begins with 0. */
    return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static void add_number(struct sha256_ctx *sha, uint64_t number)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(number >> (8 * i));
    sha256_update(sha, sizeof(bytes), bytes);
}

/* `at` is a multiple of a page. */
static void add_pages(struct sha256_ctx *sha, uint64_t at, const uint8_t *data, size_t len)
{
    for (size_t done = 0; done < len; done += HASH_PAGE) {
        size_t size = len - done < HASH_PAGE ? len - done : HASH_PAGE;
        if (hash_page_is_zero(data + done, size))
            continue;
        add_number(sha, (at + done) / HASH_PAGE);
        sha256_update(sha, size, data + done);
    }
}

/* As much as was asked for, or up to the end. */
static ssize_t read_whole(int fd, uint8_t *out, size_t len, off_t at)
{
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(fd, out + done, len - done, at + (off_t)done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

int hash_pages_fd(int fd, hash_go_on *go_on, void *context, uint8_t out[static HASH_SIZE],
                  struct error *err)
{
    struct stat st;
    struct sha256_ctx sha;
    cleanup_free uint8_t *chunk = malloc(CHUNK);
    if (chunk == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while hashing");
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "looking at a file to hash");
    sha256_init(&sha);
    off_t at = 0;
    while (at < st.st_size && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
        at -= at % HASH_PAGE;
        ssize_t n = read_whole(fd, chunk, CHUNK, at);
        if (n < 0)
            return error_set(err, ERR_SYSTEM, errno, "reading a file to hash");
        if (n == 0)
            break;
        if (go_on != NULL && go_on(context, err) < 0)
            return -1;
        add_pages(&sha, (uint64_t)at, chunk, (size_t)n);
        at += n;
    }
    if (at < 0 && errno != ENXIO) /* ENXIO: only a hole is left */
        return error_set(err, ERR_SYSTEM, errno, "looking for data in a file to hash");
    add_number(&sha, (uint64_t)st.st_size);
    sha256_digest(&sha, HASH_SIZE, out);
    return 0;
}
