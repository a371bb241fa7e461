/* What a record must be to be believed, and what a directory that cannot be read says: nothing. */
#include "priv/internal.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static const char instance[] = "abcdefghijklmnop2345", other[] = "bbbbbbbbbbbbbbbbbbbb";

static char dir[32];
static int records = -1;
static bool unreadable;

/* In the place of libc's. */
struct dirent *readdir(DIR *stream)
{
    if (!unreadable)
        return (struct dirent *)readdir64(stream);
    errno = EIO;
    return NULL;
}

static void start(void)
{
    struct error err = {0};
    struct priv_record record = {.state = PRIV_LAUNCHED, .pid = 7};
    strcpy(dir, "/tmp/motte-records-XXXXXX");
    cr_assert_not_null(mkdtemp(dir));
    records = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memcpy(record.instance, instance, sizeof(instance));
    cr_assert_eq(priv_record_write(records, &record, &err), 0, "%s", err.msg);
}

static void stop(void)
{
    unlinkat(records, instance, 0);
    unlinkat(records, other, 0);
    close(records);
    rmdir(dir);
}

TestSuite(priv_records, .init = start, .fini = stop);

static void expect_damaged(const char *name, const char *what)
{
    struct priv_record found;
    struct error err = {0};
    cr_expect_eq(priv_record_read(records, name, &found, &err), -1, "%s", what);
    cr_expect(err.sys == 0 && strstr(err.msg, "damaged") != NULL, "%s: %s", what, err.msg);
}

static void rewrite(const void *data, size_t len)
{
    cleanup_close int fd = openat(records, instance, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert(fd >= 0 && fs_write_all(fd, data, len) == 0);
}

Test(priv_records, R20_a_record_that_is_not_as_it_was_written_is_damaged)
{
    struct {
        struct priv_record record;
        char more;
    } file = {.more = 'x'};
    struct priv_record well, wrong;
    struct error err = {0};
    cr_assert_eq(priv_record_read(records, instance, &well, &err), 0, "%s", err.msg);
    file.record = well;
    rewrite(&file, sizeof(well) + 1);
    expect_damaged(instance, "too long");
    rewrite(&well, sizeof(well) - 1);
    expect_damaged(instance, "too short");
    wrong = well;
    wrong.magic[sizeof(wrong.magic) - 2]++;
    rewrite(&wrong, sizeof(wrong));
    expect_damaged(instance, "another version's");
    wrong = well;
    wrong.size--;
    rewrite(&wrong, sizeof(wrong));
    expect_damaged(instance, "another size");
    wrong = well;
    wrong.pid = -1;
    rewrite(&wrong, sizeof(wrong));
    expect_damaged(instance, "a process group");
    wrong = well;
    wrong.state = PRIV_DEAD + 1;
    rewrite(&wrong, sizeof(wrong));
    expect_damaged(instance, "an unknown state");
    wrong = well;
    memset(wrong.boot_id, 'b', sizeof(wrong.boot_id));
    rewrite(&wrong, sizeof(wrong));
    expect_damaged(instance, "a boot id without end");
    rewrite(&well, sizeof(well));
    cr_assert_eq(linkat(records, instance, records, other, 0), 0);
    expect_damaged(other, "another's");
    cr_assert_eq(priv_record_read(records, instance, &wrong, &err), 0, "%s", err.msg);
}

Test(priv_records, R20_a_record_is_no_link)
{
    struct priv_record found;
    struct error err = {0};
    cr_assert_eq(renameat(records, instance, records, other), 0);
    cr_assert_eq(symlinkat(other, records, instance), 0);
    cr_assert_eq(priv_record_read(records, instance, &found, &err), -1);
    cr_assert_eq(err.sys, ELOOP);
}

static int count(void *context, const char *name, struct error *err)
{
    (void)err;
    cr_expect_str_eq(name, instance);
    ++*(int *)context;
    return 0;
}

Test(priv_records, R02_a_directory_that_cannot_be_read_is_no_empty_one)
{
    struct error err = {0};
    int seen = 0;
    cr_assert_eq(priv_each_name(records, count, &seen, &err), 0, "%s", err.msg);
    cr_assert_eq(seen, 1);
    unreadable = true;
    cr_assert_eq(priv_each_name(records, count, &seen, &err), -1);
    cr_assert_eq(err.sys, EIO);
    err = (struct error){0};
    cr_assert_eq(priv_record_sweep(records, &err), -1);
    cr_assert_eq(err.sys, EIO);
}
