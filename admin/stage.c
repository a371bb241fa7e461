/* A catalogue directory is made aside, in STATE/incoming, and published by one rename: a reader
 * sees all of it or nothing, and a killed run leaves nothing that anybody reads. */
#include "admin/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>

static int open_directory(int at, const char *path)
{
    return openat(at, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
}

static void clear_directory(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        if (copy >= 0)
            close(copy);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            fs_remove_tree(fd, entry->d_name);
    closedir(dir);
}

static int make_directories(int state, struct error *err)
{
    static const char *const names[] = {"images", "kernels", "incoming"};
    static const mode_t modes[] = {0755, 0755, 0700};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (mkdirat(state, names[i], modes[i]) < 0 && errno != EEXIST)
            return error_set(err, ERR_SYSTEM, errno, "Cannot make %s in the state directory",
                             names[i]);
    return 0;
}

int admin_stage_open(const struct admin *admin, struct admin_stage *stage, struct error *err)
{
    if (geteuid() != 0)
        return error_set(err, ERR_SYSTEM, 0,
                         "Only root may change the catalogue: run this as root");
    if (fs_mkdir_p(admin->state_dir, 0755) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make %s", admin->state_dir);
    stage->state = open_directory(AT_FDCWD, admin->state_dir);
    if (stage->state < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", admin->state_dir);
    if (make_directories(stage->state, err) < 0)
        return -1;
    stage->incoming = open_directory(stage->state, "incoming");
    if (stage->incoming < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s/incoming", admin->state_dir);
    if (flock(stage->incoming, LOCK_EX) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot lock %s/incoming", admin->state_dir);
    clear_directory(stage->incoming);
    if (id_instance_make(stage->name, err) < 0)
        return -1;
    if (mkdirat(stage->incoming, stage->name, 0755) < 0 ||
        (stage->dir = open_directory(stage->incoming, stage->name)) < 0 ||
        fchmod(stage->dir, 0755) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make a directory in %s/incoming",
                         admin->state_dir);
    return 0;
}

void admin_stage_release(struct admin_stage *stage)
{
    if (stage->incoming >= 0)
        clear_directory(stage->incoming);
    cleanup_close_func(&stage->dir);
    cleanup_close_func(&stage->incoming); /* and with it the lock */
    cleanup_close_func(&stage->state);
    *stage = (struct admin_stage)ADMIN_STAGE_INIT;
}

static int copy_extent(int from, int to, off_t at, off_t end)
{
    char bytes[65536];
    while (at < end) {
        size_t want = (size_t)(end - at) < sizeof(bytes) ? (size_t)(end - at) : sizeof(bytes);
        ssize_t n = pread(from, bytes, want, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n == 0)
            errno = EIO; /* shorter than a moment ago */
        if (n <= 0 || lseek(to, at, SEEK_SET) < 0 || fs_write_all(to, bytes, (size_t)n) < 0)
            return -1;
        at += n;
    }
    return 0;
}

/* Data extents only, so that a sparse file stays sparse. */
static int copy_data(int from, int to, off_t size)
{
    off_t at = 0;
    while (at < size) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            break;
        if (data < 0)
            return errno == EINVAL ? copy_extent(from, to, 0, size) : -1;
        off_t end = lseek(from, data, SEEK_HOLE);
        if (end < 0 || copy_extent(from, to, data, end) < 0)
            return -1;
        at = end;
    }
    return ftruncate(to, size);
}

int admin_stage_copy(const struct admin_stage *stage, int from, const char *file, struct error *err)
{
    struct stat st;
    if (fstat(from, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot look at %s", file);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_CONFIG, 0, "%s is not a regular file", file);
    cleanup_close int to =
        openat(stage->dir, file, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to < 0 || copy_data(from, to, st.st_size) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot copy %s into the state directory", file);
    return 0;
}

int admin_stage_seal(const struct admin_stage *stage, const char *file,
                     uint8_t digest[static HASH_SIZE], uint64_t *ret_size, struct error *err)
{
    cleanup_close int fd = openat(stage->dir, file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    struct stat st;
    if (fd < 0 || fchown(fd, 0, 0) < 0 || fchmod(fd, 0444) < 0 || fsync(fd) < 0 ||
        fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot seal %s", file);
    if (hash_sha256_fd(fd, digest, err) < 0)
        return -1;
    if (ret_size != NULL)
        *ret_size = (uint64_t)st.st_size;
    return 0;
}

static int publish_rename(const struct admin_stage *stage, int kind, const char *name, bool replace)
{
    if (renameat2(stage->incoming, stage->name, kind, name, RENAME_NOREPLACE) == 0)
        return 0;
    if (errno != EEXIST || !replace)
        return -1;
    /* The old one lands in incoming, under the stage's name, and goes with the stage. */
    return renameat2(stage->incoming, stage->name, kind, name, RENAME_EXCHANGE);
}

int admin_stage_publish(struct admin_stage *stage, const char *kind, const char *name,
                        const char *manifest, bool replace, struct error *err)
{
    cleanup_close int kinds = open_directory(stage->state, kind);
    if (kinds < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s in the state directory", kind);
    if (fs_replace_at(stage->dir, "manifest", manifest, strlen(manifest), 0444) < 0 ||
        fsync(stage->dir) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot write the manifest of %s", name);
    if (publish_rename(stage, kinds, name, replace) < 0) {
        if (errno == EEXIST)
            return error_set(err, ERR_CONFIG, 0,
                             "%s/%s is there already: choose another name or give --replace", kind,
                             name);
        return error_set(err, ERR_SYSTEM, errno, "Cannot publish %s/%s", kind, name);
    }
    if (fsync(kinds) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot write %s/%s to disk", kind, name);
    return 0;
}

int admin_stage_retract(struct admin_stage *stage, const char *kind, const char *name,
                        struct error *err)
{
    cleanup_close int kinds = open_directory(stage->state, kind);
    if (kinds < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s in the state directory", kind);
    if (renameat2(kinds, name, stage->incoming, "retracted", 0) < 0) {
        if (errno == ENOENT)
            return error_set(err, ERR_NOT_FOUND, 0, "There is no %s/%s", kind, name);
        return error_set(err, ERR_SYSTEM, errno, "Cannot remove %s/%s", kind, name);
    }
    return fsync(kinds) == 0 ? 0 : error_set(err, ERR_SYSTEM, errno, "Cannot sync %s", kind);
}
