/* A file of the catalogue, opened only if it is what its manifest promised. */
#include "image/internal.h"

#include <errno.h>

typedef int hash_file(int fd, uint8_t out[static HASH_SIZE], struct error *err);

static int check_digest(int fd, const struct stat *st, struct image_verified *verified,
                        const uint8_t digest[static HASH_SIZE], hash_file *hash, struct error *err)
{
    if (verified != NULL && image_verified_has(verified, st, digest))
        return 0;
    uint8_t actual[HASH_SIZE];
    struct stat after;
    bool settled = image_verified_settled(st);
    if (hash(fd, actual, err) < 0)
        return -1;
    if (fstat(fd, &after) < 0)
        return error_set(err, ERR_SYSTEM, errno, "looking at the file again");
    if (memcmp(actual, digest, HASH_SIZE) != 0)
        return error_set(err, ERR_IMAGE_CHANGED, 0,
                         "its SHA-256 is not the one recorded: restore the file or add the image "
                         "again");
    bool still = after.st_size == st->st_size && after.st_ctim.tv_sec == st->st_ctim.tv_sec &&
                 after.st_ctim.tv_nsec == st->st_ctim.tv_nsec;
    if (!still)
        return error_set(err, ERR_IMAGE_CHANGED, 0, "it changed while it was being checked");
    if (verified != NULL && settled)
        image_verified_add(verified, st, digest);
    return 0;
}

static int check(int fd, struct image_verified *verified, const uint8_t digest[static HASH_SIZE],
                 hash_file *hash, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "looking at the file");
    return check_digest(fd, &st, verified, digest, hash, err);
}

int image_check(int fd, struct image_verified *verified, const uint8_t digest[static HASH_SIZE],
                struct error *err)
{
    return check(fd, verified, digest, hash_sha256_fd, err);
}

static int hash_pages(int fd, uint8_t out[static HASH_SIZE], struct error *err)
{
    return hash_pages_fd(fd, NULL, NULL, out, err);
}

int image_check_pages(int fd, struct image_verified *verified,
                      const uint8_t digest[static HASH_SIZE], struct error *err)
{
    return check(fd, verified, digest, hash_pages, err);
}

int image_open(int state, struct image_verified *verified, enum image_file file, const char *name,
               const uint8_t digest[static HASH_SIZE], struct error *err)
{
    static const char *const files[] = {[IMAGE_DISK] = "disk",
                                        [IMAGE_VMLINUX] = "vmlinux",
                                        [IMAGE_INITRD] = "initrd",
                                        [IMAGE_SCRATCH] = "scratch"};
    if ((unsigned)file >= COUNT_OF(files))
        return error_set(err, ERR_INTERNAL, 0, "no such kind of image file");
    const char *base = file == IMAGE_DISK ? "images" : "kernels";
    struct stat st;
    cleanup_close int entry = image_entry_open(state, base, name, err);
    if (entry < 0)
        return -1;
    cleanup_close int fd = image_entry_file(entry, files[file], &st, err);
    if (fd < 0 || check_digest(fd, &st, verified, digest, hash_sha256_fd, err) < 0) {
        error_wrap(err, "%s/%s/%s", base, name, files[file]);
        return -1;
    }
    return TAKE_FD(fd);
}
