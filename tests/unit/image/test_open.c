/* Opening by digest: what is handed out is what the manifest promised, now and the next time. */
#include "tests/unit/image/catalogue.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static struct catalogue catalogue;
static struct image_verified *verified;
static uint8_t digest[HASH_SIZE];

static void start(void)
{
    catalogue_init(&catalogue);
    verified = image_verified_new();
    catalogue_image(&catalogue, "python", "the disk's bytes");
    catalogue_digest("the disk's bytes", digest);
}

static void stop(void)
{
    image_verified_free(verified);
    umount2(catalogue.path, MNT_DETACH); /* if a test put a file system there */
    catalogue_release(&catalogue);
}

TestSuite(image_open, .init = start, .fini = stop);

static enum error_code open_disk(struct image_verified *cache,
                                 const uint8_t wanted[static HASH_SIZE])
{
    struct error err = {0};
    int fd = image_open(catalogue.fd, cache, IMAGE_DISK, "python", wanted, &err);
    cr_assert_eq(fd >= 0, err.code == ERR_NONE);
    if (fd >= 0)
        close(fd);
    else
        cr_assert_not_null(strstr(err.msg, "images/python"), "%s", err.msg);
    return err.code;
}

static void overwrite(const char *text)
{
    int fd = openat(catalogue.fd, "images/python/disk", O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(fd, text, strlen(text), 0), (ssize_t)strlen(text));
    close(fd);
}

/* Bytes this process has read so far, by the kernel's account. */
static long long bytes_read(void)
{
    char text[512];
    cr_assert_gt(fs_read_at(AT_FDCWD, "/proc/self/io", text, sizeof(text)), 0);
    long long count = -1;
    cr_assert_eq(sscanf(text, "rchar: %lld", &count), 1);
    return count;
}

/* Until the file is old enough to be remembered: a check then reads nothing of it. */
static void wait_until_cached(void)
{
    int64_t deadline = clock_mono_ms() + 10000;
    for (;;) {
        cr_assert_eq(open_disk(verified, digest), ERR_NONE);
        long long before = bytes_read(), cost = bytes_read() - before;
        before = bytes_read();
        cr_assert_eq(open_disk(verified, digest), ERR_NONE);
        if (bytes_read() - before - cost <= 1) /* the account itself varies by a digit */
            break;
        cr_assert_gt(clock_left_ms(deadline), 0, "never cached");
        poll(NULL, 0, 10);
    }
}

