/* Records of instances: what the root half knows about a VM after its own death. They are files of
 * one fixed struct in a directory of root's on tmpfs. No fsync: after a crash of the host the
 * boot id tells that nothing of it lives. */
#include "priv/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

static const char magic[8] = "motte-1";
static const char unfinished[] = ".new"; /* becomes the file without it */

int priv_record_write(int dirfd, struct priv_record *record, struct error *err)
{
    char temporary[ID_INSTANCE_SIZE + 8];
    memcpy(record->magic, magic, sizeof(magic));
    record->size = sizeof(*record);
    snprintf(temporary, sizeof(temporary), "%s%s", record->instance, unfinished);
    cleanup_close int fd =
        openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || fs_write_all(fd, record, sizeof(*record)) < 0 ||
        renameat(dirfd, temporary, dirfd, record->instance) < 0) {
        error_set(err, ERR_SYSTEM, errno, "writing the record of instance %s", record->instance);
        unlinkat(dirfd, temporary, 0);
        return -1;
    }
    return 0;
}

/* Of this version, or of the one before snapshots. */
static bool whole(struct priv_record *record, ssize_t len)
{
    static const size_t earlier = offsetof(struct priv_record, snapshot);
    if (len == (ssize_t)earlier && record->size == earlier) {
        memset((char *)record + earlier, 0, sizeof(*record) - earlier);
        record->size = sizeof(*record);
        return true;
    }
    return len == (ssize_t)sizeof(*record) && record->size == sizeof(*record);
}

static bool sound(const struct priv_record *record, const char *instance)
{
    bool text = memchr(record->boot_id, '\0', sizeof(record->boot_id)) != NULL &&
                memchr(record->snapshot, '\0', sizeof(record->snapshot)) != NULL;
    return memcmp(record->magic, magic, sizeof(magic)) == 0 &&
           id_instance_valid(record->instance) && strcmp(record->instance, instance) == 0 &&
           record->state >= PRIV_RESERVED && record->state <= PRIV_DEAD && record->pid >= 0 &&
           text && (record->snapshot[0] == '\0' || id_instance_valid(record->snapshot));
}

int priv_record_read(int dirfd, const char *instance, struct priv_record *ret, struct error *err)
{
    struct {
        struct priv_record record;
        char extra; /* read too if the file is too long */
    } file;
    cleanup_close int fd = openat(dirfd, instance, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening the record of instance %s", instance);
    ssize_t n = read(fd, &file, sizeof(file.record) + 1);
    if (n < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading the record of instance %s", instance);
    if (!whole(&file.record, n) || !sound(&file.record, instance))
        return error_set(err, ERR_SYSTEM, 0, "the record of instance %s is damaged", instance);
    *ret = file.record;
    return 0;
}

int priv_record_remove(int dirfd, const char *instance, struct error *err)
{
    if (unlinkat(dirfd, instance, 0) < 0 && errno != ENOENT)
        return error_set(err, ERR_SYSTEM, errno, "removing the record of instance %s", instance);
    return 0;
}

/* With a position of its own. */
static DIR *open_again(int dirfd, struct error *err)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir != NULL)
        return dir;
    error_set(err, ERR_SYSTEM, errno, "reading a directory of instances");
    if (copy >= 0)
        close(copy);
    return NULL;
}

/* The next entry; NULL at the end, and with an error before it: what was not seen may be a VM's. */
static const struct dirent *next_entry(DIR *dir, struct error *err)
{
    errno = 0;
    const struct dirent *entry = readdir(dir);
    if (entry == NULL && errno != 0)
        error_set(err, ERR_SYSTEM, errno, "reading a directory of instances");
    return entry;
}

int priv_record_sweep(int dirfd, struct error *err)
{
    DIR *dir = open_again(dirfd, err);
    if (dir == NULL)
        return -1;
    for (const struct dirent *entry; (entry = next_entry(dir, err)) != NULL;) {
        size_t len = strlen(entry->d_name), suffix = strlen(unfinished);
        if (len > suffix && strcmp(entry->d_name + len - suffix, unfinished) == 0)
            unlinkat(dirfd, entry->d_name, 0);
    }
    closedir(dir);
    return err->code == ERR_NONE ? 0 : -1;
}

int priv_each_name(int dirfd, priv_name_handler *each, void *context, struct error *err)
{
    DIR *dir = open_again(dirfd, err);
    if (dir == NULL)
        return -1;
    int result = 0;
    for (const struct dirent *entry; result == 0 && (entry = next_entry(dir, err)) != NULL;)
        if (id_instance_valid(entry->d_name))
            result = each(context, entry->d_name, err);
    closedir(dir);
    return err->code == ERR_NONE ? result : -1;
}
