/* The file system of a jail, as far as the parent can make it: a detached tmpfs with the files in
 * it, and detached read-only copies of the mounts that go onto them. The child only moves them into
 * its own mount namespace; so nothing of it is ever seen on the host, and the kernel takes all of
 * it away with the last process. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>

void priv_jail_init(struct priv_jail *jail)
{
    jail->base = jail->root = jail->hello = -1;
    jail->mount_count = 0;
}

void priv_jail_release(struct priv_jail *jail)
{
    cleanup_close_func(&jail->base);
    cleanup_close_func(&jail->root);
    cleanup_close_func(&jail->hello);
    for (size_t i = 0; i < jail->mount_count; i++)
        cleanup_close_func(&jail->mounts[i].tree);
    priv_jail_init(jail);
}

/* nosuid, but neither nodev nor noexec: the jailer puts its copy of the VMM and /dev/kvm here. */
static int make_tmpfs(struct error *err)
{
    cleanup_close int fs = fsopen("tmpfs", FSOPEN_CLOEXEC);
    if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "size", "16m", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "nr_inodes", "256", 0) < 0 ||
        fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) < 0 ||
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the jail's tmpfs");
    int base = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID);
    return base >= 0 ? base : error_set(err, ERR_LAUNCH, errno, "mounting the jail's tmpfs");
}

static int make_directories(int base, const char *path, struct error *err)
{
    char part[PRIV_PATH_MAX];
    size_t len = strlen(path);
    if (len >= sizeof(part))
        return error_set(err, ERR_LAUNCH, ENAMETOOLONG, "making the jail");
    for (size_t i = 1; i <= len; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdirat(base, part, 0755) < 0)
            return error_set(err, ERR_LAUNCH, errno, "making %s in the jail", part);
    }
    return 0;
}

