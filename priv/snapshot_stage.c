/* STAGE and UNSTAGE: the files that a VMM writes its snapshot into: mounted where a Firecracker finds
 * them, lent to a QEMU (open.c). Their names go at once: from then on they live as long as the mounts,
 * the descriptors and we do. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

static void staged_name(char *out, size_t size, const char *instance, size_t file)
{
    snprintf(out, size, "%s.%s", instance, priv_snapshot_files[file]);
}

static void set_phase(struct priv_server *server, struct priv_instance_slot *slot,
                      enum priv_phase phase)
{
    pthread_mutex_lock(&server->lock);
    slot->phase = phase;
    pthread_mutex_unlock(&server->lock);
}

int priv_staged_drop(struct priv_server *server, struct priv_instance_slot *slot, struct error *err)
{
    char name[ID_INSTANCE_SIZE + 8];
    if (slot == NULL || slot->phase == PRIV_PHASE_NONE)
        return 0;
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        staged_name(name, sizeof(name), slot->record.instance, i);
        unlinkat(server->staging, name, 0);
        cleanup_close_func(&slot->staged[i]);
        slot->staged[i] = -1;
    }
    priv_building_name(name, slot->record.instance);
    if (fs_remove_tree(server->snapshots, name) < 0)
        return error_set(err, ERR_SYSTEM, errno, "removing an unfinished snapshot");
    set_phase(server, slot, PRIV_PHASE_NONE);
    return 0;
}

/* An earlier run's staged files have no names any more; nobody else can have made such mounts. */
void priv_staged_adopt(struct priv_server *server, struct priv_instance_slot *slot)
{
    struct error err = {0};
    if (slot->record.places != 0 && priv_places_uncover(slot, &err) < 0)
        priv_tell(server, LOG_LEVEL_WARN, "VM %s keeps the files of an unfinished snapshot: %s",
                  slot->record.instance, err.msg);
}

/* The slot counts as one already: of those that ask at the same time none is forgotten. Which of them
 * are of images is the front's to know, and to bound. */
static int admit(struct priv_server *server, struct error *err)
{
    const struct priv_limits limits = priv_limits_now(server);
    const uint64_t max = (uint64_t)limits.max_snapshots + limits.image_snapshots;
    uint32_t count = 0;
    if (priv_snapshots_count(server, &count, err) < 0)
        return -1;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->slot_count; i++)
        count += server->slots[i]->phase != PRIV_PHASE_NONE;
    pthread_mutex_unlock(&server->lock);
    if (count > max)
        return error_set(err, ERR_CAPACITY, 0,
                         "this host keeps at most %u snapshots (max-snapshots), and %u of images: "
                         "delete one",
                         limits.max_snapshots, limits.image_snapshots);
    return 0;
}

/* PUBLISH gives back what it has read, so memory and disk are needed once, and a tenth for all that
 * file systems need besides. */
static int preflight(const struct priv_server *server, const struct priv_shape *shape,
                     struct error *err)
{
    struct statvfs disk;
    if (fstatvfs(server->staging, &disk) < 0)
        return error_set(err, ERR_SYSTEM, errno, "asking for the room on the state disk");
    uint64_t mib = (uint64_t)shape->memory_mib + shape->disk_mib;
    uint64_t needed = (mib + mib / 10) << 20;
    uint64_t room = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (room < needed)
        return error_set(err, ERR_DISK_FULL, 0,
                         "a snapshot of this VM needs %llu MiB, and the state disk has %llu",
                         (unsigned long long)(needed >> 20), (unsigned long long)(room >> 20));
    return 0;
}

/* A VM that was restored may write what differs from what it was restored from: so that is what it
 * finds. The file is the one that its jail holds, whatever became of its name. */
