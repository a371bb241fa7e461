/* CAPTURE: what the VMM wrote is taken away from it and looked at, and its disk is copied: all that
 * has to be done while the VM stands still. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

static int check_size(int fd, const struct priv_bounds *bounds, const char *what, struct error *err)
{
    const uint64_t least = bounds->least, most = bounds->most;
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "looking at what the VMM wrote");
    if ((uint64_t)st.st_size < least || (uint64_t)st.st_size > most)
        return error_set(
            err, ERR_HYPERVISOR, 0, "the VMM wrote %lld bytes of %s, where %llu to %llu belong",
            (long long)st.st_size, what, (unsigned long long)least, (unsigned long long)most);
    return 0;
}

static int check_files(const struct priv_instance_slot *slot, struct error *err)
{
    const struct priv_record *record = &slot->record;
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        const struct priv_bounds bounds = priv_snapshot_bounds(record->apart, &record->shape, i);
        if (priv_snapshot_has(record->apart, &record->shape, i) &&
            check_size(slot->staged[i], &bounds, priv_snapshot_files[i], err) < 0)
            return -1;
    }
    return 0;
}

/* The disk has no name: it is what is mounted in the jail, where the VMM cannot put another. */
int priv_disk_open(const struct priv_instance_slot *slot, struct error *err)
{
    char path[48];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d/root", slot->record.pid);
    cleanup_close int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int disk =
        root < 0 ? -1 : fs_open_beneath(root, "scratch", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    int error = errno;
    if (priv_pidfd_ended(slot->pidfd))
        return priv_slot_exited(slot, err);
    if (disk < 0 || fstat(disk, &st) < 0)
        return error_set(err, ERR_HYPERVISOR, error, "opening the VM's disk");
    if (!S_ISREG(st.st_mode) || st.st_uid != slot->record.uid)
        return error_set(err, ERR_HYPERVISOR, 0, "the VM's disk is not what it was made with");
    return TAKE_FD(disk);
}

static int copy_disk(struct priv_server *server, const struct priv_instance_slot *slot,
                     int building, struct error *err)
{
    const struct priv_copying copying = {server, slot};
    const uint64_t size = (uint64_t)slot->record.shape.disk_mib << 20;
    cleanup_close int from = priv_disk_open(slot, err);
    if (from < 0)
        return -1;
    cleanup_close int to = openat(building, priv_snapshot_files[PRIV_FILE_SCRATCH],
                                  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (to < 0)
        return priv_disk_error(err, errno, "making a copy of the VM's disk");
    if (ioctl(to, FICLONE, from) < 0)
        return priv_copy_pages(from, to, size, false, &copying, err);
    if (ftruncate(to, (off_t)size) < 0) /* should the VMM have changed it */
        return priv_disk_error(err, errno, "making a copy of the VM's disk");
    return 0;
}

static int capture(struct priv_server *server, struct priv_instance_slot *slot, struct error *err)
{
    char name[ID_INSTANCE_SIZE + 1];
    priv_building_name(name, slot->record.instance);
    if (priv_places_uncover(slot, err) < 0 || check_files(slot, err) < 0)
        return -1;
    if (mkdirat(server->snapshots, name, 0700) < 0)
        return priv_disk_error(err, errno, "making a directory for the snapshot");
    cleanup_close int building =
        openat(server->snapshots, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (building < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening the snapshot's directory");
    return slot->record.shape.disk_mib == 0 ? 0 : copy_disk(server, slot, building, err);
}

int priv_op_capture(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_request *request, struct priv_answer *answer,
                    struct error *err)
{
    struct error ignored = {0};
    (void)request;
    (void)answer;
    if (slot->phase != PRIV_PHASE_STAGED)
        return error_set(err, ERR_PRIV_REFUSED, 0, "no snapshot of this VM is staged");
    if (capture(server, slot, err) < 0) {
        priv_places_uncover(slot, &ignored);
        priv_staged_drop(server, slot, &ignored);
        return -1;
    }
    pthread_mutex_lock(&server->lock);
    slot->phase = PRIV_PHASE_CAPTURED;
    pthread_mutex_unlock(&server->lock);
    return 0;
}
