/* The end of VMs: once, with a certificate, and not for ever. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

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

TestSuite(store_ends, .init = start, .fini = stop);

/* Asks the file through a connection of the test's own. */
static long long ask(const char *sql, char *text, size_t size)
{
    char path[64];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK, "%s",
                 sqlite3_errmsg(db));
    cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
    long long number = sqlite3_column_int64(statement, 0);
    if (text != NULL)
        snprintf(text, size, "%s", (const char *)sqlite3_column_text(statement, 0));
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

Test(store_ends, ending_twice_or_an_unknown_instance_is_success_and_changes_nothing)
{
    struct error err = {0};
    char reason[64];
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    cr_assert_eq(store_vm_end(f.store, vm.instance, STORE_FAILED, "ttl", "m", NULL, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(store_vm_end(f.store, vm.instance, STORE_LOST, "idle", "n", NULL, &err), 0, "%s",
                 err.msg);
    cr_assert_eq(store_vm_end(f.store, "aaaaaaaaaaaaaaaaaaaa", STORE_LOST, "idle", "", "", &err), 0,
                 "%s", err.msg);
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), 1);
    ask("SELECT reason FROM certificates", reason, sizeof(reason));
    cr_assert_str_eq(reason, "ttl", "the first reason is the true one");
    cr_assert_eq(ask("SELECT count(*) FROM vms", NULL, 0), 0);
}

Test(store_ends, a_state_of_the_living_is_no_end)
{
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    for (int state = 0; state <= STORE_DELETING; state++) {
        struct error err = {0};
        cr_assert_eq(
            store_vm_end(f.store, vm.instance, (enum store_state)state, "ttl", "", "", &err), -1);
        cr_assert_eq(err.code, ERR_INTERNAL);
    }
    struct error err = {0};
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
}

Test(store_ends, R31_the_console_tail_is_bounded_and_keeps_the_newest_bytes_as_they_are)
{
    enum { LEN = 100000 };
    struct error err = {0};
    char *console = malloc(LEN + 1), tail[32];
    memset(console, 'x', LEN);
    memcpy(console + LEN - 8, "\x1b\xff\xfe'\"%s;", 9);
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    cr_assert_eq(store_vm_end(f.store, vm.instance, STORE_FAILED, "vmm_crash", "", console, &err),
                 0, "%s", err.msg);
    cr_assert_eq(ask("SELECT length(console) FROM certificates", NULL, 0), 8192);
    ask("SELECT hex(substr(console, -8)) FROM certificates", tail, sizeof(tail));
    cr_assert_str_eq(tail, "1BFFFE272225733B");
    free(console);
}

Test(store_ends, long_reasons_and_messages_are_cut_to_what_a_row_holds)
{
    struct error err = {0};
    char text[2000];
    memset(text, 'r', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(store_vm_end(f.store, vm.instance, STORE_FAILED, text, text, "", &err), 0, "%s",
                 err.msg);
    cr_assert_eq(ask("SELECT length(reason) FROM certificates", NULL, 0), STORE_REASON_MAX - 1);
    cr_assert_eq(ask("SELECT length(message) FROM certificates", NULL, 0), ERROR_MESSAGE_MAX - 1);
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE);
}

Test(store_ends, R31_certificates_are_bounded_and_the_oldest_go_first, .timeout = 120)
{
    enum { MORE = 25 };
    struct store_vm first = fixture_add(f.store, "a", "first"), back;
    fixture_end(f.store, first.instance);
    for (int i = 1; i < STORE_CERTIFICATES_MAX; i++)
        fixture_end(f.store, fixture_add(f.store, "a", "vm").instance);
    struct error err = {0};
    cr_assert_eq(store_vm_get(f.store, "a", "first", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE, "the maximum is kept");
    for (int i = 0; i < MORE; i++)
        fixture_end(f.store, fixture_add(f.store, "a", "vm").instance);
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), STORE_CERTIFICATES_MAX);
    cr_assert_eq(ask("SELECT min(number) FROM certificates", NULL, 0), MORE + 1);
    err = (struct error){0};
    cr_assert_eq(store_vm_get(f.store, "a", "first", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN, "forgotten");
}

static void at(const char *boot, int64_t boot_ms)
{
    struct error err = {0};
    cr_assert_eq(store_age(f.store, boot, boot_ms, 1000, &err), 0, "%s", err.msg);
}

/* Time that the host was up, over reboots, whatever the wall clock says. */
Test(store_ends, R02_certificates_go_when_they_are_old)
{
    struct store_vm first = fixture_add(f.store, "a", "first"),
                    second = fixture_add(f.store, "a", "second");
    at("one", 5000);
    fixture_end(f.store, first.instance);
    at("one", 5600);
    fixture_end(f.store, second.instance);
    at("one", 6000);
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), 2, "exactly as old is young");
    at("two", 400000); /* another boot: how long the host was off is not known */
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), 2);
    at("two", 400001);
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), 1);
    cr_assert_eq(ask("SELECT count(*) FROM certificates WHERE id = 'second'", NULL, 0), 1);
    at("two", 400601);
    cr_assert_eq(ask("SELECT count(*) FROM certificates", NULL, 0), 0);
    at("two", 300000); /* a clock that went back takes nothing away */
    cr_assert_eq(ask("SELECT up_ms FROM clock", NULL, 0), 1601);
}

Test(store_ends, R25_a_certificate_is_read_by_its_owner_and_is_the_newest_of_its_id)
{
    struct error err = {0};
    static struct store_certificate found;
    struct store_vm first = fixture_add(f.store, "a", "vm");
    cr_assert_eq(
        store_vm_end(f.store, first.instance, STORE_EXITED, "ttl", "old", "before\n", &err), 0);
    struct store_vm second = fixture_add(f.store, "a", "vm");
    cr_assert_eq(store_certificate_get(f.store, "a", "vm", &found, &err), 0, "%s", err.msg);
    cr_assert_str_eq(found.instance, first.instance);
    cr_assert_eq(
        store_vm_end(f.store, second.instance, STORE_LOST, "vmm_crash", "why", "\x1b\xff!", &err),
        0);
    for (int admin = 0; admin < 2; admin++) {
        cr_assert_eq(store_certificate_get(f.store, admin ? NULL : "a", "vm", &found, &err), 0);
        cr_assert_str_eq(found.instance, second.instance);
        cr_assert_eq(found.state, STORE_LOST);
        cr_assert_str_eq(found.reason, "vmm_crash");
        cr_assert_str_eq(found.message, "why");
        cr_assert_eq(found.created_wall_ms, second.created_wall_ms);
        cr_assert_geq(found.ended_wall_ms, found.created_wall_ms);
        cr_assert_eq(found.console_len, 3);
        cr_assert_eq(memcmp(found.console, "\x1b\xff!", 3), 0);
    }
    cr_assert_eq(store_certificate_get(f.store, "b", "vm", &found, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN);
}
