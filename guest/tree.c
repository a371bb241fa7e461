/* A directory and all in it, removed. Nothing outside of it is reached: every name is looked up in the
 * directory that was opened before, links are removed and not followed, and what is mounted in it
 * stays. */
#include "guest/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

DIR *guest_tree_open(int dir, const char *name, dev_t dev)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *list = NULL;
    if (fd >= 0 && fstat(fd, &st) == 0) {
        if (st.st_dev == dev)
            list = fdopendir(fd);
        else
            errno = EXDEV;
    }
    if (!list && fd >= 0) {
        int sys = errno;
        close(fd);
        errno = sys;
    }
    return list;
}

static int remove_at(int dir, const char *name, dev_t dev, int depth);

static int empty(int dir, const char *name, dev_t dev, int depth)
{
    if (depth == 0) {
        errno = ELOOP;
        return -1;
    }
    DIR *list = guest_tree_open(dir, name, dev);
    if (!list)
        return -1;
    int result = 0, sys = 0;
    struct dirent *entry;
    while (result == 0 && (errno = 0, entry = readdir(list)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = remove_at(dirfd(list), entry->d_name, dev, depth - 1);
    if (errno)
        result = -1;
    sys = errno;
    closedir(list);
    errno = sys;
    return result;
}

static int remove_at(int dir, const char *name, dev_t dev, int depth)
{
    if (unlinkat(dir, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return -1;
    if (empty(dir, name, dev, depth))
        return -1;
    return unlinkat(dir, name, AT_REMOVEDIR) && errno != ENOENT ? -1 : 0;
}

int guest_tree_remove(int dir, const char *name)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return -1;
    return remove_at(dir, name, st.st_dev, GUEST_DEPTH_MAX);
}
