/* Files by directory descriptor. */
#include "base/base.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>

int fs_open_beneath(int dirfd, const char *path, int flags, mode_t mode)
{
    struct open_how how = {
        .flags = (uint64_t)(unsigned)(flags | O_CLOEXEC),
        .mode = mode,
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
    };
    return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

ssize_t fs_read_at(int dirfd, const char *path, char *out, size_t size)
{
    cleanup_close int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return -1;
    size_t len = 0;
    while (len < size) {
        ssize_t n = read(fd, out + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        if (n == 0) {
            out[len] = '\0';
            return (ssize_t)len;
        }
        len += (size_t)n;
    }
    errno = EFBIG;
    return -1;
}

int fs_write_at(int dirfd, const char *path, const char *text)
{
    cleanup_close int fd = openat(dirfd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    if (n >= 0 && n < (ssize_t)strlen(text)) {
        errno = EIO; /* such files take all or nothing */
        return -1;
    }
    return n < 0 ? -1 : 0;
}

int fs_write_all(int fd, const void *data, size_t len)
{
    const char *from = data;
    while (len > 0) {
        ssize_t n = write(fd, from, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        from += n;
        len -= (size_t)n;
    }
    return 0;
}

int fs_replace_at(int dirfd, const char *path, const void *data, size_t len, mode_t mode)
{
    char temporary[512];
    if (snprintf(temporary, sizeof(temporary), "%s.tmp", path) >= (int)sizeof(temporary)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    cleanup_close int fd =
        openat(dirfd, temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, mode);
    if (fd < 0)
        return -1;
    if (fs_write_all(fd, data, len) < 0 || fsync(fd) < 0 ||
        renameat(dirfd, temporary, dirfd, path) < 0) {
        int saved = errno;
        unlinkat(dirfd, temporary, 0);
        errno = saved;
        return -1;
    }
    return 0;
}

int fs_mkdir_p(const char *path, mode_t mode)
{
    char part[512];
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/') /* a slash at the end would follow a link */
        len--;
    if (len == 0 || len >= sizeof(part) || path[0] != '/') {
        errno = EINVAL;
        return -1;
    }
    for (size_t i = 1; i <= len; i++) {
        if (i < len && path[i] != '/')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST)
            return -1;
    }
    struct stat st;
    if (lstat(part, &st) < 0)
        return -1;
    if (!S_ISDIR(st.st_mode)) {
        errno = ENOTDIR;
        return -1;
    }
    return 0;
}

static int remove_below(int dirfd, dev_t device, int depth);

static int remove_entry(int dirfd, const char *name, dev_t device, int depth)
{
    if (unlinkat(dirfd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    cleanup_close int fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno == ENOENT ? 0 : -1;
    if (st.st_dev != device || depth == 0) {
        errno = st.st_dev != device ? EXDEV : ELOOP;
        return -1;
    }
    if (remove_below(fd, device, depth - 1) < 0)
        return -1;
    return unlinkat(dirfd, name, AT_REMOVEDIR) == 0 || errno == ENOENT ? 0 : -1;
}

static int remove_below(int dirfd, dev_t device, int depth)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        if (copy >= 0)
            close(copy);
        return -1;
    }
    int result = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            result = -1;
        if (entry == NULL)
            break;
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = remove_entry(dirfd, entry->d_name, device, depth);
        if (result < 0)
            break;
    }
    int saved = errno;
    closedir(dir);
    errno = saved;
    return result;
}

int fs_remove_tree(int dirfd, const char *name)
{
    enum { MAX_DEPTH = 64 };
    struct stat st;
    if (fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -1;
    return remove_entry(dirfd, name, st.st_dev, MAX_DEPTH);
}
