/*
 * image: the root-owned catalogue of what a VM may boot. Read by all programs; written by
 * motte-admin only. Layout below the state directory (every name passes id_name_valid):
 *
 *   images/NAME/manifest      digest = <sha256 of disk>, size, kernel = NAME, created = wall ms
 *   images/NAME/disk          read-only root file system (squashfs), 0444
 *   kernels/NAME/manifest     vmlinux = <sha256>, initrd = <sha256> (optional), scratch = <sha256>
 *                             (optional), boot_args = extra kernel arguments (optional)
 *   kernels/NAME/vmlinux      ELF64 with a PVH note, 0444
 *   kernels/NAME/initrd       initramfs with the agent as /init, 0444
 *   kernels/NAME/scratch      sparse, empty ext4 that a scratch disk starts as, 0444
 *
 * A directory is published by rename, so a reader sees all of it or nothing. Users name an image;
 * between the halves it travels as its digest, never as a path.
 */
#ifndef MOTTE_IMAGE_H
#define MOTTE_IMAGE_H

#include "base/base.h"

enum { IMAGE_MAX = 256, IMAGE_BOOT_ARGS_MAX = 512 };

struct image {
    char name[ID_NAME_MAX + 1];
    uint8_t digest[HASH_SIZE];
    uint64_t size;
    int64_t created_wall_ms;
    char kernel[ID_NAME_MAX + 1];
};

struct image_kernel {
    char name[ID_NAME_MAX + 1];
    uint8_t vmlinux[HASH_SIZE];
    bool has_initrd, has_scratch;
    uint8_t initrd[HASH_SIZE], scratch[HASH_SIZE];
    char boot_args[IMAGE_BOOT_ARGS_MAX];
};

/* All take the state directory's descriptor (borrowed) and look at the disk anew on each call. */

/* All images sorted by name; *ret is malloc'ed (caller frees), *ret_count ≤ IMAGE_MAX. A broken
 * entry is an error that names it. A missing images/ is an empty list. Names that begin with a dot
 * are still being made (or already being removed), and are not looked at. */
int image_list(int state, struct image **ret, size_t *ret_count, struct error *err);
/* ERR_IMAGE_UNKNOWN when there is none, with the names there are. */
int image_find(int state, const char *name, struct image *ret, struct error *err);
int image_find_digest(int state, const uint8_t digest[static HASH_SIZE], struct image *ret,
                      struct error *err);
int image_kernel_load(int state, const char *name, struct image_kernel *ret, struct error *err);

/* Which file of an image or kernel directory. */
enum image_file { IMAGE_DISK, IMAGE_VMLINUX, IMAGE_INITRD, IMAGE_SCRATCH };

/* Digests are checked once and then by (device, inode, size, ctime): a cache of what was checked.
 * Thread-safe. */
struct image_verified;
struct image_verified *image_verified_new(void); /* NULL when out of memory */
void image_verified_free(struct image_verified *verified);

/* Has the open file this digest? Through the cache; NULL: always hashed. ERR_IMAGE_CHANGED when it
 * differs. */
int image_check(int fd, struct image_verified *verified, const uint8_t digest[static HASH_SIZE],
                struct error *err);

/* The same for a sparse file and its hash_pages_fd(). */
int image_check_pages(int fd, struct image_verified *verified,
                      const uint8_t digest[static HASH_SIZE], struct error *err);

/* Opens the file O_RDONLY beneath the state directory, requires a regular file owned by root and
 * not writable by anybody else, and checks its digest (through the cache; NULL: always). `name` is
 * the image's name for IMAGE_DISK, else the kernel's. Returns the descriptor (caller closes) or -1;
 * ERR_IMAGE_CHANGED when the digest differs. */
int image_open(int state, struct image_verified *verified, enum image_file file, const char *name,
               const uint8_t digest[static HASH_SIZE], struct error *err);

#endif
