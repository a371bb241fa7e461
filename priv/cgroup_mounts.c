/* Where the cgroup hierarchies are: version 2 when it has all three controllers, else version 1's
 * memory, cpu and pids, each its own tree; and io, where the same version has it. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { MOUNTS_MAX = 1 << 20, FIELDS_MAX = 32, REQUIRED = PRIV_CGROUP_IO };

static const char *const controllers[PRIV_CGROUP_DIRS] = {"memory", "cpu", "pids", "blkio"};

/* Is `word` one of the words of `list`, separated by commas or blanks? */
static bool listed(const char *list, const char *word)
{
    size_t len = strlen(word);
    for (const char *at = list; (at = strstr(at, word)) != NULL; at += len)
        if ((at == list || strchr(", ", at[-1]) != NULL) && strchr(", \n", at[len]) != NULL)
            return true;
    return false;
}

void priv_cgroups_init(struct priv_cgroups *cgroups)
{
    memset(cgroups, 0, sizeof(*cgroups));
    for (size_t i = 0; i < PRIV_CGROUP_DIRS; i++)
        cgroups->mount[i] = cgroups->root[i] = -1;
}

void priv_cgroups_close(struct priv_cgroups *cgroups)
{
    for (size_t i = 0; i < PRIV_CGROUP_DIRS; i++) {
        cleanup_close_func(&cgroups->mount[i]);
        cleanup_close_func(&cgroups->root[i]);
    }
    priv_cgroups_init(cgroups);
}

struct found {
    int unified;                  /* cgroup2 with all required controllers */
    bool io;                      /* and that one too */
    int legacy[PRIV_CGROUP_DIRS]; /* per controller */
};

static void look_at(const char *point, const char *type, const char *options, struct found *found)
{
    bool unified = strcmp(type, "cgroup2") == 0;
    if (!unified && strcmp(type, "cgroup") != 0)
        return;
    cleanup_close int fd = open(point, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char has[512] = "";
    if (fd < 0)
        return;
    if (unified && fs_read_at(fd, "cgroup.controllers", has, sizeof(has)) >= 0 &&
        listed(has, "memory") && listed(has, "cpu") && listed(has, "pids") && found->unified < 0) {
        found->unified = TAKE_FD(fd);
        found->io = listed(has, "io");
    }
    for (size_t i = 0; !unified && i < PRIV_CGROUP_DIRS; i++)
        if (listed(options, controllers[i]) && found->legacy[i] < 0)
            found->legacy[i] = fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* One line of mountinfo (proc(5)): … [4] mount point … "-" type, source, options. */
static void look_at_line(char *line, struct found *found)
{
    char *fields[FIELDS_MAX], *rest = line;
    size_t count = 0, dash = 0;
    for (char *field; count < FIELDS_MAX && (field = strsep(&rest, " ")) != NULL; count++) {
        fields[count] = field;
        if (dash == 0 && strcmp(field, "-") == 0)
            dash = count;
    }
    if (dash > 4 && dash + 3 < count)
        look_at(fields[4], fields[dash + 1], fields[dash + 3], found);
}

static int make_root(struct priv_cgroups *cgroups, size_t i, struct error *err)
{
    if (mkdirat(cgroups->mount[i], cgroups->name, 0755) < 0 && errno != EEXIST)
        return error_set(err, ERR_CGROUP, errno, "making the cgroup %s", cgroups->name);
    cgroups->root[i] =
        fs_open_beneath(cgroups->mount[i], cgroups->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (cgroups->root[i] < 0)
        return error_set(err, ERR_CGROUP, errno, "opening the cgroup %s", cgroups->name);
    return 0;
}

static int enable(int dirfd, bool io, struct error *err)
{
    for (size_t i = 0; i < REQUIRED + (io ? 1U : 0U); i++) {
        const char *name = i == PRIV_CGROUP_IO ? "io" : controllers[i];
        char text[16];
        snprintf(text, sizeof(text), "+%s", name);
        if (fs_write_at(dirfd, "cgroup.subtree_control", text) < 0)
            return error_set(err, ERR_CGROUP, errno,
                             "enabling the cgroup controller %s for VMs; is Motte inside a "
                             "container without a cgroup of its own?",
                             name);
    }
    return 0;
}

static int take(struct priv_cgroups *cgroups, struct found *found, struct error *err)
{
    if (found->unified >= 0) {
        cgroups->version = 2;
        cgroups->count = 1;
        cgroups->mount[0] = TAKE_FD(found->unified);
        if (make_root(cgroups, 0, err) < 0 || enable(cgroups->mount[0], found->io, err) < 0)
            return -1;
        return enable(cgroups->root[0], found->io, err);
    }
    for (size_t i = 0; i < REQUIRED; i++)
        if (found->legacy[i] < 0)
            return error_set(err, ERR_CGROUP, 0,
                             "this host has no cgroup controller %s, neither in version 2 nor in "
                             "version 1; mount cgroup2, or start with --without=cgroup",
                             controllers[i]);
    cgroups->version = 1;
    cgroups->count = REQUIRED + (found->legacy[PRIV_CGROUP_IO] >= 0 ? 1 : 0);
    for (size_t i = 0; i < cgroups->count; i++) {
        cgroups->mount[i] = TAKE_FD(found->legacy[i]);
        if (make_root(cgroups, i, err) < 0)
            return -1;
    }
    return 0;
}

int priv_cgroups_open(struct priv_cgroups *cgroups, const char *name, struct error *err)
{
    if (!id_name_valid(name))
        return error_set(err, ERR_CONFIG, 0, "`%.40s` cannot be the name of a cgroup", name);
    snprintf(cgroups->name, sizeof(cgroups->name), "%s", name);
    cleanup_free char *text = malloc(MOUNTS_MAX);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the list of mounts");
    if (fs_read_at(AT_FDCWD, "/proc/self/mountinfo", text, MOUNTS_MAX) < 0)
        return error_set(err, ERR_CGROUP, errno, "reading /proc/self/mountinfo");
    struct found found = {.unified = -1, .legacy = {-1, -1, -1, -1}};
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        look_at_line(line, &found);
    int result = take(cgroups, &found, err);
    cleanup_close_func(&found.unified);
    for (size_t i = 0; i < PRIV_CGROUP_DIRS; i++)
        cleanup_close_func(&found.legacy[i]);
    return result;
}

int priv_cgroups_remove(struct priv_cgroups *cgroups, struct error *err)
{
    for (size_t i = 0; i < cgroups->count; i++)
        if (unlinkat(cgroups->mount[i], cgroups->name, AT_REMOVEDIR) < 0 && errno != ENOENT)
            return error_set(err, ERR_CGROUP, errno, "removing the cgroup %s", cgroups->name);
    return 0;
}
