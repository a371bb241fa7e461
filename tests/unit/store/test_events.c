/* Events: the audits of all VMs as one sequence, whose numbers no power cut repeats, and whose gaps are
 * told. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

static struct fixture f;

static void start(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open_in(&f, "/dev/shm", &err), 0, "%s", err.msg);
}

static void stop(void)
{
    fixture_release(&f);
}

TestSuite(store_events, .init = start, .fini = stop, .timeout = 120);

#define ONE_BOOT "01234567-89ab-cdef-0123-456789abcdef"
#define NEXT_BOOT "fedcba98-89ab-cdef-0123-456789abcdef"
#define BOOT_NUMBERS (INT64_C(1) << 32)

static void boot(const char *id)
{
    struct error err = {0};
    cr_assert_eq(store_events_boot(f.store, id, &err), 0, "%s", err.msg);
}

static struct store_events_bounds bounds(void)
{
    struct error err = {0};
    struct store_events_bounds bounds;
    cr_assert_eq(store_events_bounds(f.store, &bounds, &err), 0, "%s", err.msg);
    return bounds;
}

static void add(const char *instance, int count)
{
    struct error err = {0};
    const struct store_audit_new entry = {instance, STORE_AUDIT_GUEST_PROTOCOL, NULL};
    for (int i = 0; i < count; i++)
        cr_assert_eq(store_audit_add(f.store, &entry, 1, &err), 0, "%s", err.msg);
}

static void read_on(const struct store_events_filter *filter, struct store_events *events)
{
    struct error err = {0};
    cr_assert_eq(store_events_read(f.store, filter, events, &err), 0, "%s", err.msg);
}

static const struct store_events_filter all = {0};

static void sql(const char *text)
{
    char path[64];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK, "%s", sqlite3_errmsg(db));
    sqlite3_close(db);
}

Test(store_events, R02_each_boot_has_numbers_of_its_own)
{
    struct error err = {0};
    boot(ONE_BOOT);
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    int64_t first = bounds().newest;
    cr_assert_eq(first, BOOT_NUMBERS + 1);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    boot(ONE_BOOT);
    add(vm.instance, 1);
    cr_assert_eq(bounds().newest, first + 1, "the same boot goes on");
    sql("DELETE FROM audit WHERE seq > 4294967297"); /* as a power cut may */
    boot(NEXT_BOOT);
    cr_assert_eq(bounds().newest, 2 * BOOT_NUMBERS, "also before there is an event");
    add(vm.instance, 1);
    cr_assert_eq(bounds().newest, 2 * BOOT_NUMBERS + 1);
}

Test(store_events, R02_entries_from_before_there_were_events_come_first)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    fixture_end(f.store, vm.instance);
    store_close(f.store);
    f.store = NULL;
    sql(FIXTURE_WITHOUT_7 "PRAGMA user_version = 6");
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    boot(ONE_BOOT);
    fixture_add(f.store, "a", "vm");
    struct store_events events = {.after = 1, .told = 1};
    read_on(&all, &events);
    cr_assert(events.count == 2 && events.gap == 0 && !events.torn[0] && !events.torn[1]);
    cr_assert(events.entries[0].seq == 2 && events.entries[1].seq == BOOT_NUMBERS + 1);
}

/* Two owners' VMs in turn. */
static void make_many(int count, struct store_vm vms[static 2])
{
    vms[0] = fixture_add(f.store, "a", "one");
    vms[1] = fixture_add(f.store, "b", "two");
    for (int i = 0; i < count; i++)
        add(vms[i % 2].instance, 1);
}

Test(store_events, R25_pages_are_one_reading_and_only_of_what_is_wanted)
{
    enum { MANY = 75 };
    struct store_vm vms[2];
    struct store_events events = {.after = bounds().newest};
    const struct store_events_filter hers = {.owner = "a"}, one = {.owner = "b", .id = "one"},
                                     begun = {.kinds = 1U << STORE_AUDIT_CREATED};
    make_many(MANY, vms);
    fixture_add_pooled(f.store);
    int64_t last = 0;
    int seen = 0, own = 0;
    do {
        read_on(&all, &events);
        for (size_t i = 0; i < events.count; i++, seen++) {
            cr_assert_gt(events.entries[i].seq, last);
            last = events.entries[i].seq;
        }
    } while (events.more);
    cr_assert_eq(seen, MANY + 2, "the service's own VM is nobody's");
    cr_assert_eq(events.after, bounds().newest);
    for (events.after = 0, events.more = true; events.more; own += (int)events.count)
        read_on(&hers, &events);
    cr_assert_eq(own, 1 + (MANY + 1) / 2);
    events.after = 0;
    read_on(&one, &events);
    cr_assert(events.count == 0 && !events.more && events.after == bounds().newest);
    events.after = 0;
    read_on(&begun, &events);
    cr_assert(events.count == 2 && !events.more);
}

