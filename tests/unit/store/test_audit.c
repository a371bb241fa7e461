/* The audit (R25): a ring per VM inside a ring of all, held against a small model; and floods. */
#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>
#include <sys/stat.h>

static struct fixture f;

static void start(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
}

static void stop(void)
{
    fixture_release(&f);
}

TestSuite(store_audit, .init = start, .fini = stop, .timeout = 120);

static void add(const char *instance, enum store_audit_kind kind, const char *detail)
{
    struct error err = {0};
    const struct store_audit_new entry = {.instance = instance, .kind = kind, .detail = detail};
    cr_assert_eq(store_audit_add(f.store, &entry, 1, &err), 0, "%s", err.msg);
}

static struct store_audit *list(const char *owner, const char *id, int64_t after, uint32_t limit,
                                size_t *ret_count, bool *ret_more)
{
    struct error err = {0};
    struct store_audit *entries = NULL;
    const struct store_audit_filter filter = {owner, id, after, limit};
    cr_assert_eq(store_audit_list(f.store, &filter, &entries, ret_count, ret_more, &err), 0, "%s",
                 err.msg);
    return entries;
}

/* Counted through a connection of the test's own. */
static uint64_t rows(void)
{
    char path[64];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, "SELECT count(*) FROM audit", -1, &statement, NULL),
                 SQLITE_OK);
    cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
    uint64_t count = (uint64_t)sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return count;
}

/* What the store says, which must be what there is. */
static uint64_t size(void)
{
    struct error err = {0};
    uint64_t entries = 0;
    cr_assert_eq(store_audit_size(f.store, &entries, &err), 0, "%s", err.msg);
    cr_assert_eq(rows(), entries);
    return entries;
}

static void expect(const struct store_audit *entry, const struct store_vm *vm,
                   enum store_audit_kind kind, const char *detail)
{
    cr_assert_str_eq(entry->instance, vm->instance);
    cr_assert_str_eq(entry->id, vm->id);
    cr_assert_str_eq(entry->owner, vm->owner);
    cr_assert_eq(entry->kind, kind, "%s", store_audit_kind_name(entry->kind));
    cr_assert_str_eq(entry->detail, detail);
    cr_assert(llabs(entry->wall_ms - clock_wall_ms()) < 60000);
}

Test(store_audit, R25_a_vms_life_is_there_after_its_end_and_after_a_restart)
{
    struct error err = {0};
    size_t count = 0;
    bool more = true;
    struct store_vm vm = fixture_add(f.store, "a", "vm"), other = fixture_add(f.store, "b", "vm");
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    add(vm.instance, STORE_AUDIT_SECCOMP_VIOLATION, "{\"number\":41}");
    fixture_end(f.store, vm.instance);
    add(vm.instance, STORE_AUDIT_GUARD_WRONG, NULL);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    struct store_audit *entries = list("a", "vm", 0, 100, &count, &more);
    cr_assert(count == 5 && !more);
    expect(&entries[0], &vm, STORE_AUDIT_CREATED,
           "{\"hypervisor\":\"firecracker\",\"seccomp\":\"minimal\"}");
    expect(&entries[1], &vm, STORE_AUDIT_RUNNING, "{}");
    expect(&entries[2], &vm, STORE_AUDIT_SECCOMP_VIOLATION, "{\"number\":41}");
    expect(&entries[3], &vm, STORE_AUDIT_ENDED, "{\"state\":\"exited\",\"reason\":\"deleted\"}");
    expect(&entries[4], &vm, STORE_AUDIT_GUARD_WRONG, "{}");
    for (size_t i = 1; i < count; i++)
        cr_assert_lt(entries[i - 1].seq, entries[i].seq);
    free(entries);
    entries = list("b", "vm", 0, 100, &count, &more);
    cr_assert_eq(count, 1);
    expect(&entries[0], &other, STORE_AUDIT_CREATED,
           "{\"hypervisor\":\"firecracker\",\"seccomp\":\"minimal\"}");
    free(entries);
    cr_assert_eq(size(), 6);
}

Test(store_audit, R25_an_id_means_the_vm_that_has_it_else_the_last_one)
{
    size_t count = 0;
    bool more = false;
    struct store_vm first = fixture_add(f.store, "a", "vm");
    fixture_end(f.store, first.instance);
    struct store_vm second = fixture_add(f.store, "a", "vm");
    struct store_audit *entries = list(NULL, "vm", 0, 100, &count, &more);
    cr_assert_eq(count, 1);
    cr_assert_str_eq(entries[0].instance, second.instance);
    free(entries);
    fixture_end(f.store, second.instance);
    entries = list("a", "vm", 0, 100, &count, &more);
    cr_assert_eq(count, 2);
    cr_assert_str_eq(entries[1].instance, second.instance);
    free(entries);
}

