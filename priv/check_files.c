/* What a VMM boots or is restored from, as it lies in its jail. */
#include "priv/check_internal.h"
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MOUNTS_MAX = 1 << 18 };

static const char *const points[PRIV_MOUNTED] = {
    [PRIV_MOUNTED_DISK] = "/disk",
    [PRIV_MOUNTED_KERNEL] = "/kernel",
    [PRIV_MOUNTED_INITRD] = "/initrd",
    [PRIV_MOUNTED_PLACE_STATE] = PRIV_PLACE_STATE,
    [PRIV_MOUNTED_PLACE_MEMORY] = PRIV_PLACE_MEMORY,
    [PRIV_MOUNTED_RESTORE_STATE] = PRIV_RESTORE_STATE,
    [PRIV_MOUNTED_RESTORE_MEMORY] = PRIV_RESTORE_MEMORY,
};

/* mountinfo (proc(5)): id, parent, device, root, mount point, options, … The paths are as the VMM
 * sees them. */
static struct priv_mount_state find_mounts(const char *mounts, const char *point)
{
    struct priv_mount_state found = {-1, -1};
    for (const char *line = mounts; line != NULL && *line != '\0';) {
        char at[256], options[256];
        if (sscanf(line, "%*s %*s %*s %*s %255s %255s", at, options) == 2 &&
            strcmp(at, point) == 0) {
            found.last =
                strncmp(options, "ro", 2) == 0 && (options[2] == ',' || options[2] == '\0');
            found.first = found.first < 0 ? found.last : found.first;
        }
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return found;
}

static void read_all_mounts(struct priv_look *look)
{
    char path[32];
    cleanup_free char *mounts = malloc(MOUNTS_MAX);
    snprintf(path, sizeof(path), "/proc/%d/mountinfo", look->slot->record.pid);
    look->mounts_read = true;
    if (mounts == NULL || fs_read_at(AT_FDCWD, path, mounts, MOUNTS_MAX) < 0) {
        error_set(&look->mounts, ERR_GUARD, errno, "reading the mounts of the VMM");
        return;
    }
    for (size_t i = 0; i < COUNT_OF(points); i++)
        look->mounted[i] = find_mounts(mounts, points[i]);
}

static int read_mounts(struct priv_look *look, struct error *err)
{
    if (!look->mounts_read)
        read_all_mounts(look);
    *err = look->mounts;
    return look->mounts.code == ERR_NONE ? 0 : -1;
}

static int not_readonly(enum priv_mounted which, int found, struct priv_line *ret,
                        struct error *err)
{
    ret->state = found < 0 ? PRIV_LINE_ABSENT : PRIV_LINE_WRONG;
    return error_set(err, ERR_GUARD, 0, "the VMM's %s is not mounted read-only", points[which]);
}

static int look_at_mount(struct priv_look *look, enum priv_mounted which, bool needed,
                         struct priv_line *ret, struct error *err)
{
    if (read_mounts(look, err) < 0)
        return -1;
    int seen = look->mounted[which].last;
    if (seen == 1 || (seen < 0 && !needed))
        return 0;
    return not_readonly(which, seen, ret, err);
}

int priv_line_image_readonly(struct priv_look *look, int what, struct priv_line *ret,
                             struct error *err)
{
    (void)what;
    return look_at_mount(look, PRIV_MOUNTED_DISK, true, ret, err);
}

/* Not every kernel has an initrd. */
int priv_line_kernel_readonly(struct priv_look *look, int what, struct priv_line *ret,
                              struct error *err)
{
    (void)what;
    if (look_at_mount(look, PRIV_MOUNTED_KERNEL, true, ret, err) < 0)
        return -1;
    return look_at_mount(look, PRIV_MOUNTED_INITRD, false, ret, err);
}

/* The very file that is mounted, not the one that has its name today. A file whose digest is known
 * (device, inode, size, ctime) is not read again. */
static int look_at_file(const struct priv_look *look, const char *name,
                        int (*check)(int fd, struct image_verified *verified,
                                     const uint8_t digest[static HASH_SIZE], struct error *err),
                        const uint8_t *digest, struct error *err)
{
    struct stat st;
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/root", look->slot->record.pid);
    cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int fd =
        root < 0 ? -1 : fs_open_beneath(root, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_GUARD, errno, "opening the VMM's /%s", name);
    if (!S_ISREG(st.st_mode) || st.st_uid != 0)
        return error_set(err, ERR_GUARD, 0, "the VMM's /%s is not a file of root's", name);
    if (check(fd, look->server->verified, digest, err) < 0)
        return error_wrap(err, "the VMM's /%s", name);
    return 0;
}

int priv_line_image_digest(struct priv_look *look, int what, struct priv_line *ret,
                           struct error *err)
{
    (void)what;
    (void)ret;
    return look_at_file(look, "disk", image_check, look->slot->record.image, err);
}

static int does_not_apply(struct priv_line *ret, const char *why)
{
    ret->state = PRIV_LINE_NOT_APPLICABLE;
    snprintf(ret->detail, sizeof(ret->detail), "%s", why);
    return 0;
}

static int look_at_restored(struct priv_look *look, struct priv_line *ret, struct error *err)
{
    if (look->slot->record.snapshot[0] == '\0')
        return 0;
    if (look_at_mount(look, PRIV_MOUNTED_RESTORE_STATE, true, ret, err) < 0)
        return -1;
    return look_at_mount(look, PRIV_MOUNTED_RESTORE_MEMORY,
                         look->slot->record.hypervisor == PRIV_FIRECRACKER, ret, err);
}

/* It has descriptors in the place of places. */
static int look_at_lent(struct priv_look *look, struct priv_line *ret, struct error *err)
{
    if (look->slot->record.snapshot[0] == '\0')
        return does_not_apply(ret, "it booted, and is lent a file only while a snapshot is made");
    return look_at_restored(look, ret, err);
}

/* While a snapshot is staged there is a file over each place that the VMM may write, and beneath it
 * what is always there. */
int priv_line_snapshot_readonly(struct priv_look *look, int what, struct priv_line *ret,
                                struct error *err)
{
    static const enum priv_mounted places[PRIV_PLACES] = {PRIV_MOUNTED_PLACE_STATE,
                                                          PRIV_MOUNTED_PLACE_MEMORY};
    const bool staged = look->slot->phase == PRIV_PHASE_STAGED;
    (void)what;
    if (look->slot->record.places == 0)
        return does_not_apply(ret, "no place for a snapshot in its jail");
    if (look->slot->record.hypervisor == PRIV_QEMU)
        return look_at_lent(look, ret, err);
    if (read_mounts(look, err) < 0)
        return -1;
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        struct priv_mount_state found = look->mounted[places[i]];
        int seen = staged ? found.first : found.last;
        if (found.first != 1 || seen != 1)
            return not_readonly(places[i], seen, ret, err);
    }
    return look_at_restored(look, ret, err);
}

