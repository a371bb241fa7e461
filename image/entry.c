/* Opening what lies in the catalogue: by descriptor, no link followed, nothing but root's own. */
#include "image/internal.h"

#include <errno.h>
#include <fcntl.h>

/* Group and others may read, never write. */
static int require_root(const struct stat *st, const char *what, struct error *err)
{
    if (st->st_uid != 0 || (st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "%s belongs to uid %u with mode %04o: it must be root's and not writable "
                         "by anybody else; make it anew with motte-admin",
                         what, (unsigned)st->st_uid, (unsigned)st->st_mode & 07777);
    return 0;
}

int image_entry_open(int state, const char *base, const char *name, struct error *err)
{
    char path[64];
    if (!id_name_valid(name))
        return error_set(err, ERR_CONFIG, 0, "%s: `%.32s` is not a valid name", base, name);
    snprintf(path, sizeof(path), "%s/%s", base, name);
    cleanup_close int fd = fs_open_beneath(state, path, O_RDONLY | O_DIRECTORY, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_CONFIG, errno, "%s cannot be opened", path);
    if (require_root(&st, path, err) < 0)
        return -1;
    return TAKE_FD(fd);
}

int image_entry_file(int entry, const char *file, struct stat *ret, struct error *err)
{
    /* O_NONBLOCK: a FIFO put in the file's place must not hang us before we see what it is. */
    cleanup_close int fd = fs_open_beneath(entry, file, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_CONFIG, errno, "%s cannot be opened", file);
    if (!S_ISREG(st.st_mode))
        return error_set(err, ERR_CONFIG, 0, "%s is not a regular file", file);
    if (require_root(&st, file, err) < 0)
        return -1;
    if (fcntl(fd, F_SETFL, 0) < 0)
        return error_set(err, ERR_SYSTEM, errno, "%s", file);
    *ret = st;
    return TAKE_FD(fd);
}