Test(store_audit, R25_what_cannot_be_read_or_written_is_refused)
{
    static const struct {
        struct store_audit_filter filter;
        enum error_code code;
    } cases[] = {
        {{"a", "nobody", 0, 100}, ERR_VM_UNKNOWN},
        {{"b", "vm", 0, 100}, ERR_VM_UNKNOWN},
        {{"a", "vm", 0, 0}, ERR_QUERY},
        {{"a", "vm", 0, STORE_AUDIT_VM_MAX + 1}, ERR_QUERY},
    };
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct error err = {0};
        struct store_audit *entries = NULL;
        size_t count = 0;
        bool more = false;
        cr_assert_eq(store_audit_list(f.store, &cases[i].filter, &entries, &count, &more, &err),
                     -1);
        cr_assert_eq(err.code, cases[i].code, "%zu: %s", i, err.msg);
    }
    add("aaaaaaaaaaaaaaaaaaaa", STORE_AUDIT_ADOPTED, NULL);
    cr_assert_eq(size(), 1, "nobody's entry is none");
    char detail[STORE_AUDIT_DETAIL_SIZE + 1];
    memset(detail, 'x', STORE_AUDIT_DETAIL_SIZE);
    detail[STORE_AUDIT_DETAIL_SIZE] = '\0';
    const struct store_audit_new both[] = {
        {.instance = vm.instance, .kind = STORE_AUDIT_ADOPTED},
        {.instance = vm.instance, .kind = STORE_AUDIT_ADOPTED, .detail = detail},
    };
    struct error err = {0};
    cr_assert_eq(store_audit_add(f.store, both, COUNT_OF(both), &err), -1);
    cr_assert_eq(err.code, ERR_INTERNAL);
    cr_assert_eq(size(), 1, "all or nothing");
}

/* ---- against a model ---- */

enum { VMS = 12, BATCH = 40 };

/* What each VM should have: its newest entries, by a number that the detail carries. */
struct model {
    struct store_vm vm[VMS];
    int number[VMS][STORE_AUDIT_VM_MAX], count[VMS], made;
};

static void model_add(struct model *model, size_t vm, int number)
{
    int *numbers = model->number[vm];
    if (model->count[vm] == STORE_AUDIT_VM_MAX)
        memmove(numbers, numbers + 1, sizeof(*numbers) * (size_t)--model->count[vm]);
    numbers[model->count[vm]++] = number;
}

static void add_some(struct model *model, struct random *random)
{
    struct store_audit_new entries[BATCH];
    char details[BATCH][32];
    struct error err = {0};
    size_t count = random_below(random, BATCH) + 1;
    for (size_t i = 0; i < count; i++) {
        /* Some much more often than others. */
        size_t vm = random_below(random, random_below(random, VMS) + 1);
        snprintf(details[i], sizeof(details[i]), "{\"n\":%d}", ++model->made);
        entries[i] = (struct store_audit_new){model->vm[vm].instance, STORE_AUDIT_GUEST_PROTOCOL,
                                              details[i]};
        model_add(model, vm, model->made);
    }
    cr_assert_eq(store_audit_add(f.store, entries, count, &err), 0, "%s", err.msg);
}

static void compare(const struct model *model, struct random *random)
{
    size_t total = 0;
    for (size_t vm = 0; vm < VMS; vm++) {
        int64_t after = 0;
        int at = 0;
        for (bool more = true; more;) { /* in pages of any size */
            size_t count = 0;
            struct store_audit *entries =
                list("a", model->vm[vm].id, after,
                     (uint32_t)random_below(random, STORE_AUDIT_VM_MAX) + 1, &count, &more);
            for (size_t i = 0; i < count; i++, at++) {
                char detail[32] = "{\"hypervisor\":\"firecracker\"";
                if (model->number[vm][at] > 0)
                    snprintf(detail, sizeof(detail), "{\"n\":%d}", model->number[vm][at]);
                cr_assert_lt(at, model->count[vm], "seed %llu", (unsigned long long)random->seed);
                cr_assert(strncmp(entries[i].detail, detail, strlen(detail)) == 0,
                          "%s, not %s; seed %llu", entries[i].detail, detail,
                          (unsigned long long)random->seed);
                after = entries[i].seq;
            }
            free(entries);
        }
        cr_assert_eq(at, model->count[vm], "seed %llu", (unsigned long long)random->seed);
        total += (size_t)at;
    }
    cr_assert_eq(size(), total, "seed %llu", (unsigned long long)random->seed);
}

