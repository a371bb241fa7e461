/* PUBLISH: what was captured becomes a snapshot: copies that are root's, what they are copies of, and
 * digests; then one rename. The VM may run meanwhile, or be gone. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* Of the VM, all but the files. */
static void describe(struct priv_server *server, const struct priv_instance_slot *slot,
                     struct priv_snapshot_meta *meta)
{
    const struct priv_record *record = &slot->record;
    meta->hypervisor = record->hypervisor;
    memcpy(meta->instance, record->instance, ID_INSTANCE_SIZE);
    meta->shape = record->shape;
    memcpy(meta->token, record->token, PRIV_TOKEN_SIZE);
    meta->generation = record->generation;
    meta->apart = record->apart;
    meta->created_wall_ms = clock_wall_ms();
    memcpy(meta->image, record->image, HASH_SIZE);
    memcpy(meta->vmlinux, record->vmlinux, HASH_SIZE);
    memcpy(meta->initrd, record->initrd, HASH_SIZE);
    memcpy(meta->vmm_version, server->vmm_version, sizeof(meta->vmm_version));
    memcpy(meta->machine, server->machine, HASH_SIZE);
    meta->tsc_khz = server->tsc_khz;
    meta->host = server->identity;
}

/* From here on nobody may write it. */
static int seal(const struct priv_copying *copying, int fd, mode_t mode,
                struct priv_snapshot_file *ret, struct error *err)
{
    struct stat st;
    struct priv_copying context = *copying;
    if (fchmod(fd, mode) < 0 || fsync(fd) < 0 || fstat(fd, &st) < 0)
        return priv_disk_error(err, errno, "writing the snapshot to the disk");
    ret->size = (uint64_t)st.st_size;
    ret->allocated = (uint64_t)st.st_blocks * 512;
    return hash_pages_fd(fd, priv_copying_on, &context, ret->digest, err);
}

static int copy_written(const struct priv_copying *copying, size_t file, int building,
                        struct priv_snapshot_file *ret, struct error *err)
{
    const int from = copying->slot->staged[file];
    const struct priv_record *record = &copying->slot->record;
    const struct priv_bounds bounds = priv_snapshot_bounds(record->apart, &record->shape, file);
    struct stat st;
    cleanup_close int to = openat(building, priv_snapshot_files[file],
                                  O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (to < 0 || fstat(from, &st) < 0)
        return priv_disk_error(err, errno, "making a file of the snapshot");
    uint64_t size = file == PRIV_FILE_MEMORY ? bounds.most : (uint64_t)st.st_size;
    if (size > bounds.most)
        return error_set(err, ERR_HYPERVISOR, 0, "the VMM went on writing its state");
    if (priv_copy_pages(from, to, size, true, copying, err) < 0)
        return -1;
    return seal(copying, to, 0444, ret, err); /* a VMM that is restored reads it as itself */
}

static int seal_disk(const struct priv_copying *copying, int building,
                     struct priv_snapshot_file *ret, struct error *err)
{
    if (copying->slot->record.shape.disk_mib == 0)
        return 0;
    cleanup_close int fd =
        openat(building, priv_snapshot_files[PRIV_FILE_SCRATCH], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening the copy of the VM's disk");
    return seal(copying, fd, 0400, ret, err);
}

static int publish(struct priv_server *server, struct priv_instance_slot *slot,
                   struct priv_snapshot_meta *meta, struct error *err)
{
    const struct priv_copying copying = {server, slot};
    char name[ID_INSTANCE_SIZE + 1];
    priv_building_name(name, slot->record.instance);
    describe(server, slot, meta);
    cleanup_close int building =
        openat(server->snapshots, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (building < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening the snapshot's directory");
    for (size_t i = 0; i < PRIV_PLACES; i++)
        if (priv_snapshot_has(meta->apart, &meta->shape, i) &&
            copy_written(&copying, i, building, &meta->files[i], err) < 0)
            return -1;
    if (seal_disk(&copying, building, &meta->files[PRIV_FILE_SCRATCH], err) < 0 ||
        id_instance_make(meta->snapshot, err) < 0 || priv_meta_write(building, meta, err) < 0)
        return -1;
    if (fsync(building) < 0 ||
        renameat(server->snapshots, name, server->snapshots, meta->snapshot) < 0)
        return priv_disk_error(err, errno, "publishing the snapshot");
    return 0;
}

int priv_op_publish(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_request *request, struct priv_answer *answer,
                    struct error *err)
{
    struct error ignored = {0};
    struct priv_snapshot_meta meta = {0};
    (void)request;
    if (slot->phase != PRIV_PHASE_CAPTURED)
        return error_set(err, ERR_PRIV_REFUSED, 0, "no snapshot of this VM is captured");
    int result = publish(server, slot, &meta, err);
    priv_staged_drop(server, slot, &ignored);
    if (result < 0)
        return -1;
    if (fsync(server->snapshots) < 0) /* it stands, but perhaps not after a crash of the host */
        priv_tell(server, LOG_LEVEL_WARN, "snapshot %s may not survive a crash: errno %d",
                  meta.snapshot, errno);
    memcpy(answer->reply.u.publish.snapshot, meta.snapshot, ID_INSTANCE_SIZE);
    memcpy(answer->reply.u.publish.digest, meta.digest, HASH_SIZE);
    for (size_t i = 0; i < PRIV_FILES; i++)
        answer->reply.u.publish.bytes += meta.files[i].allocated;
    return 0;
}
