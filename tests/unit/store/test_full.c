/* No space left: a typed error, reads go on, and all works again once there is room. */
#include "store/internal.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

static struct fixture f;

/* A tmpfs of 12 MiB in a mount namespace of this test's own. */
static void start(void)
{
    if (geteuid() != 0)
        cr_skip_test("needs root: mounts a small tmpfs");
    strcpy(f.dir, "/tmp/motte-full-XXXXXX");
    cr_assert_not_null(mkdtemp(f.dir));
    cr_assert_eq(unshare(CLONE_NEWNS), 0, "%s", strerror(errno));
    cr_assert_eq(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("tmpfs", f.dir, "tmpfs", MS_NOSUID | MS_NODEV, "size=12m,mode=0700"), 0);
}

static void stop(void)
{
    store_close(f.store);
    umount(f.dir);
    rmdir(f.dir);
}

TestSuite(store_full, .init = start, .fini = stop, .timeout = 60);

static void free_rest(void)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/rest", f.dir);
    cr_assert_eq(unlink(path), 0);
}

/* All but `left` bytes. */
static void fill_but(off_t left)
{
    char path[64], block[4096] = "x";
    snprintf(path, sizeof(path), "%s/rest", f.dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    while (write(fd, block, sizeof(block)) > 0)
        continue;
    cr_assert_eq(errno, ENOSPC);
    struct stat st;
    cr_assert(fstat(fd, &st) == 0 && ftruncate(fd, st.st_size - left) == 0);
    close(fd);
}

static void fill_rest(void)
{
    fill_but(0);
}

static off_t size_of_ballast(void)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof(path), "%s/ballast", f.dir);
    cr_assert_eq(stat(path, &st), 0);
    return st.st_size;
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

static void expect_no_room(const struct store_vm *vm)
{
    struct error err = {0};
    cr_assert_eq(store_vm_insert(f.store, vm, &err), -1);
    cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "disk of the state directory"), "%s", err.msg);
}

static void end_all(const struct store_vm *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct error err = {0};
        struct store_vm row;
        cr_assert_eq(store_vm_deleting(f.store, "a", rows[i].id, &row, &err), 0, "%zu of %zu: %s",
                     i, count, err.msg);
        cr_assert_eq(store_vm_end(f.store, row.instance, STORE_EXITED, "deleted", "", "", &err), 0,
                     "%zu of %zu: %s", i, count, err.msg);
    }
}

Test(store_full, R02_on_a_full_disk_no_vm_is_made_and_each_can_end)
{
    struct error err = {0};
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    struct store_vm rows[20], back, refused = fixture_vm("a", "refused");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%zu", i);
        rows[i] = fixture_add(f.store, "a", id);
    }
    fill_rest();
    expect_no_room(&refused);
    end_all(rows, COUNT_OF(rows));
    expect_no_room(&refused); /* though the ends have left some */

    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", rows[0].id, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE);
    free_rest();
    err = (struct error){0};
    cr_assert_eq(store_vm_insert(f.store, &refused, &err), 0, "%s", err.msg);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "refused", &back, &err), 0, "%s", err.msg);
}

Test(store_full, R02_what_fills_the_disk_may_be_the_inventory_itself_twice)
{
    struct error err = {0};
    struct store_vm last, back;
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    for (int round = 0; round < 2; round++) {
        cleanup_free struct store_vm *rows = NULL;
        size_t count = 0;
        int inserted = insert_until_full(&last);
        cr_assert_gt(inserted, 5);
        fill_rest();
        cr_assert_eq(store_vm_get(f.store, "a", last.id, &back, &err), 0, "%s", err.msg);
        cr_assert_eq(store_vm_all(f.store, &rows, &count, &err), 0, "%s", err.msg);
        cr_assert_eq(count, (size_t)inserted, "an unanswered row is there");
        end_all(rows, count);
        free_rest();
        cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg); /* cuts its log back */
    }
}

/* What is said of a VM while it runs, over and over, until it does not fit. */
Test(store_full, R02_only_an_end_may_have_the_room_for_ends)
{
    struct error err = {0};
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    struct store_vm row = fixture_add(f.store, "a", "vm");
    fill_rest();
    for (int64_t i = 1; err.code == ERR_NONE; i++) {
        cr_assert_lt(i, 10000, "the room for ends is used up");
        (void)store_vm_idle(f.store, row.instance, i, &err);
    }
    cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);
    cr_assert_eq(size_of_ballast(), STORE_BALLAST);
    end_all(&row, 1);
}

/* As a copy of the directory may have left it. */
Test(store_full, R02_a_ballast_without_blocks_is_none)
{
    struct error err = {0};
    char path[64];
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    struct store_vm vm = fixture_vm("a", "vm");
    store_close(f.store);
    snprintf(path, sizeof(path), "%s/ballast", f.dir);
    cr_assert(truncate(path, 0) == 0 && truncate(path, STORE_BALLAST) == 0);
    fill_but(STORE_BALLAST / 2); /* room for a VM, and not for their ends */
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    expect_no_room(&vm);
}

Test(store_full, R02_opening_on_a_full_disk_is_typed_and_leaves_no_ruin)
{
    struct error err = {0};
    fill_rest();
    cr_assert_eq(store_open(f.dir, &f.store, &err), -1);
    cr_assert_eq(err.code, ERR_STORE_FULL, "%s", err.msg);
    free_rest();
    err = (struct error){0};
    cr_assert_eq(store_open(f.dir, &f.store, &err), 0, "%s", err.msg);
    fixture_add(f.store, "a", "vm");
}
