/* The root half's records (R02, R20): whole or not there, and what cannot be read is not taken for
 * missing. */
#include "priv/internal.h"
#include "tests/unit/base/refuse.h"
#include "tools.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#define NAME "abcdefghij234567abcd"
#define OTHER "bbcdefghij234567abcd"

struct place {
    char path[64];
    int fd;
};

static struct place place_open(void)
{
    struct place place;
    tools_directory(place.path);
    place.fd = open(place.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert_geq(place.fd, 0);
    return place;
}

static void place_close(struct place *place)
{
    close(place->fd);
    tools_remove(place->path);
}

static struct priv_record record_of(const char *instance)
{
    struct priv_record record = {
        .state = PRIV_LAUNCHED, .uid = 1879048192, .pid = 17, .boot_id = "a boot"};
    snprintf(record.instance, sizeof(record.instance), "%s", instance);
    return record;
}

static void write_one(const struct place *place, const char *instance)
{
    struct priv_record record = record_of(instance);
    struct error err = {0};
    cr_assert_eq(priv_record_write(place->fd, &record, &err), 0, "%s", err.msg);
}

static bool there(const struct place *place, const char *name)
{
    return faccessat(place->fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void assert_not_written(const struct place *place, int sys)
{
    struct priv_record record = record_of(NAME);
    struct error err = {0};
    cr_assert_eq(priv_record_write(place->fd, &record, &err), -1);
    cr_assert_eq(err.sys, sys, "%s", err.msg);
    cr_assert_not(there(place, NAME ".new"), "half a record is left");
}

Test(priv_records, R20_a_record_is_written_whole_or_not_at_all)
{
    struct place place = place_open();
    struct priv_record back;
    struct error err = {0};
    refuse(REFUSE_OPENAT, (struct refusal){.times = 1, .sys = ENOSPC});
    assert_not_written(&place, ENOSPC);
    refuse_nothing();
    const struct rlimit little = {16, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &little), 0);
    assert_not_written(&place, EFBIG);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &all), 0);
    cr_assert_not(there(&place, NAME));
    cr_assert_eq(mkdirat(place.fd, NAME, 0700), 0);
    assert_not_written(&place, EISDIR);
    cr_assert_eq(unlinkat(place.fd, NAME, AT_REMOVEDIR), 0);
    write_one(&place, NAME);
    cr_assert_eq(priv_record_read(place.fd, NAME, &back, &err), 0, "%s", err.msg);
    cr_assert(back.pid == 17 && back.uid == 1879048192);
    place_close(&place);
}

/* The bytes of a good record, of which one thing is changed. */
static void assert_damaged(const struct place *place, void (*change)(struct priv_record *),
                           size_t len)
{
    struct {
        struct priv_record record;
        char more;
    } file = {.more = 'x'};
    struct error err = {0};
    write_one(place, NAME);
    cr_assert_eq(priv_record_read(place->fd, NAME, &file.record, &err), 0, "%s", err.msg);
    if (change != NULL)
        change(&file.record);
    cleanup_close int fd = openat(place->fd, NAME, O_WRONLY | O_TRUNC | O_CLOEXEC);
    cr_assert(fd >= 0 && fs_write_all(fd, &file, len) == 0);
    struct priv_record back;
    cr_assert_eq(priv_record_read(place->fd, NAME, &back, &err), -1);
    cr_assert_eq(err.sys, 0, "nothing that may pass: %s", err.msg);
}

static void other_magic(struct priv_record *record)
{
    record->magic[0] = 'M';
}

static void other_size(struct priv_record *record)
{
    record->size++;
}

static void no_instance(struct priv_record *record)
{
    record->instance[0] = '/';
}

static void other_instance(struct priv_record *record)
{
    memcpy(record->instance, OTHER, sizeof(OTHER));
}

static void no_state(struct priv_record *record)
{
    record->state = 0;
}

static void state_beyond(struct priv_record *record)
{
    record->state = PRIV_DEAD + 1;
}

static void negative_pid(struct priv_record *record)
{
    record->pid = -1; /* everybody, for kill(2) */
}

static void endless_boot(struct priv_record *record)
{
    memset(record->boot_id, 'b', sizeof(record->boot_id));
}

static void endless_snapshot(struct priv_record *record)
{
    memset(record->snapshot, 's', sizeof(record->snapshot));
}

static void no_snapshot(struct priv_record *record)
{
    memcpy(record->snapshot, "/", 2);
}

