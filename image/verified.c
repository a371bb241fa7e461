/*
 * The cache of checked digests. A file is known by (device, inode, size, ctime): ctime moves with
 * every write, truncation, rename or change of mode and cannot be set back by the file's owner.
 */
#include "image/internal.h"

#include <pthread.h>
#include <time.h>

enum {
    ENTRIES = 1024,      /* a disk an image and three files a kernel, with room for changes */
    RACY_NS = 100000000, /* well above a kernel tick, the grain of ctime */
};

struct entry {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec ctime;
    uint8_t digest[HASH_SIZE];
};

struct image_verified {
    pthread_mutex_t lock;
    size_t total; /* ever added; the oldest is overwritten */
    struct entry entries[ENTRIES];
};

struct image_verified *image_verified_new(void)
{
    struct image_verified *verified = calloc(1, sizeof(*verified));
    if (verified != NULL)
        pthread_mutex_init(&verified->lock, NULL);
    return verified;
}

void image_verified_free(struct image_verified *verified)
{
    if (verified == NULL)
        return;
    pthread_mutex_destroy(&verified->lock);
    free(verified);
}

static bool same_file(const struct entry *entry, const struct stat *st)
{
    return entry->inode == st->st_ino && entry->device == st->st_dev &&
           entry->size == st->st_size && entry->ctime.tv_sec == st->st_ctim.tv_sec &&
           entry->ctime.tv_nsec == st->st_ctim.tv_nsec;
}

bool image_verified_has(struct image_verified *verified, const struct stat *st,
                        const uint8_t digest[static HASH_SIZE])
{
    bool found = false;
    pthread_mutex_lock(&verified->lock);
    size_t count = verified->total < ENTRIES ? verified->total : ENTRIES;
    for (size_t i = 0; i < count && !found; i++)
        found = same_file(&verified->entries[i], st) &&
                memcmp(verified->entries[i].digest, digest, HASH_SIZE) == 0;
    pthread_mutex_unlock(&verified->lock);
    return found;
}

/* A write in the same tick as the last change leaves ctime as it is. So a file that changed just
 * now is not remembered: it is hashed again next time. */
bool image_verified_settled(const struct stat *st)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t seconds = (int64_t)now.tv_sec - st->st_ctim.tv_sec;
    if (seconds > 1 || seconds < -1)
        return true;
    int64_t ns = seconds * 1000000000 + now.tv_nsec - st->st_ctim.tv_nsec;
    return ns >= RACY_NS || ns <= -RACY_NS;
}

void image_verified_add(struct image_verified *verified, const struct stat *st,
                        const uint8_t digest[static HASH_SIZE])
{
    struct entry entry = {
        .device = st->st_dev, .inode = st->st_ino, .size = st->st_size, .ctime = st->st_ctim};
    memcpy(entry.digest, digest, HASH_SIZE);
    pthread_mutex_lock(&verified->lock);
    verified->entries[verified->total++ % ENTRIES] = entry;
    pthread_mutex_unlock(&verified->lock);
}
