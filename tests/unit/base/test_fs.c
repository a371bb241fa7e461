/* Files beneath a directory: nothing leads out of it, removal removes only what is inside. */
#include "base/base.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static char root[32];
static int rootfd = -1;

static void start(void)
{
    strcpy(root, "/tmp/motte-fs-XXXXXX");
    cr_assert_not_null(mkdtemp(root));
    rootfd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static void stop(void)
{
    fs_remove_tree(AT_FDCWD, root);
    close(rootfd);
}

static bool exists(const char *path)
{
    struct stat st;
    return fstatat(rootfd, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

Test(fs, opening_beneath_follows_no_link_and_goes_nowhere_else, .init = start, .fini = stop)
{
    cr_assert_eq(mkdirat(rootfd, "in", 0700), 0);
    cr_assert_eq(fs_replace_at(rootfd, "in/file", "x", 1, 0600), 0);
    cr_assert_eq(symlinkat("in", rootfd, "link"), 0);
    cr_assert_eq(symlinkat("/etc/passwd", rootfd, "passwd"), 0);
    static const char *const bad[] = {"../etc",    "/etc/passwd", "passwd",
                                      "link/file", "in/../../x",  "link"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(fs_open_beneath(rootfd, bad[i], O_RDONLY, 0), -1, "%s", bad[i]);
    int fd = fs_open_beneath(rootfd, "in/file", O_RDONLY, 0);
    cr_assert_geq(fd, 0);
    cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    close(fd);
}

Test(fs, reading_takes_all_or_says_too_big, .init = start, .fini = stop)
{
    char out[8];
    cr_assert_eq(fs_replace_at(rootfd, "seven", "1234567", 7, 0600), 0);
    cr_assert_eq(fs_replace_at(rootfd, "eight", "12345678", 8, 0600), 0);
    cr_assert_eq(fs_read_at(rootfd, "seven", out, sizeof(out)), 7);
    cr_assert_str_eq(out, "1234567");
    errno = 0;
    cr_assert_eq(fs_read_at(rootfd, "eight", out, sizeof(out)), -1);
    cr_assert_eq(errno, EFBIG);
    cr_assert_eq(fs_read_at(rootfd, "none", out, sizeof(out)), -1);
    cr_assert_eq(errno, ENOENT);
    char status[8192];
    cr_assert_gt(fs_read_at(AT_FDCWD, "/proc/self/status", status, sizeof(status)), 0);
}

Test(fs, replacing_leaves_no_other_file_and_writes_through_no_link, .init = start, .fini = stop)
{
    char out[16];
    cr_assert_eq(fs_replace_at(rootfd, "target", "old", 3, 0600), 0);
    cr_assert_eq(symlinkat("target", rootfd, "f.tmp"), 0);
    cr_assert_eq(fs_replace_at(rootfd, "f", "new", 3, 0600), -1, "wrote through a link");
    cr_assert_eq(fs_read_at(rootfd, "target", out, sizeof(out)), 3);
    cr_assert_str_eq(out, "old");
    cr_assert_eq(unlinkat(rootfd, "f.tmp", 0), 0);
    cr_assert_eq(fs_replace_at(rootfd, "f", "one", 3, 0600), 0);
    cr_assert_eq(fs_replace_at(rootfd, "f", "three", 5, 0600), 0);
    cr_assert_eq(fs_read_at(rootfd, "f", out, sizeof(out)), 5);
    cr_assert_not(exists("f.tmp"));
}

Test(fs, removing_a_tree_spares_what_its_links_point_to, .init = start, .fini = stop)
{
    char path[80];
    snprintf(path, sizeof(path), "%s/gone/a/b/c", root);
    cr_assert_eq(fs_mkdir_p(path, 0700), 0);
    cr_assert_eq(mkdirat(rootfd, "kept", 0700), 0);
    cr_assert_eq(fs_replace_at(rootfd, "kept/file", "x", 1, 0600), 0);
    cr_assert_eq(symlinkat("../../kept", rootfd, "gone/a/link"), 0);
    cr_assert_eq(symlinkat("kept", rootfd, "top"), 0);
    for (int i = 0; i < 300; i++) {
        snprintf(path, sizeof(path), "gone/a/b/%d", i);
        cr_assert_eq(fs_replace_at(rootfd, path, "x", 1, 0600), 0);
    }
    cr_assert_eq(fs_remove_tree(rootfd, "gone"), 0);
    cr_assert_eq(fs_remove_tree(rootfd, "top"), 0);
    cr_assert_not(exists("gone"));
    cr_assert_not(exists("top"));
    cr_assert(exists("kept/file"));
    cr_assert_eq(fs_remove_tree(rootfd, "gone"), 0, "gone already is success");
}

Test(fs, making_a_path_refuses_a_link_or_file_at_its_end, .init = start, .fini = stop)
{
    char path[80];
    cr_assert_eq(symlinkat("/tmp", rootfd, "link"), 0);
    snprintf(path, sizeof(path), "%s/link", root);
    cr_assert_eq(fs_mkdir_p(path, 0700), -1);
    snprintf(path, sizeof(path), "%s/link/", root);
    cr_assert_eq(fs_mkdir_p(path, 0700), -1, "a slash at the end follows the link");
    snprintf(path, sizeof(path), "%s/x/y/", root);
    cr_assert_eq(fs_mkdir_p(path, 0700), 0);
    cr_assert_eq(fs_mkdir_p(path, 0700), 0, "there already is success");
    cr_assert_eq(fs_mkdir_p("relative", 0700), -1);
    cr_assert_eq(fs_mkdir_p("", 0700), -1);
}