Test(image_open, gives_a_read_only_descriptor_of_the_promised_bytes)
{
    struct error err = {0};
    char text[64] = "";
    int fd = image_open(catalogue.fd, verified, IMAGE_DISK, "python", digest, &err);
    cr_assert_geq(fd, 0, "%s", err.msg);
    cr_assert_eq(read(fd, text, sizeof(text) - 1), (ssize_t)strlen("the disk's bytes"));
    cr_assert_str_eq(text, "the disk's bytes");
    cr_assert_eq(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    cr_assert_eq(write(fd, "x", 1), -1);
    close(fd);
}

Test(image_open, R21_another_digest_is_refused)
{
    uint8_t other[HASH_SIZE];
    catalogue_digest("other", other);
    cr_assert_eq(open_disk(verified, other), ERR_IMAGE_CHANGED);
    cr_assert_eq(open_disk(verified, digest), ERR_NONE);
    wait_until_cached();
    cr_assert_eq(open_disk(verified, other), ERR_IMAGE_CHANGED, "a cached file, not its digest");
}

/* ramfs has the coarse ctime that all file systems had before Linux 6.13; others may have it finer.
 */
static void move_to_ramfs(void)
{
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("ramfs", catalogue.path, "ramfs", 0, NULL), 0);
    close(catalogue.fd);
    catalogue.fd = open(catalogue.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    catalogue_image(&catalogue, "python", "the disk's bytes");
}

Test(image_open, R21_a_change_within_one_tick_of_ctime_is_noticed)
{
    move_to_ramfs();
    for (int i = 0; i < 50; i++) {
        cr_assert_eq(open_disk(verified, digest), ERR_NONE, "round %d", i);
        overwrite("THE DISK'S BYTES");
        cr_assert_eq(open_disk(verified, digest), ERR_IMAGE_CHANGED, "round %d", i);
        overwrite("the disk's bytes");
    }
}

Test(image_open, R21_a_change_is_noticed_once_the_file_is_cached)
{
    wait_until_cached();
    overwrite("THE DISK'S BYTES");
    cr_assert_eq(open_disk(verified, digest), ERR_IMAGE_CHANGED, "the cache hid the change");
}

Test(image_open, R21_a_file_put_in_the_cached_ones_place_is_noticed)
{
    struct timespec old[2] = {{.tv_sec = 1000}, {.tv_sec = 1000}};
    cr_assert_eq(open_disk(verified, digest), ERR_NONE);
    catalogue_write(&catalogue, "images/python/other", "THE DISK'S BYTES");
    cr_assert_eq(renameat(catalogue.fd, "images/python/other", catalogue.fd, "images/python/disk"),
                 0);
    cr_assert_eq(utimensat(catalogue.fd, "images/python/disk", old, 0), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_IMAGE_CHANGED);
}

Test(image_open, R21_a_file_others_could_write_is_refused)
{
    static const mode_t modes[] = {0446, 0464, 0666, 0777};
    for (size_t i = 0; i < COUNT_OF(modes); i++) {
        cr_assert_eq(fchmodat(catalogue.fd, "images/python/disk", modes[i], 0), 0);
        cr_assert_eq(open_disk(NULL, digest), ERR_CONFIG, "%o", modes[i]);
    }
    cr_assert_eq(fchmodat(catalogue.fd, "images/python/disk", 0444, 0), 0);
    cr_assert_eq(open_disk(NULL, digest), ERR_NONE);
    cr_assert_eq(fchownat(catalogue.fd, "images/python/disk", 1000, 0, 0), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_CONFIG, "not root's");
}

Test(image_open, R21_links_and_what_is_no_regular_file_are_refused)
{
    catalogue_image(&catalogue, "other", "the disk's bytes");
    cr_assert_eq(unlinkat(catalogue.fd, "images/python/disk", 0), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_CONFIG, "none at all");
    cr_assert_eq(symlinkat("../other/disk", catalogue.fd, "images/python/disk"), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_CONFIG, "a link to the same bytes");
    cr_assert_eq(unlinkat(catalogue.fd, "images/python/disk", 0), 0);
    cr_assert_eq(mkfifoat(catalogue.fd, "images/python/disk", 0444), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_CONFIG, "a FIFO, and no hang");
    cr_assert_eq(unlinkat(catalogue.fd, "images/python/disk", 0), 0);
    cr_assert_eq(mkdirat(catalogue.fd, "images/python/disk", 0755), 0);
    cr_assert_eq(open_disk(verified, digest), ERR_CONFIG, "a directory");
}

Test(image_open, each_kind_of_file_lies_where_the_layout_says)
{
    static const struct {
        enum image_file file;
        const char *path;
    } kinds[] = {{IMAGE_VMLINUX, "kernels/k/vmlinux"},
                 {IMAGE_INITRD, "kernels/k/initrd"},
                 {IMAGE_SCRATCH, "kernels/k/scratch"}};
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct error err = {0};
        uint8_t wanted[HASH_SIZE];
        catalogue_write(&catalogue, kinds[i].path, kinds[i].path);
        catalogue_digest(kinds[i].path, wanted);
        int fd = image_open(catalogue.fd, verified, kinds[i].file, "k", wanted, &err);
        cr_assert_geq(fd, 0, "%s", err.msg);
        close(fd);
    }
}
