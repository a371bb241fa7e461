/* No space left: a typed error, reads go on, and all works again once there is room. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static struct fixture f;

/* A tmpfs of 1 MiB in a mount namespace of this test's own. */
static void start(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root: mounts a small tmpfs");
    strcpy(f.dir, "/tmp/motte-full-XXXXXX");
    cr_assert_not_null(mkdtemp(f.dir));
    cr_assert_eq(unshare(CLONE_NEWNS), 0, "%s", strerror(errno));
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("tmpfs", f.dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=1m,mode=0700"), 0);
}

static void stop(void)
{
    store_close(f.store);
    umount(f.dir);
    rmdir(f.dir);
}

TestSuite(store_full, .init = start, .fini = stop, .timeout = 60);

static int ballast(bool there)
{
    char path[64];
    static const char block[4096] = "ballast";
    snprintf(path, sizeof(path), "%s/ballast", f.dir);
    if (!there)
        return unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (int i = 0; i < 64; i++)
        cr_assert_eq(write(fd, block, sizeof(block)), (ssize_t)sizeof(block));
    return close(fd);
}

static void fill_rest(void)
{
    char path[64], block[512] = "x";
    snprintf(path, sizeof(path), "%s/rest", f.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, block, sizeof(block)) > 0)
        ;
    cr_assert_eq(errno, ENOSPC);
    close(fd);
}

/* Inserts until the disk is full; returns how many rows went in. */
static int insert_until_full(struct store_vm *ret_last)
{
    for (int count = 0;; count++) {
        char id[16];
        struct error err = {0};
        snprintf(id, sizeof(id), "vm-%d", count);
        struct store_vm vm = fixture_vm("a", id);
        if (store_vm_insert(f.store, &vm, &err) < 0) {
            cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);
            return count;
        }
        *ret_last = vm;
        cr_assert_lt(count, 10000, "the disk is not full");
    }
}

Test(store_full, R02_a_full_disk_is_typed_and_passes)
{
    struct error err = {0};
    cr_assert_eq(ballast(true), 0);
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    struct store_vm last, back, *rows = NULL;
    int count = insert_until_full(&last);
    cr_assert_gt(count, 5);
    fill_rest();

    size_t listed = 0;
    cr_assert_eq(store_vm_get(f.store, "a", last.id, &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_all(f.store, &rows, &listed, &err), 0, "%s", err.msg);
    cr_assert_eq(listed, (size_t)count, "an unanswered row is there");
    free(rows);
    struct store_vm refused = fixture_vm("a", "refused");
    cr_assert_eq(store_vm_insert(f.store, &refused, &err), -1);
    cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);

    cr_assert_eq(ballast(false), 0);
    err = (struct error){0};
    cr_assert_eq(store_vm_end(f.store, last.instance, STORE_EXITED, "deleted", "", "", &err), 0,
                 "%s", err.msg);
    cr_assert_eq(store_vm_insert(f.store, &refused, &err), 0, "%s", err.msg);
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "refused", &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", last.id, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE);
}

Test(store_full, R02_opening_on_a_full_disk_is_typed_and_leaves_no_ruin)
{
    struct error err = {0};
    fill_rest();
    cr_assert_eq(store_open(f.dir, &f.store, &err), -1);
    cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);
    char path[64];
    snprintf(path, sizeof(path), "%s/rest", f.dir);
    cr_assert_eq(unlink(path), 0);
    err = (struct error){0};
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    fixture_add(f.store, "a", "vm");
}