/* A line of /proc/PID/maps (proc(5)): begin-end, permissions, offset, device, inode, name. Is it of such
 * a file, and mapped so that nobody else sees what is written there? 1, 0, or -1: they do. */
static int is_memory(const char *line, unsigned long *begin, unsigned long *end)
{
    static const char name[] = "/memfd:" PRIV_MEMORY_NAME;
    enum { MODE = 1, MODE_LEN = 4 };
    const char *file = strstr(line, name);
    char *at = NULL;
    *begin = strtoul(line, &at, 16);
    *end = *at == '-' ? strtoul(at + 1, &at, 16) : 0;
    if (file == NULL || *end <= *begin || strnlen(at, MODE + MODE_LEN) < MODE + MODE_LEN)
        return 0;
    return at[MODE + MODE_LEN - 1] == 'p' ? 1 : -1;
}

/* The file that the VMM has for its memory. -1. */
static int open_memory(const struct priv_look *look, struct error *err)
{
    const int pid = look->slot->record.pid;
    char path[80];
    unsigned long begin = 0, end = 0;
    cleanup_free char *maps = malloc(MOUNTS_MAX);
    snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    if (maps == NULL || fs_read_at(AT_FDCWD, path, maps, MOUNTS_MAX) < 0)
        return error_set(err, ERR_GUARD, errno, "reading what the VMM has mapped");
    int found = 0;
    char *rest = maps;
    for (const char *line; found == 0 && (line = strsep(&rest, "\n")) != NULL;)
        found = is_memory(line, &begin, &end);
    if (found <= 0)
        return error_set(err, ERR_GUARD, 0, "the VMM's memory is %s",
                         found < 0 ? "shared with other VMs" : "not what it was restored from");
    snprintf(path, sizeof(path), "/proc/%d/map_files/%lx-%lx", pid, begin, end);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    return fd >= 0 ? fd : error_set(err, ERR_GUARD, errno, "opening the VMM's memory");
}

/* Sealed, and what was published: so it stays that. */
static int look_at_memory(const struct priv_look *look, struct error *err)
{
    cleanup_close int fd = open_memory(look, err);
    if (fd < 0)
        return -1;
    if (fcntl(fd, F_GET_SEALS) != PRIV_MEMORY_SEALS)
        return error_set(err, ERR_GUARD, 0, "the VMM's memory can be changed under it");
    if (image_check_pages(fd, look->server->verified, look->slot->record.memory, err) < 0)
        return error_wrap(err, "the VMM's memory");
    return 0;
}

int priv_line_snapshot_digest(struct priv_look *look, int what, struct priv_line *ret,
                              struct error *err)
{
    const struct priv_record *record = &look->slot->record;
    (void)what;
    if (record->snapshot[0] == '\0')
        return does_not_apply(ret, "it booted: no snapshot lies beneath it");
    if (record->hypervisor == PRIV_QEMU && record->from_apart)
        return look_at_memory(look, err);
    return look_at_file(look, priv_restore_places[priv_snapshot_memory(record->from_apart)],
                        image_check_pages, record->memory, err);
}