int priv_jail_tmpfs(struct priv_jail *jail, const char *path, struct error *err)
{
    jail->base = make_tmpfs(err);
    if (jail->base < 0 || (path != NULL && make_directories(jail->base, path, err) < 0))
        return -1;
    jail->root = openat(jail->base, path == NULL ? "." : path,
                        O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (jail->root < 0)
        return error_set(err, ERR_LAUNCH, errno, "opening the jail's root");
    return 0;
}

static int make_target(int root, const char *target, bool directory)
{
    if (directory)
        return mkdirat(root, target, 0755);
    cleanup_close int fd =
        openat(root, target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
    return fd < 0 ? -1 : 0;
}

int priv_jail_bind(struct priv_jail *jail, int fd, const char *target, uint64_t flags,
                   struct error *err)
{
    struct stat st;
    struct mount_attr attr = {.attr_set = flags};
    cleanup_close int tree = open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
    if (tree < 0 || mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
        fstat(fd, &st) < 0 || make_target(jail->root, target, S_ISDIR(st.st_mode)) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the mount for %s in the jail", target);
    snprintf(jail->mounts[jail->mount_count].target, sizeof(jail->mounts[0].target), "%s", target);
    jail->mounts[jail->mount_count++].tree = TAKE_FD(tree);
    return 0;
}

static int bind_file(struct priv_server *server, enum image_file file, const char *name,
                     const uint8_t *digest, const char *target, struct priv_jail *jail,
                     struct error *err)
{
    cleanup_close int fd = image_open(server->state, server->verified, file, name, digest, err);
    if (fd < 0)
        return -1;
    return priv_jail_bind(
        jail, fd, target,
        MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
}

/* Copies the data and leaves the holes: the template is a sparse, empty file system. */
static int copy_sparse(int from, int to)
{
    struct stat st;
    if (ioctl(to, FICLONE, from) == 0)
        return 0;
    if (fstat(from, &st) < 0)
        return -1;
    for (off_t at = 0, end; (at = lseek(from, at, SEEK_DATA)) >= 0; at = end) {
        end = lseek(from, at, SEEK_HOLE);
        if (end < 0)
            return -1;
        for (off_t in = at, out = at; in < end;)
            if (copy_file_range(from, &in, to, &out, (size_t)(end - in), 0) <= 0)
                return -1;
    }
    return errno == ENXIO ? ftruncate(to, st.st_size) : -1;
}

/* What a new disk is a copy of: the kernel's empty one, or the snapshot's. */
static int open_template(struct priv_server *server, const struct image_kernel *kernel,
                         const struct priv_restore *restore, struct error *err)
{
    if (restore != NULL) {
        int copy = fcntl(restore->files[PRIV_FILE_SCRATCH], F_DUPFD_CLOEXEC, 3);
        return copy >= 0 ? copy : error_set(err, ERR_LAUNCH, errno, "copying a descriptor");
    }
    if (!kernel->has_scratch) {
        error_set(err, ERR_LAUNCH, 0,
                  "kernel %s has no scratch template, so that VMs of it cannot have a disk; ask "
                  "for disk_mib 0 or publish the kernel with one",
                  kernel->name);
        return -1;
    }
    return image_open(server->state, server->verified, IMAGE_SCRATCH, kernel->name, kernel->scratch,
                      err);
}

static int make_scratch(struct priv_server *server, const struct priv_instance_slot *slot,
                        const struct image_kernel *kernel, const struct priv_restore *restore,
                        struct error *err)
{
    struct stat st;
    off_t size = (off_t)slot->record.shape.disk_mib << 20;
    cleanup_close int from = open_template(server, kernel, restore, err);
    if (from < 0)
        return -1;
    if (fstat(from, &st) < 0 || st.st_size > size)
        return error_set(err, ERR_LAUNCH, 0, "a disk of kernel %s has at least %lld MiB",
                         kernel->name, (long long)(st.st_size >> 20));
    unlinkat(server->scratch, slot->record.instance, 0);
    cleanup_close int fd = openat(server->scratch, slot->record.instance,
                                  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 || copy_sparse(from, fd) < 0 || ftruncate(fd, size) < 0 ||
        fchown(fd, slot->record.uid, slot->record.uid) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the scratch disk");
    return TAKE_FD(fd);
}

/* Its name goes when the child has mounted it (a nameless file cannot be mounted): from then on the
 * disk lives as long as the jail. */
static int bind_scratch(struct priv_server *server, const struct priv_instance_slot *slot,
                        const struct image_kernel *kernel, struct priv_child *child,
                        struct error *err)
{
    if (slot->record.shape.disk_mib == 0)
        return 0;
    cleanup_close int fd = make_scratch(server, slot, kernel, child->restore, err);
    if (fd < 0)
        return -1;
    return priv_jail_bind(&child->jail, fd, "scratch",
                          MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC, err);
}

int priv_jail_images(struct priv_server *server, const struct priv_instance_slot *slot,
                     const uint8_t image[static HASH_SIZE], struct priv_child *child,
                     struct image_kernel *ret_kernel, struct error *err)
{
    struct priv_jail *jail = &child->jail;
    struct image disk;
    struct image_kernel kernel;
    if (image_find_digest(server->state, image, &disk, err) < 0 ||
        image_kernel_load(server->state, disk.kernel, &kernel, err) < 0 ||
        bind_file(server, IMAGE_DISK, disk.name, disk.digest, "disk", jail, err) < 0 ||
        bind_file(server, IMAGE_VMLINUX, kernel.name, kernel.vmlinux, "kernel", jail, err) < 0 ||
        (kernel.has_initrd &&
         bind_file(server, IMAGE_INITRD, kernel.name, kernel.initrd, "initrd", jail, err) < 0) ||
        bind_scratch(server, slot, &kernel, child, err) < 0)
        return -1;
    *ret_kernel = kernel;
    return 0;
}

void priv_note_kernel(struct priv_server *server, struct priv_instance_slot *slot,
                      const struct image_kernel *kernel)
{
    struct priv_record *record = &slot->record;
    pthread_mutex_lock(&server->lock);
    record->places = 1;
    memcpy(record->vmlinux, kernel->vmlinux, HASH_SIZE);
    if (kernel->has_initrd)
        memcpy(record->initrd, kernel->initrd, HASH_SIZE);
    pthread_mutex_unlock(&server->lock);
}
