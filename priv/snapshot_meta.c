/* What a snapshot says of itself, in a file of one fixed struct. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const priv_snapshot_files[PRIV_FILES] = {
    [PRIV_FILE_STATE] = "state", [PRIV_FILE_MEMORY] = "memory", [PRIV_FILE_SCRATCH] = "scratch"};
const char *const priv_snapshot_places[PRIV_PLACES] = {
    [PRIV_FILE_STATE] = PRIV_PLACE_STATE + 1, [PRIV_FILE_MEMORY] = PRIV_PLACE_MEMORY + 1};

const char *const priv_restore_places[PRIV_PLACES] = {
    [PRIV_FILE_STATE] = PRIV_RESTORE_STATE + 1, [PRIV_FILE_MEMORY] = PRIV_RESTORE_MEMORY + 1};

bool priv_snapshot_has(bool apart, const struct priv_shape *shape, size_t file)
{
    if (file == PRIV_FILE_SCRATCH)
        return shape->disk_mib > 0;
    return file == PRIV_FILE_STATE || apart;
}

size_t priv_snapshot_memory(bool apart)
{
    return apart ? PRIV_FILE_MEMORY : PRIV_FILE_STATE;
}

/* QEMU writes each page of a guest that stands still once, with 8 bytes before it, and pages of zeros
 * as those alone. */
struct priv_bounds priv_snapshot_bounds(bool apart, const struct priv_shape *shape, size_t file)
{
    const uint64_t memory = (uint64_t)shape->memory_mib << 20;
    if (file == PRIV_FILE_MEMORY)
        return (struct priv_bounds){memory, memory};
    uint64_t pages = apart ? 0 : memory + memory / 256;
    return (struct priv_bounds){1, PRIV_STATE_MAX + pages};
}

static const char magic[8] = "motsnap1";
static const char name[] = "meta";

int priv_meta_write(int building, struct priv_snapshot_meta *meta, struct error *err)
{
    memcpy(meta->magic, magic, sizeof(magic));
    meta->size = sizeof(*meta);
    hash_sha256(meta, offsetof(struct priv_snapshot_meta, digest), meta->digest);
    cleanup_close int fd =
        openat(building, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0400);
    if (fd < 0 || fs_write_all(fd, meta, sizeof(*meta)) < 0 || fsync(fd) < 0)
        return priv_disk_error(err, errno, "writing what the snapshot is of");
    return 0;
}

static bool text_ends(const char *text, size_t size)
{
    return memchr(text, '\0', size) != NULL;
}

static bool sound(const struct priv_snapshot_meta *meta, const char *snapshot)
{
    uint8_t digest[HASH_SIZE];
    hash_sha256(meta, offsetof(struct priv_snapshot_meta, digest), digest);
    return memcmp(meta->magic, magic, sizeof(magic)) == 0 && meta->size == sizeof(*meta) &&
           memcmp(meta->digest, digest, HASH_SIZE) == 0 && meta->apart <= 1 &&
           text_ends(meta->snapshot, sizeof(meta->snapshot)) &&
           strcmp(meta->snapshot, snapshot) == 0 &&
           text_ends(meta->instance, sizeof(meta->instance)) && id_instance_valid(meta->instance) &&
           text_ends(meta->vmm_version, sizeof(meta->vmm_version)) &&
           text_ends(meta->host.vendor, sizeof(meta->host.vendor)) &&
           text_ends(meta->host.kernel, sizeof(meta->host.kernel));
}

static int unknown(const char *snapshot, struct error *err)
{
    return error_set(err, ERR_SNAPSHOT_UNKNOWN, 0, "there is no snapshot %s", snapshot);
}

/* A snapshot loses its name before its files: one that was being removed when it was opened is not
 * damaged. */
static bool has_gone(int snapshots, const char *snapshot)
{
    return faccessat(snapshots, snapshot, F_OK, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT;
}

int priv_meta_read(int snapshots, const char *snapshot, struct priv_snapshot_meta *ret,
                   int *ret_directory, struct error *err)
{
    struct {
        struct priv_snapshot_meta meta;
        char extra; /* read too if the file is too long */
    } file;
    cleanup_close int directory =
        openat(snapshots, snapshot, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0 && errno == ENOENT)
        return unknown(snapshot, err);
    if (directory < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening snapshot %s", snapshot);
    cleanup_close int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    int error = fd < 0 ? errno : 0;
    ssize_t n = fd < 0 ? -1 : read(fd, &file, sizeof(file.meta) + 1);
    if (n < 0 && error != ENOENT)
        return error_set(err, ERR_SYSTEM, error != 0 ? error : errno, "reading snapshot %s",
                         snapshot);
    if (error == ENOENT && has_gone(snapshots, snapshot))
        return unknown(snapshot, err);
    if (n != (ssize_t)sizeof(file.meta) || !sound(&file.meta, snapshot))
        return error_set(err, ERR_SNAPSHOT_DAMAGED, 0,
                         "snapshot %s does not say what it is of; it can only be deleted",
                         snapshot);
    *ret = file.meta;
    if (ret_directory != NULL)
        *ret_directory = TAKE_FD(directory);
    return 0;
}

/* An emulated guest counts time by the host's counter, which is measured at each start, to a few
 * millionths. */
static bool same_clock(uint32_t theirs_khz, uint32_t ours_khz)
{
    uint32_t off = theirs_khz > ours_khz ? theirs_khz - ours_khz : ours_khz - theirs_khz;
    return off <= ours_khz / 10000;
}

int priv_meta_fits_host(const struct priv_server *server, const struct priv_snapshot_meta *meta,
                        struct error *err)
{
    const struct priv_identity *ours = &server->identity, *theirs = &meta->host;
    if (meta->hypervisor != (uint32_t)server->config.hypervisor ||
        strcmp(meta->vmm_version, server->vmm_version) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the snapshot is of %s %s, and this host runs %s",
                         meta->hypervisor == PRIV_FIRECRACKER ? "Firecracker" : "another VMM",
                         meta->vmm_version, server->vmm_version);
    if (strcmp(ours->vendor, theirs->vendor) != 0 || ours->family != theirs->family ||
        ours->model != theirs->model || ours->stepping != theirs->stepping)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the snapshot is of processor %s %u/%u/%u, and this is %s %u/%u/%u",
                         theirs->vendor, theirs->family, theirs->model, theirs->stepping,
                         ours->vendor, ours->family, ours->model, ours->stepping);
    if (memcmp(ours->flags, theirs->flags, HASH_SIZE) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "this processor has other features than when the snapshot was made");
    if (memcmp(meta->machine, server->machine, HASH_SIZE) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "this version of Motte makes another machine of %s than when the snapshot "
                         "was made",
                         server->vmm_version);
    if (!same_clock(meta->tsc_khz, server->tsc_khz))
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the snapshot's clock counts %u kHz, and this host's %u", meta->tsc_khz,
                         server->tsc_khz);
    if (strcmp(ours->kernel, theirs->kernel) != 0)
        return error_set(err, ERR_SNAPSHOT_MISMATCH, 0,
                         "the snapshot is of host kernel %s, and this is %s", theirs->kernel,
                         ours->kernel);
    return 0;
}