Test(priv_records, R02_a_damaged_record_is_told_from_one_that_cannot_be_read)
{
    static void (*const changes[])(struct priv_record *) = {
        other_magic,  other_size,   no_instance,  other_instance,   no_state,
        state_beyond, negative_pid, endless_boot, endless_snapshot, no_snapshot};
    const size_t whole = sizeof(struct priv_record);
    struct place place = place_open();
    struct priv_record back;
    struct error err = {0};
    for (size_t i = 0; i < COUNT_OF(changes); i++)
        assert_damaged(&place, changes[i], whole);
    assert_damaged(&place, NULL, whole - 1);
    assert_damaged(&place, NULL, whole + 1);
    /* As long as one of the version before snapshots, and says that it is not one. */
    assert_damaged(&place, NULL, offsetof(struct priv_record, snapshot));
    cr_assert_eq(priv_record_read(place.fd, OTHER, &back, &err), -1);
    cr_assert_eq(err.sys, ENOENT);
    err = (struct error){0};
    cr_assert_eq(mkdirat(place.fd, OTHER, 0700), 0);
    cr_assert_eq(priv_record_read(place.fd, OTHER, &back, &err), -1);
    cr_assert_eq(err.sys, EISDIR);
    place_close(&place);
}

Test(priv_records, R20_removing_a_record_again_is_success)
{
    struct place place = place_open();
    struct error err = {0};
    write_one(&place, NAME);
    cr_assert_eq(priv_record_remove(place.fd, NAME, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_record_remove(place.fd, NAME, &err), 0, "%s", err.msg);
    cr_assert_eq(mkdirat(place.fd, NAME, 0700), 0);
    cr_assert_eq(priv_record_remove(place.fd, NAME, &err), -1);
    cr_assert_eq(err.sys, EISDIR);
    place_close(&place);
}

static int count(void *context, const char *instance, struct error *err)
{
    unsigned *seen = context;
    (void)err;
    *seen += id_instance_valid(instance);
    return 0;
}

static int stop(void *context, const char *instance, struct error *err)
{
    unsigned *seen = context;
    ++*seen;
    return error_set(err, ERR_INTERNAL, 0, "not %s", instance);
}

/* What was not seen may be a VM's. */
Test(priv_records, R02_a_directory_that_cannot_be_read_to_its_end_is_an_error)
{
    static const struct {
        enum refusable call;
        struct refusal refusal;
    } wants[] = {{REFUSE_OPENAT, {.times = 1, .sys = EMFILE}},
                 {REFUSE_FDOPENDIR, {.times = 1, .sys = ENOMEM}},
                 {REFUSE_READDIR, {.times = 1, .after = 1, .sys = EIO}}};
    struct place place = place_open();
    write_one(&place, NAME);
    write_one(&place, OTHER);
    for (size_t i = 0; i < COUNT_OF(wants); i++) {
        struct error err = {0};
        unsigned seen = 0;
        refuse(wants[i].call, wants[i].refusal);
        cr_assert_eq(priv_each_name(place.fd, count, &seen, &err), -1);
        cr_assert_eq(err.sys, wants[i].refusal.sys, "%s", err.msg);
        err = (struct error){0};
        refuse(wants[i].call, wants[i].refusal);
        cr_assert_eq(priv_record_sweep(place.fd, &err), -1);
        cr_assert_eq(err.sys, wants[i].refusal.sys, "%s", err.msg);
        refuse_nothing();
    }
    cr_assert(there(&place, NAME) && there(&place, OTHER));
    place_close(&place);
}

Test(priv_records, R20_what_a_kill_left_half_written_is_swept)
{
    struct place place = place_open();
    struct error err = {0};
    unsigned seen = 0;
    write_one(&place, NAME);
    tools_write(place.path, OTHER ".new", "half", 4);
    tools_write(place.path, ".new", "", 0); /* nobody's name */
    cr_assert_eq(priv_record_sweep(place.fd, &err), 0, "%s", err.msg);
    cr_assert(there(&place, NAME) && there(&place, ".new") && !there(&place, OTHER ".new"));
    write_one(&place, OTHER);
    cr_assert_eq(priv_each_name(place.fd, count, &seen, &err), 0, "%s", err.msg);
    cr_assert_eq(seen, 2);
    cr_assert_eq(priv_each_name(place.fd, stop, &seen, &err), -1);
    cr_assert_eq(seen, 3);
    place_close(&place);
}

Test(priv_records, R20_a_record_is_no_link)
{
    struct place place = place_open();
    struct priv_record back;
    struct error err = {0};
    write_one(&place, OTHER);
    cr_assert_eq(symlinkat(OTHER, place.fd, NAME), 0);
    cr_assert_eq(priv_record_read(place.fd, NAME, &back, &err), -1);
    cr_assert_eq(err.sys, ELOOP);
    place_close(&place);
}
