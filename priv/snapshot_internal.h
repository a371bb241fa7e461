/*
 * Snapshots, among the files that make and use them.
 *
 *   snapshot_stage.c    STAGE, UNSTAGE: the files that the VMM writes   snapshot_mounts.c  in its jail
 *   snapshot_capture.c  CAPTURE: taken from it, and its disk copied
 *   snapshot_publish.c  PUBLISH: copies that are root's                 snapshot_copy.c
 *   snapshot_meta.c     what a snapshot says of itself                  identity.c  and of its host
 *   snapshot_list.c     SNAPSHOTS, FORGET_SNAPSHOT, the sweep at start
 *   snapshot_restore.c  LAUNCH from one                                 memory.c  of QEMUs, as files
 *
 * A VMM trusts a snapshot's files, and a VMM that its guest has taken over writes them. So it never
 * gets a directory, and what it wrote is never used: state_dir/snapshots/<snapshot id>/ holds copies
 * that nobody may write: state, memory, scratch (with a disk) and meta. One that is being made is
 * .<instance id>, and becomes the other by rename. state_dir/staging/<instance id>.state and .memory
 * have these names only until they are mounted.
 */
#ifndef MOTTE_PRIV_SNAPSHOT_INTERNAL_H
#define MOTTE_PRIV_SNAPSHOT_INTERNAL_H

#include "priv/internal.h"

/* Which file; the first two are what the VMM writes. A Firecracker has a place for each; a QEMU is lent
 * descriptors, and writes memory and devices in one stream, the state, unless its memory is a file that
 * the root half has (`apart`, as with Firecracker). */
enum { PRIV_FILE_STATE, PRIV_FILE_MEMORY, PRIV_FILE_SCRATCH, PRIV_FILES };
enum { PRIV_PLACES = PRIV_FILE_MEMORY + 1, PRIV_STATE_MAX = 16 << 20 };
extern const char *const priv_snapshot_files[PRIV_FILES]; /* their names */
/* Has a snapshot of such a VM this file? */
bool priv_snapshot_has(bool apart, const struct priv_shape *shape, size_t file);
/* What a VMM may have written of it: no less, no more. */
struct priv_bounds {
    uint64_t least, most;
};
struct priv_bounds priv_snapshot_bounds(bool apart, const struct priv_shape *shape, size_t file);
/* The file that its memory is in. */
size_t priv_snapshot_memory(bool apart);
/* In the jail's root, without the /: where a snapshot is written, and where it is read. */
extern const char *const priv_snapshot_places[PRIV_PLACES], *const priv_restore_places[PRIV_PLACES];

/* ---- meta: the file of that name, one fixed struct ---- */

struct priv_snapshot_file {
    uint64_t size, allocated;  /* bytes */
    uint8_t digest[HASH_SIZE]; /* hash_pages_fd() */
};

struct priv_snapshot_meta {
    char magic[8];
    uint32_t size, hypervisor;
    char snapshot[ID_INSTANCE_SIZE], instance[ID_INSTANCE_SIZE]; /* itself; the VM it was made of */
    struct priv_shape shape;
    uint8_t token[PRIV_TOKEN_SIZE]; /* of that VM, as its memory holds it */
    uint32_t generation, tsc_khz;   /* QEMU: what the guest was told its clock counts */
    uint32_t apart, zero;
    int64_t created_wall_ms;
    uint8_t image[HASH_SIZE], vmlinux[HASH_SIZE], initrd[HASH_SIZE];
    char vmm_version[32];
    uint8_t machine[HASH_SIZE]; /* QEMU: priv_qemu_machine() */
    struct priv_identity host;
    struct priv_snapshot_file files[PRIV_FILES]; /* zero: it has none of these */
    uint8_t digest[HASH_SIZE];                   /* of all above */
};

int priv_meta_write(int building, struct priv_snapshot_meta *meta, struct error *err);
/* ERR_SNAPSHOT_UNKNOWN: there is none; ERR_SNAPSHOT_DAMAGED. *ret_directory (or NULL): the snapshot's,
 * caller closes. */