Test(store_events, R25_a_vms_own_gap_is_told_to_who_missed_it)
{
    struct store_vm loud = fixture_add(f.store, "a", "loud");
    int64_t before = bounds().newest;
    add(loud.instance, STORE_AUDIT_VM_MAX);
    struct store_events events = {.after = before, .told = before};
    read_on(&all, &events);
    cr_assert(events.count > 0 && !events.torn[0], "it saw what went");
    add(loud.instance, 1);
    events.after = before;
    read_on(&all, &events);
    cr_assert(events.torn[0] && !events.torn[1] && events.gap == 0, "once");
    struct store_events later = {.after = before + 1, .told = before + 1};
    read_on(&all, &later);
    cr_assert(!later.torn[0]);
    struct store_events_filter rare = {.kinds = 1U << STORE_AUDIT_PAUSED};
    events.after = before;
    read_on(&rare, &events);
    cr_assert(events.count == 1 && events.torn[0] && !events.wanted[0], "one may have been wanted");
}

Test(store_events, R25_who_reads_slowly_is_told_of_no_gap_where_he_saw_it_all)
{
    struct store_vm loud = fixture_add(f.store, "a", "loud");
    int64_t before = bounds().newest;
    add(loud.instance, 1);
    struct store_events events = {.after = before, .told = before};
    read_on(&all, &events);
    cr_assert_eq(events.after, before + 1);
    add(loud.instance, STORE_AUDIT_VM_MAX);
    read_on(&all, &events);
    cr_assert(events.count > 0 && !events.torn[0]);
}

Test(store_events, R25_the_gap_of_the_ring_of_all_is_told)
{
    enum { VMS = STORE_AUDIT_MAX / STORE_AUDIT_VM_MAX, EXTRA = 5 };
    static struct store_audit_new entries[VMS];
    static struct store_vm vms[VMS];
    struct error err = {0};
    for (size_t i = 0; i < VMS; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%zu", i);
        vms[i] = fixture_add(f.store, "a", id);
        entries[i] = (struct store_audit_new){vms[i].instance, STORE_AUDIT_GUEST_PROTOCOL, NULL};
    }
    for (int i = 1; i < STORE_AUDIT_VM_MAX; i++)
        cr_assert_eq(store_audit_add(f.store, entries, VMS, &err), 0, "%s", err.msg);
    cr_assert_eq(bounds().lost, 0);
    for (int i = 0; i < EXTRA; i++)
        fixture_add(f.store, "b", (char[]){(char)('a' + i), '\0'});
    int64_t lost = bounds().lost;
    cr_assert_eq(lost, EXTRA);
    struct store_events events = {.after = lost - 1, .told = lost - 1};
    read_on(&all, &events);
    cr_assert(events.gap == lost && events.entries[0].seq == lost + 1);
    events.after = lost;
    read_on(&all, &events);
    cr_assert(events.gap == 0 && events.entries[0].seq == lost + 1);
}

struct listener {
    struct waker waker;
    int woken;
};

static void wake(struct waker *waker)
{
    ((struct listener *)(void *)waker)->woken++;
}

Test(store_events, R25_who_listens_is_woken_once_by_events_alone)
{
    struct error err = {0};
    struct listener listener = {.waker = {.wake = wake}};
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    store_events_listen(f.store, &listener.waker);
    cr_assert_eq(store_vm_idle(f.store, vm.instance, 7, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), -1, "its id is taken: undone");
    cr_assert_eq(listener.woken, 0);
    add(vm.instance, 2);
    cr_assert_eq(listener.woken, 1);
    store_events_listen(f.store, &listener.waker);
    store_events_unlisten(f.store, &listener.waker);
    add(vm.instance, 1);
    cr_assert_eq(listener.woken, 1);
}