static int begin_with_base(struct priv_server *server, const struct priv_instance_slot *slot,
                           struct error *err)
{
    const struct priv_copying copying = {server, slot};
    const uint64_t size = (uint64_t)slot->record.shape.memory_mib << 20;
    struct stat st;
    char path[64];
    if (slot->record.snapshot[0] == '\0' || slot->record.hypervisor == PRIV_QEMU)
        return 0;
    snprintf(path, sizeof(path), "/proc/%d/root/%s", slot->record.pid,
             priv_restore_places[PRIV_FILE_MEMORY]);
    cleanup_close int base = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int error = errno;
    if (priv_pidfd_ended(slot->pidfd))
        return priv_slot_exited(slot, err);
    if (base < 0 || fstat(base, &st) < 0)
        return error_set(err, ERR_HYPERVISOR, error, "opening what the VM was restored from");
    if (!S_ISREG(st.st_mode) || st.st_uid != 0)
        return error_set(err, ERR_HYPERVISOR, 0, "what the VM was restored from is not there");
    return priv_copy_pages(base, slot->staged[PRIV_FILE_MEMORY], size, false, &copying, err);
}

/* What is lent as a descriptor stays root's: nobody else can open it. */
static int make_files(const struct priv_server *server, struct priv_instance_slot *slot,
                      struct error *err)
{
    const struct priv_record *record = &slot->record;
    const uint32_t uid = record->hypervisor == PRIV_QEMU ? 0 : record->uid;
    char name[ID_INSTANCE_SIZE + 8];
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        if (!priv_snapshot_has(record->apart, &record->shape, i) || slot->staged[i] >= 0)
            continue;
        staged_name(name, sizeof(name), slot->record.instance, i);
        slot->staged[i] =
            openat(server->staging, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (slot->staged[i] < 0 || fchown(slot->staged[i], uid, uid) < 0)
            return priv_disk_error(err, errno, "making a file for the VMM to write a snapshot to");
    }
    return 0;
}

/* Of a template, it is written already. */
static int take_memory(struct priv_instance_slot *slot, struct error *err)
{
    if (slot->record.hypervisor != PRIV_QEMU || slot->record.apart == 0)
        return 0;
    if (slot->memory < 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the root half that launched this template has ended: launch another");
    slot->staged[PRIV_FILE_MEMORY] = fcntl(slot->memory, F_DUPFD_CLOEXEC, 3);
    return slot->staged[PRIV_FILE_MEMORY] >= 0
               ? 0
               : error_set(err, ERR_SYSTEM, errno, "copying a descriptor");
}

static int stage(struct priv_server *server, struct priv_instance_slot *slot, struct error *err)
{
    char name[ID_INSTANCE_SIZE + 8];
    if (admit(server, err) < 0 || preflight(server, &slot->record.shape, err) < 0 ||
        take_memory(slot, err) < 0 || make_files(server, slot, err) < 0 ||
        begin_with_base(server, slot, err) < 0 ||
        (slot->record.hypervisor == PRIV_FIRECRACKER &&
         priv_places_cover(slot, slot->staged, err) < 0))
        return -1;
    for (size_t i = 0; i < PRIV_PLACES; i++) {
        staged_name(name, sizeof(name), slot->record.instance, i);
        unlinkat(server->staging, name, 0);
    }
    return 0;
}

int priv_op_stage(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    struct error ignored = {0};
    (void)request;
    (void)answer;
    if (slot->phase != PRIV_PHASE_NONE)
        return error_set(err, ERR_PRIV_REFUSED, 0, "a snapshot of this VM is being made");
    if (slot->record.places == 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "no snapshot can be made of this VM: the version of Motte that started it "
                         "could not make one");
    set_phase(server, slot, PRIV_PHASE_STAGED);
    if (stage(server, slot, err) == 0)
        return 0;
    priv_staged_drop(server, slot, &ignored);
    return -1;
}

int priv_op_unstage(struct priv_server *server, struct priv_instance_slot *slot,
                    const struct priv_request *request, struct priv_answer *answer,
                    struct error *err)
{
    (void)request;
    (void)answer;
    if (slot->record.places != 0 && priv_places_uncover(slot, err) < 0)
        return -1;
    return priv_staged_drop(server, slot, err);
}
