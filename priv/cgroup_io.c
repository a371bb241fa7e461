/* Which disk a VM's io is limited on: the one that holds the state directory, and so its image and
 * its scratch disk. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

static const char no_disk[] =
    "the state directory has no block device of its own (tmpfs, overlay, btrfs)";
static const char no_controller[] = "this host has no cgroup controller for input and output";
static const char no_limit[] = "started without this limit: max-io-mib-s and max-iops are 0";

/* MAJOR:MINOR of the whole disk: partitions have no limit of their own. Empty if there is none. */
static int find_disk(int state, char *out, size_t size, struct error *err)
{
    char path[64];
    struct stat st;
    if (fstat(state, &st) < 0)
        return error_set(err, ERR_CGROUP, errno, "looking for the state directory's disk");
    unsigned major = major(st.st_dev), minor = minor(st.st_dev);
    out[0] = '\0';
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u", major, minor);
    if (major == 0 || access(path, F_OK) < 0)
        return 0;
    snprintf(out, size, "%u:%u", major, minor);
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/partition", major, minor);
    if (access(path, F_OK) < 0)
        return 0;
    snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/../dev", major, minor);
    if (fs_read_at(AT_FDCWD, path, out, size) < 0)
        return error_set(err, ERR_CGROUP, errno, "reading %s", path);
    out[strcspn(out, "\n")] = '\0';
    return 0;
}

static bool has_controller(const struct priv_cgroups *cgroups)
{
    if (cgroups->version == 2)
        return faccessat(cgroups->root[0], "io.max", F_OK, 0) == 0;
    return cgroups->count > PRIV_CGROUP_IO &&
           faccessat(cgroups->root[PRIV_CGROUP_IO], "blkio.throttle.read_bps_device", F_OK, 0) == 0;
}

int priv_cgroups_limit_io(struct priv_cgroups *cgroups, int state, uint32_t mib_s, uint32_t iops,
                          struct error *err)
{
    struct priv_cgroup_io *io = &cgroups->io;
    *io = (struct priv_cgroup_io){.bytes = (uint64_t)mib_s << 20, .operations = iops};
    if (!has_controller(cgroups)) {
        io->reason = no_controller;
        return 0;
    }
    if (find_disk(state, io->device, sizeof(io->device), err) < 0)
        return -1;
    if (io->device[0] == '\0')
        io->reason = no_disk;
    else if (mib_s == 0 && iops == 0)
        io->reason = no_limit; /* what an earlier run set is lifted all the same */
    return 0;
}
