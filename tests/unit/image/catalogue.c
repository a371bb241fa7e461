#include "tests/unit/image/catalogue.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

void catalogue_init(struct catalogue *catalogue)
{
    if (geteuid() != 0)
        cr_skip_test("needs root: the catalogue's files belong to root");
    strcpy(catalogue->path, "/tmp/motte-image-XXXXXX");
    cr_assert_not_null(mkdtemp(catalogue->path));
    catalogue->fd = open(catalogue->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(catalogue->fd, 0);
}

void catalogue_release(struct catalogue *catalogue)
{
    close(catalogue->fd);
    fs_remove_tree(AT_FDCWD, catalogue->path);
}

void catalogue_write(const struct catalogue *catalogue, const char *path, const char *text)
{
    char full[200];
    snprintf(full, sizeof(full), "%s/%s", catalogue->path, path);
    char *slash = strrchr(full, '/');
    *slash = '\0';
    cr_assert_eq(fs_mkdir_p(full, 0755), 0);
    *slash = '/';
    unlink(full);
    int fd = open(full, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    cr_assert_geq(fd, 0, "%s", full);
    cr_assert_eq(fs_write_all(fd, text, strlen(text)), 0);
    close(fd);
}

void catalogue_digest(const char *text, uint8_t out[static HASH_SIZE])
{
    hash_sha256(text, strlen(text), out);
}

void catalogue_image(const struct catalogue *catalogue, const char *name, const char *disk)
{
    uint8_t digest[HASH_SIZE];
    char path[100], hex[HASH_HEX_SIZE], manifest[300];
    catalogue_digest(disk, digest);
    hash_to_hex(digest, sizeof(digest), hex);
    snprintf(manifest, sizeof(manifest), "digest = %s\nsize = %zu\nkernel = k1\ncreated = 1000\n",
             hex, strlen(disk));
    snprintf(path, sizeof(path), "images/%s/disk", name);
    catalogue_write(catalogue, path, disk);
    snprintf(path, sizeof(path), "images/%s/manifest", name);
    catalogue_write(catalogue, path, manifest);
}
