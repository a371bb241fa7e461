/* LAUNCH from a snapshot: what must fit, what must be as it was published, and where the VMM sees it.
 */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

void priv_restore_init(struct priv_restore *restore)
{
    memset(&restore->meta, 0, sizeof(restore->meta));
    for (size_t i = 0; i < PRIV_FILES; i++)
        restore->files[i] = -1;
}

void priv_restore_release(struct priv_restore *restore)
{
    for (size_t i = 0; i < PRIV_FILES; i++)
        cleanup_close_func(&restore->files[i]);
    priv_restore_init(restore);
}

static int check_shape(const struct priv_shape *theirs, const struct priv_shape *ours,
                       struct error *err)
{
    if (memcmp(theirs, ours, sizeof(*ours)) == 0)
        return 0;
    return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                     "the snapshot is of %u vCPUs, %u MiB of memory, %u MiB of disk and seccomp "
                     "level %u; %u, %u, %u and %u were asked for",
                     theirs->vcpus, theirs->memory_mib, theirs->disk_mib, theirs->seccomp,
                     ours->vcpus, ours->memory_mib, ours->disk_mib, ours->seccomp);
}

/* The image as it is now: its name may lead to another disk or kernel than it did. */
static int check_image(const struct priv_server *server, const struct priv_snapshot_meta *meta,
                       const uint8_t *image, struct error *err)
{
    static const uint8_t none[HASH_SIZE];
    struct image disk;
    struct image_kernel kernel;
    if (memcmp(meta->image, image, HASH_SIZE) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0, "the snapshot is of another image");
    if (image_find_digest(server->state, image, &disk, err) < 0 ||
        image_kernel_load(server->state, disk.kernel, &kernel, err) < 0)
        return -1;
    if (memcmp(meta->vmlinux, kernel.vmlinux, HASH_SIZE) != 0 ||
        memcmp(meta->initrd, kernel.has_initrd ? kernel.initrd : none, HASH_SIZE) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the snapshot is of image %s with another kernel", disk.name);
    return 0;
}

/* A file that is not there, or not as it was made, says more about the snapshot than an errno. */
static int open_file(struct priv_server *server, int directory, size_t which,
                     struct priv_restore *restore, struct error *err)
{
    const char *name = priv_snapshot_files[which];
    const struct priv_snapshot_file *promised = &restore->meta.files[which];
    struct stat st;
    cleanup_close int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && errno != ENOENT && errno != ELOOP)
        return error_set(err, ERR_SYSTEM, errno, "opening the snapshot's %s", name);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_uid != 0 ||
        (st.st_mode & 0222) != 0 || (uint64_t)st.st_size != promised->size)
        return error_set(err, ERR_SNAPSHOT_DAMAGED, 0, "the snapshot's %s is not as it was made",
                         name);
    if (image_check_pages(fd, server->verified, promised->digest, err) < 0) {
        if (err->code == ERR_IMAGE_CHANGED) {
            *err = (struct error){0};
            error_set(err, ERR_SNAPSHOT_DAMAGED, 0, "the snapshot's %s is not what was written",
                      name);
        }
        return -1;
    }
    restore->files[which] = TAKE_FD(fd);
    return 0;
}

int priv_restore_open(struct priv_server *server, const struct priv_instance_slot *slot,
                      const uint8_t image[static HASH_SIZE], const char *snapshot,
                      struct priv_restore *restore, struct error *err)
{
    cleanup_close int directory = -1;
    const struct priv_snapshot_meta *meta = &restore->meta;
    if (priv_meta_read(server->snapshots, snapshot, &restore->meta, &directory, err) < 0 ||
        priv_meta_fits_host(server, meta, err) < 0 ||
        check_shape(&meta->shape, &slot->record.shape, err) < 0 ||
        check_image(server, meta, image, err) < 0)
        return -1;
    for (size_t i = 0; i < PRIV_FILES; i++)
        if (priv_snapshot_has(meta->apart, &meta->shape, i) &&
            open_file(server, directory, i, restore, err) < 0)
            return -1;
    return 0;
}

static int bind_file(struct priv_jail *jail, int file, const char *place, struct error *err)
{
    const uint64_t flags =
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
    return priv_jail_bind(jail, file, place, flags, err);
}

static int bind_all(struct priv_jail *jail, const int *files, const char *const *places,
                    struct error *err)
{
    for (size_t i = 0; i < PRIV_PLACES; i++)
        if (bind_file(jail, files[i], places[i], err) < 0)
            return -1;
    return 0;
}

int priv_restore_bind(struct priv_jail *jail, const struct priv_restore *restore, struct error *err)
{
    return bind_file(jail, restore->files[PRIV_FILE_STATE], priv_restore_places[PRIV_FILE_STATE],
                     err);
}

int priv_places_make(struct priv_jail *jail, const struct priv_restore *restore, int null,
                     struct error *err)
{
    const int closed[PRIV_PLACES] = {null, null};
    if (bind_all(jail, closed, priv_snapshot_places, err) < 0)
        return -1;
    return restore == NULL ? 0 : bind_all(jail, restore->files, priv_restore_places, err);
}
