/* What a VMM boots from, as it lies in its jail. */
#include "priv/check_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MOUNTS_MAX = 1 << 18 };

/* mountinfo (proc(5)): id, parent, device, root, mount point, options, … The paths are as the VMM
 * sees them; of mounts on each other the last is seen. 1 read-only, 0 writable, -1 absent. */
static int mounted_readonly(const char *mounts, const char *point)
{
    int found = -1;
    for (const char *line = mounts; line != NULL && *line != '\0';) {
        char at[256], options[256];
        if (sscanf(line, "%*s %*s %*s %*s %255s %255s", at, options) == 2 && strcmp(at, point) == 0)
            found = strncmp(options, "ro", 2) == 0 && (options[2] == ',' || options[2] == '\0');
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return found;
}

static int look_at_mount(const struct priv_look *look, const char *point, bool needed,
                         struct priv_line *ret, struct error *err)
{
    char path[32];
    cleanup_free char *mounts = malloc(MOUNTS_MAX);
    snprintf(path, sizeof(path), "/proc/%d/mountinfo", look->slot->record.pid);
    if (mounts == NULL || fs_read_at(AT_FDCWD, path, mounts, MOUNTS_MAX) < 0)
        return error_set(err, ERR_GUARD, errno, "reading the mounts of the VMM");
    int readonly = mounted_readonly(mounts, point);
    if (readonly == 1 || (readonly < 0 && !needed))
        return 0;
    ret->state = readonly < 0 ? PRIV_LINE_ABSENT : PRIV_LINE_WRONG;
    return error_set(err, ERR_GUARD, 0, "the VMM's %s is not mounted read-only", point);
}

int priv_line_image_readonly(struct priv_look *look, int what, struct priv_line *ret,
                             struct error *err)
{
    (void)what;
    return look_at_mount(look, "/disk", true, ret, err);
}

/* Not every kernel has an initrd. */
int priv_line_kernel_readonly(struct priv_look *look, int what, struct priv_line *ret,
                              struct error *err)
{
    (void)what;
    if (look_at_mount(look, "/kernel", true, ret, err) < 0)
        return -1;
    return look_at_mount(look, "/initrd", false, ret, err);
}

/* The very file that is mounted, not the catalogue's of today: that may have a new version of the
 * image, or none. A file whose digest is known (device, inode, size, ctime) is not read again. */
int priv_line_image_digest(struct priv_look *look, int what, struct priv_line *ret,
                           struct error *err)
{
    struct stat st;
    char path[32];
    (void)what;
    (void)ret;
    snprintf(path, sizeof(path), "/proc/%d/root", look->slot->record.pid);
    cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int disk =
        root < 0 ? -1 : fs_open_beneath(root, "disk", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (disk < 0 || fstat(disk, &st) < 0)
        return error_set(err, ERR_GUARD, errno, "opening the VMM's /disk");
    if (!S_ISREG(st.st_mode) || st.st_uid != 0)
        return error_set(err, ERR_GUARD, 0, "the VMM's /disk is not a file of the catalogue");
    if (image_check(disk, look->server->verified, look->slot->record.image, err) < 0)
        return error_wrap(err, "the VMM's /disk");
    return 0;
}
