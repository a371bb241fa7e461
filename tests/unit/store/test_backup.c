/* Copies: of one moment, whole, in one file; taken before a migration; and put in place. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>
#include <sys/stat.h>

enum { WRITE_VERSION = 18 }; /* of SQLite's file format: 2 with a log, 1 without */

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

TestSuite(store_backup, .init = start, .fini = stop);

static const char *in_dir(const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", f.dir, name);
    return path;
}

static bool there(const char *name)
{
    struct stat st;
    return stat(in_dir(name), &st) == 0;
}

static long long ask(const char *name, const char *sql)
{
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    cr_assert_eq(sqlite3_open(in_dir(name), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK, "%s",
                 sqlite3_errmsg(db));
    long long number =
        sqlite3_step(statement) == SQLITE_ROW ? sqlite3_column_int64(statement, 0) : -1;
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

static int byte_of(const char *name, long at)
{
    FILE *file = fopen(in_dir(name), "re");
    cr_assert(file != NULL && fseek(file, at, SEEK_SET) == 0);
    int byte = fgetc(file);
    fclose(file);
    return byte;
}

static void change(const char *name, const char *sql)
{
    sqlite3 *db = NULL;
    char *message = NULL;
    cr_assert_eq(sqlite3_open(in_dir(name), &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, &message), SQLITE_OK, "%s", message);
    sqlite3_close(db);
}

static void backup(const char *name)
{
    struct error err = {0};
    cr_assert_eq(store_backup(f.dir, name, &err), 0, "%s", err.msg);
    cr_assert(!there("copy-wal") && !there("copy-shm"), "one file");
    cr_assert_eq(byte_of(name, WRITE_VERSION), 1, "it would begin a log when it is opened");
}

static void shut(void)
{
    store_close(f.store);
    f.store = NULL;
}

Test(store_backup, R02_a_copy_of_a_store_in_use_is_put_back_in_its_place)
{
    struct error err = {0};
    struct store_vm found;
    char aside[STORE_ASIDE_SIZE];
    fixture_add(f.store, "a", "copied");
    backup("copy");
    cr_assert_eq(ask("copy", "SELECT count(*) FROM vms"), 1);
    fixture_add(f.store, "a", "later");
    shut();
    cr_assert_eq(store_restore(f.dir, "copy", aside, &err), 0, "%s", err.msg);
    cr_assert(!there("copy"));
    cr_assert_eq(ask(aside, "SELECT count(*) FROM vms"), 2, "what was there is kept");
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "copied", &found, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "later", &found, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN);
}

/* Its log stays while another program reads it; SQLite would apply that to whatever file has its
 * name. */
Test(store_backup, R02_the_log_of_what_was_there_goes_with_it)
{
    struct error err = {0};
    struct store_vm found;
    char aside[STORE_ASIDE_SIZE], log[sizeof(aside) + 4];
    sqlite3 *other = NULL;
    fixture_add(f.store, "a", "copied");
    backup("copy");
    fixture_add(f.store, "a", "later");
    cr_assert_eq(sqlite3_open(in_dir("motte.db"), &other), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(other, "BEGIN; SELECT * FROM vms", NULL, NULL, NULL), SQLITE_OK);
    shut();
    cr_assert(there("motte.db-wal"));
    cr_assert_eq(store_restore(f.dir, "copy", aside, &err), 0, "%s", err.msg);
    snprintf(log, sizeof(log), "%s-wal", aside);
    cr_assert(there(log) && !there("motte.db-wal"));
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "copied", &found, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_get(f.store, "a", "later", &found, &err), -1);
    shut(); /* before the other one, which takes every file of that name for its own */
    sqlite3_close(other);
}

Test(store_backup, a_second_copy_takes_the_place_of_what_a_killed_one_left)
{
    FILE *file = fopen(in_dir("copy"), "we");
    fputs("half", file);
    fclose(file);
    backup("copy");
    cr_assert_eq(ask("copy", "PRAGMA application_id"), 0x6d6f7474);
}

