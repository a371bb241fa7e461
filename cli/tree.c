/* A tree that a stranger packed, looked through before anybody else sees it. */
#include "cli/tar.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>

enum { FLAGS = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC };

struct look {
    int root;
    unsigned moved, names; /* up to the root, as they lay too deep; the next name to try there */
    struct error *err;
};

/* The first thing that is wrong is told; the rest is tamed all the same, so that it can be removed. */
static void refuse(const struct look *look, const char *name, const char *why)
{
    if (look->err->code == ERR_NONE)
        error_set(look->err, ERR_ARCHIVE, 0, "nothing is kept of what the VM packed: \"%.80s\" %s",
                  name, why);
}

/* `..` may only stand in front: then no link that is passed on the way makes a difference. */
static bool leads_out(const char *target, unsigned depth)
{
    unsigned up = 0;
    bool below = false;
    if (target[0] == '/')
        return true;
    for (size_t len; target[0] != '\0'; target += len) {
        target += strspn(target, "/");
        len = strcspn(target, "/");
        bool parent = len == 2 && memcmp(target, "..", 2) == 0;
        if (parent && (below || ++up > depth))
            return true;
        below |= !parent && len > 0 && !(len == 1 && target[0] == '.');
    }
    return false;
}

static void look_at_link(int dir, const char *name, unsigned depth, struct look *look)
{
    char target[PATH_MAX];
    ssize_t len = readlinkat(dir, name, target, sizeof(target) - 1);
    if (len < 0 || len == (ssize_t)sizeof(target) - 1) {
        refuse(look, name, "is a link that cannot be read");
        return;
    }
    target[len] = '\0';
    if (leads_out(target, depth))
        refuse(look, name, "is a link that may lead out of the directory");
}

/* What lies too deep is refused, and looked into where it can be removed. */
static void move_up(int dir, const char *name, struct look *look)
{
    char other[32];
    refuse(look, name, "lies too deep");
    do {
        snprintf(other, sizeof(other), ".motte-deep-%u", look->names++);
        errno = 0;
        if (renameat2(dir, name, look->root, other, RENAME_NOREPLACE) == 0)
            look->moved++;
    } while (errno == EEXIST);
}

static void look_into(int dir, unsigned depth, struct look *look);

static void look_at(int dir, const char *name, unsigned depth, struct look *look)
{
    struct stat status;
    if (fstatat(dir, name, &status, AT_SYMLINK_NOFOLLOW) != 0) {
        refuse(look, name, "cannot be looked at");
        return;
    }
    mode_t mode = status.st_mode & 01777;
    if (S_ISLNK(status.st_mode)) {
        look_at_link(dir, name, depth, look);
        return;
    }
    if (S_ISDIR(status.st_mode))
        mode |= S_IRWXU;
    else if (!S_ISREG(status.st_mode))
        refuse(look, name, "is neither a file nor a directory nor a link");
    else if (status.st_nlink != 1)
        refuse(look, name, "is a hard link");
    if (mode != (status.st_mode & 07777) && fchmodat(dir, name, mode, 0) != 0)
        refuse(look, name, "cannot be given other permissions");
    if (!S_ISDIR(status.st_mode))
        return;
    int into = openat(dir, name, FLAGS);
    if (into < 0)
        refuse(look, name, "cannot be opened");
    else if (depth + 1 > CLI_TREE_DEPTH_MAX)
        move_up(dir, name, look);
    else
        look_into(TAKE_FD(into), depth + 1, look);
    if (into >= 0)
        close(into);
}

/* Closes `dir`. */
static void look_into(int dir, unsigned depth, struct look *look)
{
    DIR *list = fdopendir(dir);
    if (list == NULL) {
        close(dir);
        refuse(look, ".", "cannot be read");
        return;
    }
    const struct dirent *entry;
    while ((errno = 0, entry = readdir(list)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            look_at(dir, entry->d_name, depth, look);
    if (errno != 0)
        refuse(look, ".", "cannot be read");
    closedir(list);
}

int cli_tree_tame(int dir, struct error *err)
{
    int own = openat(dir, ".", FLAGS);
    if (own < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot look through what was unpacked");
    struct look look = {.root = dir, .err = err};
    for (unsigned before; own >= 0; own = look.moved != before ? openat(dir, ".", FLAGS) : -1) {
        before = look.moved;
        look_into(own, 0, &look);
    }
    return err->code == ERR_NONE ? 0 : -1;
}