int priv_meta_read(int snapshots, const char *snapshot, struct priv_snapshot_meta *ret,
                   int *ret_directory, struct error *err);
/* ERR_SNAPSHOT_MISMATCH unless this host's processor, kernel and VMM are those of the snapshot. */
int priv_meta_fits_host(const struct priv_server *server, const struct priv_snapshot_meta *meta,
                        struct error *err);

/* ---- mounts: the places in a VMM's jail, from a child in its mount namespace ---- */

/* Mounts the files (borrowed, with names) over the places. */
int priv_places_cover(const struct priv_instance_slot *slot, const int files[static PRIV_PLACES],
                      struct error *err);
/* Takes away whatever covers them that the VMM may write. Nothing does: success. */
int priv_places_uncover(const struct priv_instance_slot *slot, struct error *err);

/* ---- copies ---- */

/* snapshot_capture.c: a launched VM's scratch disk, to read. ERR_VMM_EXITED, ERR_HYPERVISOR. */
int priv_disk_open(const struct priv_instance_slot *slot, struct error *err);
/* The disk's want of room is ERR_DISK_FULL. Returns -1. */
int priv_disk_error(struct error *err, int sys, const char *what);
/* -1 with ERR_CANCELLED when KILL is on its way or the server stops. */
struct priv_copying {
    struct priv_server *server;
    const struct priv_instance_slot *slot;
};
hash_go_on priv_copying_on; /* its context is a struct priv_copying */
/* The first `size` bytes; pages of zeros become holes. `consume`: what was read is given back to the
 * disk, so that both together never need much more room than one. */
int priv_copy_pages(int from, int to, uint64_t size, bool consume,
                    const struct priv_copying *copying, struct error *err);

/* ---- list ---- */

/* How many are published. -1: cannot be read. */
int priv_snapshots_count(const struct priv_server *server, uint32_t *ret, struct error *err);
void priv_building_name(char out[static ID_INSTANCE_SIZE + 1], const char *instance);

/* ---- restore ---- */

struct priv_restore {
    struct priv_snapshot_meta meta;
    int files[PRIV_FILES]; /* read-only; -1: it has none of these */
};
void priv_restore_init(struct priv_restore *restore);
void priv_restore_release(struct priv_restore *restore);
/* Opens the snapshot for this instance and checks all that LAUNCH promises. */
int priv_restore_open(struct priv_server *server, const struct priv_instance_slot *slot,
                      const uint8_t image[static HASH_SIZE], const char *snapshot,
                      struct priv_restore *restore, struct error *err);
/* QEMU's jail: that it is restored from no other than this can be read back there. */
int priv_restore_bind(struct priv_jail *jail, const struct priv_restore *restore,
                      struct error *err);
/* In a new Firecracker's jail: where a snapshot will be written there is what nobody can open (`null` is /dev/null,
 * whose mount allows no device); where one is read, its files, unless restore is NULL. */
int priv_places_make(struct priv_jail *jail, const struct priv_restore *restore, int null,
                     struct error *err);

/* ---- memory ---- */

/*
 * Memory that is a file without a name (memfd). A template writes one; when that is published it
 * becomes a file on the disk. VMs from such a snapshot have the very same one as their memory, each
 * with its own changes: QEMU 7.2 wants to open it for writing all the same, so it is sealed. It is kept
 * while a VM has it, and the last one beyond, so that the disk is read once.
 */
#define PRIV_MEMORY_NAME "motte-memory"
enum { PRIV_MEMORY_SEALS = 0xf }; /* F_SEAL_SEAL, _SHRINK, _GROW, _WRITE */
/* For a template. The descriptor or -1. */
int priv_memory_make(uint64_t size, struct error *err);
/* What the snapshot's file of that digest holds, sealed: a descriptor (caller closes) or -1. */
int priv_memory_of(struct priv_server *server, const struct priv_instance_slot *slot,
                   const struct priv_restore *restore, struct error *err);
/* Lets go what no VM has any more, but the last one; `snapshot` in any case. */
void priv_memory_prune(struct priv_server *server, const char *snapshot /* or NULL */);
void priv_memories_free(struct priv_server *server);

#endif