Test(store_backup, R02_what_is_no_good_copy_changes_nothing)
{
    static const char *const spoil[] = {"PRAGMA user_version = 1000", "PRAGMA application_id = 7",
                                        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema;"
                                        "PRAGMA user_version = 0; PRAGMA application_id = 0"};
    static const enum error_code codes[] = {ERR_STORE_NEWER, ERR_STORE, ERR_STORE};
    char aside[STORE_ASIDE_SIZE];
    fixture_add(f.store, "a", "vm");
    for (size_t i = 0; i < COUNT_OF(spoil) + 1; i++) {
        struct error err = {0};
        backup("copy");
        sqlite3 *db = NULL;
        if (i < COUNT_OF(spoil)) {
            cr_assert_eq(sqlite3_open(in_dir("copy"), &db), SQLITE_OK);
            cr_assert_eq(sqlite3_exec(db, spoil[i], NULL, NULL, NULL), SQLITE_OK);
            sqlite3_close(db);
        } else {
            FILE *file = fopen(in_dir("copy"), "r+e");
            fseek(file, 4096 + 10, SEEK_SET);
            for (int at = 0; at < 8000; at++)
                fputc(0xff, file);
            fclose(file);
        }
        shut();
        cr_assert_eq(store_restore(f.dir, "copy", aside, &err), -1, "%zu", i);
        cr_assert_eq(err.code, i < COUNT_OF(codes) ? codes[i] : ERR_STORE, "%zu: %s", i, err.msg);
        cr_assert(!there(aside), "%zu", i);
        err = (struct error){0};
        cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
        cr_assert_eq(ask("motte.db", "SELECT count(*) FROM vms"), 1);
    }
}

Test(store_backup, R02_an_older_schema_is_copied_before_it_is_migrated)
{
    struct error err = {0};
    fixture_add(f.store, "a", "vm");
    cr_assert(!there("motte.db.v3"), "no copy without a migration");
    for (int turn = 0; turn < 2; turn++) { /* the copy is of the last time */
        shut();
        change("motte.db", FIXTURE_WITHOUT_5 "DROP TABLE cordon; PRAGMA user_version = 3");
        cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
        cr_assert_eq(ask("motte.db", "PRAGMA user_version"), 7);
        cr_assert_eq(ask("motte.db.v3", "PRAGMA user_version"), 3);
        cr_assert_eq(ask("motte.db.v3", "SELECT count(*) FROM vms"), 1 + turn);
        cr_assert_eq(ask("motte.db.v3", "SELECT count(*) FROM sqlite_schema WHERE name = 'cordon'"),
                     0);
        cr_assert(!there("motte.db.v3-wal") && !there("motte.db.part"));
        fixture_add(f.store, "a", turn == 0 ? "second" : "third");
    }
}

Test(store_backup, R02_no_event_of_a_copy_has_a_number_that_was_told_before)
{
    struct error err = {0};
    char aside[STORE_ASIDE_SIZE];
    static const char one[] = "11111111-1111-1111-1111-111111111111",
                      two[] = "22222222-2222-2222-2222-222222222222";
    cr_assert_eq(store_events_boot(f.store, one, &err), 0, "%s", err.msg);
    backup("copy");
    cr_assert_eq(store_events_boot(f.store, two, &err), 0, "%s", err.msg);
    fixture_add(f.store, "a", "vm");
    struct store_events_bounds before, after;
    cr_assert_eq(store_events_bounds(f.store, &before, &err), 0, "%s", err.msg);
    shut();
    cr_assert_eq(store_restore(f.dir, "copy", aside, &err), 0, "%s", err.msg);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_events_boot(f.store, two, &err), 0, "%s", err.msg);
    fixture_add(f.store, "b", "vm");
    cr_assert_eq(store_events_bounds(f.store, &after, &err), 0, "%s", err.msg);
    cr_assert_gt(after.newest >> 32, before.newest >> 32, "in numbers of its own");
}