Test(store_audit, R25_R37_random_entries_of_many_vms_are_as_in_a_model)
{
    struct random random = random_start();
    struct model *model = calloc(1, sizeof(*model));
    struct error err = {0};
    for (size_t i = 0; i < VMS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%zu", i);
        model->vm[i] = fixture_add(f.store, "a", id);
        model_add(model, i, 0); /* created */
    }
    for (int round = 0; round < 200; round++) {
        add_some(model, &random);
        if (random_below(&random, 10) == 0)
            compare(model, &random);
        if (random_below(&random, 50) == 0)
            cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    }
    compare(model, &random);
    cr_assert_eq(model->count[0], STORE_AUDIT_VM_MAX, "the ring turned");
    free(model);
}

/* ---- floods: in memory, so that the disk's speed is no part of it ---- */

static void start_in_memory(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open_in(&f, "/dev/shm", &err), 0, "%s", err.msg);
}

TestSuite(store_audit_flood, .init = start_in_memory, .fini = stop, .timeout = 230);

enum {
    FLOOD = 1000000,
    CHUNK = 5000,
    RUN = 25,
    CROWD = STORE_AUDIT_MAX / STORE_AUDIT_VM_MAX + 200
};

/* `count` entries of the VMs in turn, a few of each. */
static void flood(char (*instances)[ID_INSTANCE_SIZE], size_t vms, int count)
{
    static struct store_audit_new entries[CHUNK];
    struct error err = {0};
    for (int at = 0; at < count; at += CHUNK) {
        for (int i = 0; i < CHUNK; i++)
            entries[i] = (struct store_audit_new){instances[(size_t)(at + i) / RUN % vms],
                                                  STORE_AUDIT_GUEST_PROTOCOL,
                                                  "{\"during\":\"exec\",\"flood\":true}"};
        cr_assert_eq(store_audit_add(f.store, entries, CHUNK, &err), 0, "%s", err.msg);
    }
}

/* Bytes of the database and its log together. */
static long long bytes(void)
{
    static const char *const names[] = {"motte.db", "motte.db-wal"};
    long long total = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[64];
        struct stat st;
        snprintf(path, sizeof(path), "%s/%s", f.dir, names[i]);
        cr_assert_eq(stat(path, &st), 0);
        total += st.st_size;
    }
    return total;
}

static long resident_kib(void)
{
    char text[128];
    cr_assert_geq(fs_read_at(-100 /* AT_FDCWD */, "/proc/self/statm", text, sizeof(text)), 0);
    return strtol(strchr(text, ' '), NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

/* The log grows to a thousand pages before it is written back. */
static void expect_flat(long long bytes_before, long kib_before)
{
    long long more_bytes = bytes() - bytes_before;
    long more_kib = resident_kib() - kib_before;
    cr_log_info("%lld bytes and %ld KiB more; %lld bytes in all", more_bytes, more_kib, bytes());
    cr_assert_lt(more_bytes, 5 << 20);
#ifndef __SANITIZE_ADDRESS__ /* which keeps what was freed, and finds leaks by itself */
    cr_assert_lt(more_kib, 4096);
#endif
}

Test(store_audit_flood, R25_a_flood_of_one_vm_costs_no_other_an_entry)
{
    size_t count = 0;
    bool more = false;
    struct store_vm quiet = fixture_add(f.store, "a", "quiet");
    struct store_vm loud = fixture_add(f.store, "a", "loud");
    add(quiet.instance, STORE_AUDIT_SECCOMP_VIOLATION, "{\"number\":41}");
    flood(&loud.instance, 1, FLOOD / 20);
    long long before = bytes();
    long kib = resident_kib();
    flood(&loud.instance, 1, FLOOD / 4);
    expect_flat(before, kib);
    cr_assert_eq(size(), STORE_AUDIT_VM_MAX + 2);
    struct store_audit *entries = list("a", "quiet", 0, 100, &count, &more);
    cr_assert_eq(count, 2);
    cr_assert_eq(entries[1].kind, STORE_AUDIT_SECCOMP_VIOLATION);
    free(entries);
}

Test(store_audit_flood, R25_a_flood_of_a_million_entries_leaves_memory_and_database_flat)
{
    static char instances[CROWD][ID_INSTANCE_SIZE];
    struct error err = {0};
    int64_t begin = clock_mono_ms();
    for (size_t i = 0; i < CROWD; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%zu", i);
        memcpy(instances[i], fixture_add(f.store, "a", id).instance, ID_INSTANCE_SIZE);
    }
    flood(instances, CROWD, CROWD * STORE_AUDIT_VM_MAX);
    cr_assert_eq(size(), STORE_AUDIT_MAX);
    long long before = bytes();
    long kib = resident_kib();
    flood(instances, CROWD, FLOOD);
    expect_flat(before, kib);
    cr_assert_eq(size(), STORE_AUDIT_MAX);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(size(), STORE_AUDIT_MAX);
    cr_log_info("%lld ms", (long long)(clock_mono_ms() - begin));
}
