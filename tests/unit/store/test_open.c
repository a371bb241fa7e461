/* Opening: from nothing, from an older schema, and what must be refused without a touch. */
#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <sys/stat.h>

static struct fixture f;
static char path[64];

static void start(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
}

static void stop(void)
{
    fixture_release(&f);
}

TestSuite(store_open, .init = start, .fini = stop);

static void sql(const char *text)
{
    sqlite3 *db = NULL;
    char *message = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, text, NULL, NULL, &message), SQLITE_OK, "%s: %s", text, message);
    sqlite3_close(db);
}

static enum error_code reopen(char *message)
{
    struct error err = {0};
    int result = fixture_reopen(&f, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    if (message != NULL)
        memcpy(message, err.msg, sizeof(err.msg));
    return err.code;
}

static size_t read_file(char *out, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t len = fread(out, 1, size, file);
    fclose(file);
    return len;
}

/* Opening must fail with this code and leave every byte of the file as it is. */
static void refused_untouched(enum error_code code, const char *says)
{
    enum { SIZE = 1 << 20 };
    char message[ERROR_MESSAGE_MAX], *before = malloc(SIZE), *after = malloc(SIZE);
    size_t len = read_file(before, SIZE);
    struct stat first, second;
    cr_assert_eq(stat(path, &first), 0);
    cr_assert_eq(reopen(message), code, "%s", message);
    cr_assert_not_null(strstr(message, says), "%s", message);
    cr_assert_eq(stat(path, &second), 0);
    cr_assert_eq(read_file(after, SIZE), len);
    cr_assert_arr_eq(before, after, len);
    cr_assert_eq(first.st_ino, second.st_ino);
    cr_assert_eq(first.st_mtim.tv_sec, second.st_mtim.tv_sec);
    cr_assert_eq(first.st_mtim.tv_nsec, second.st_mtim.tv_nsec);
    free(before);
    free(after);
}

Test(store_open, R02_an_empty_file_becomes_an_inventory)
{
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(unlink(path), 0);
    int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
    cr_assert_eq(reopen(NULL), ERR_NONE);
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(reopen(NULL), ERR_NONE, "and opens again");
    struct error err = {0};
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert_str_eq(back.instance, vm.instance);
}

static unsigned open_logs(void)
{
    unsigned count = 0;
    for (int fd = 0; fd < 64; fd++) {
        char link[32], target[128] = "";
        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof(target) - 1) > 0)
            count += strstr(target, "/motte.db-wal") != NULL;
    }
    return count;
}

Test(store_open, no_reading_connection_needs_a_descriptor_later)
{
    enum { READERS = 4, WRITER = 1 }; /* STORE_READERS */
    cr_assert_eq(open_logs(), READERS + WRITER);
}

Test(store_open, the_file_is_for_its_owner_only_whatever_the_umask)
{
    char other[96];
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(unlink(path), 0);
    mode_t old = umask(0);
    cr_assert_eq(reopen(NULL), ERR_NONE);
    fixture_add(f.store, "a", "vm");
    umask(old);
    static const char *const files[] = {"", "-wal", "-shm"};
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        struct stat st;
        snprintf(other, sizeof(other), "%s%s", path, files[i]);
        cr_assert_eq(stat(other, &st), 0, "%s", other);
        cr_assert_eq(st.st_mode & 07777, 0600, "%s is %o", other, st.st_mode);
    }
}

Test(store_open, R02_a_first_start_that_was_cut_off_is_taken_up)
{
    store_close(f.store);
    f.store = NULL;
    /* As an interrupted first start leaves it: WAL is on, nothing was committed. */
    sql(FIXTURE_WITHOUT_6
        "DROP TABLE vms; DROP TABLE certificates; DROP TABLE audit; DROP TABLE audit_size;"
        "DROP TABLE clock; DROP TABLE cordon; DROP TABLE snapshots; DROP TABLE snapshotting;"
        "PRAGMA user_version = 0;"
        "PRAGMA application_id = 0; VACUUM");
    cr_assert_eq(reopen(NULL), ERR_NONE);
    fixture_add(f.store, "a", "vm");
}

Test(store_open, a_newer_schema_is_refused_untouched)
{
    sql("PRAGMA user_version = 1000");
    store_close(f.store);
    f.store = NULL;
    refused_untouched(ERR_STORE_NEWER, "1000");
    sql("PRAGMA user_version = 7");
    cr_assert_eq(reopen(NULL), ERR_NONE, "the right version takes it");
}

/* Takes out what came with schema 3 and later. */
#define BEFORE_3                                                                                   \
    "ALTER TABLE vms DROP COLUMN expires_wall_ms; ALTER TABLE vms DROP COLUMN idle_s;"             \
    "ALTER TABLE vms DROP COLUMN idle_since_boot_ms; ALTER TABLE vms DROP COLUMN agent;"           \
    "ALTER TABLE vms DROP COLUMN on_unresponsive;"                                                 \
    "ALTER TABLE certificates DROP COLUMN ended_up_ms; DROP TABLE clock;"                          \
    "DROP TABLE cordon;" FIXTURE_WITHOUT_5

Test(store_open, R02_vms_from_before_idleness_are_never_idle)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    store_close(f.store);
    f.store = NULL;
    sql(BEFORE_3 "PRAGMA user_version = 2");
    cr_assert_eq(reopen(NULL), ERR_NONE);
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert(back.idle_s == 0 && back.agent == STORE_AGENT_UNKNOWN &&
              back.on_unresponsive == STORE_KEEP && back.expires_boot_ms == vm.expires_boot_ms);
    cr_assert_eq(store_age(f.store, "boot", 1, 1, &err), 0, "%s", err.msg);
}

Test(store_open, R02_vms_from_before_the_pool_are_their_callers)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm("a", "vm"), back;
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), 0, "%s", err.msg);
    store_close(f.store);
    f.store = NULL;
    sql(FIXTURE_WITHOUT_5 "PRAGMA user_version = 4");
    cr_assert_eq(reopen(NULL), ERR_NONE);
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert(back.purpose == STORE_FOR_CALLER && back.source == STORE_FROM_BOOT &&
              back.snapshot[0] == '\0');
}

Test(store_open, R25_an_inventory_from_before_the_audit_gets_one)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    store_close(f.store);
    f.store = NULL;
    sql(BEFORE_3 "DROP TABLE audit; DROP TABLE audit_size; PRAGMA user_version = 1");
    cr_assert_eq(reopen(NULL), ERR_NONE);
    fixture_end(f.store, vm.instance);
    uint64_t entries = 0;
    cr_assert_eq(store_audit_size(f.store, &entries, &err), 0, "%s", err.msg);
    cr_assert_eq(entries, 1, "what happened since");
}

Test(store_open, another_programs_database_is_refused_untouched)
{
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(unlink(path), 0);
    sql("CREATE TABLE vms (x)");
    cr_assert_eq(chmod(path, 0600), 0);
    refused_untouched(ERR_STORE, "another program");
    sql("DROP TABLE vms; PRAGMA application_id = 77");
    refused_untouched(ERR_STORE, "another program");
    sql("PRAGMA user_version = 1");
    refused_untouched(ERR_STORE, "another program");
}

Test(store_open, what_is_no_database_is_refused_untouched)
{
    store_close(f.store);
    f.store = NULL;
    char junk[8192];
    memset(junk, 'j', sizeof(junk));
    cr_assert_eq(fs_replace_at(AT_FDCWD, path, junk, sizeof(junk), 0600), 0);
    refused_untouched(ERR_STORE, "aside");
    cr_assert_eq(fs_replace_at(AT_FDCWD, path, "SQLite format 3", 16, 0600), 0);
    refused_untouched(ERR_STORE, "aside");
}

/* Overwrites whole pages behind the first: trees no longer hang together. */
static void damage(struct random *random)
{
    struct stat st;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    cr_assert_eq(fstat(fd, &st), 0);
    cr_assert_gt(st.st_size, 5 * 4096);
    for (off_t at = 2 * 4096; at < st.st_size; at += 4096) {
        char page[4096];
        for (size_t i = 0; i < sizeof(page); i++)
            page[i] = (char)random_below(random, 256);
        cr_assert_eq(pwrite(fd, page, sizeof(page), at), (ssize_t)sizeof(page));
    }
    close(fd);
}

Test(store_open, R02_a_damaged_file_is_refused_untouched_with_advice)
{
    struct random random = random_start();
    for (int i = 0; i < 50; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        fixture_add(f.store, "a", id);
    }
    store_close(f.store);
    f.store = NULL;
    damage(&random);
    refused_untouched(ERR_STORE, "restore a copy");
}

Test(store_open, R02_a_damaged_file_with_a_log_beside_it_keeps_its_log)
{
    struct random random = random_start();
    char wal[96], copy[96], kept[96], command[600];
    snprintf(wal, sizeof(wal), "%s-wal", path);
    snprintf(copy, sizeof(copy), "%s/copy", f.dir);
    snprintf(kept, sizeof(kept), "%s/kept", f.dir);
    for (int i = 0; i < 50; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        fixture_add(f.store, "a", id);
    }
    cr_assert_eq(reopen(NULL), ERR_NONE); /* now the rows are in the file */
    fixture_add(f.store, "a", "in-the-log");
    /* Copies of the file and its log while both are in use: as after a crash. */
    snprintf(command, sizeof(command), "cp '%s' '%s' && cp '%s' '%s'", path, copy, wal, kept);
    cr_assert_eq(system(command), 0);
    store_close(f.store);
    f.store = NULL;
    snprintf(command, sizeof(command), "mv '%s' '%s' && cp '%s' '%s' && rm -f '%s-shm'", copy, path,
             kept, wal, path);
    cr_assert_eq(system(command), 0);
    damage(&random);
    refused_untouched(ERR_STORE, "restore a copy");
    snprintf(command, sizeof(command), "cmp '%s' '%s'", wal, kept);
    cr_assert_eq(system(command), 0, "the log was touched");
}

Test(store_open, a_file_others_can_read_or_a_link_is_refused)
{
    char other[64];
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(chmod(path, 0644), 0);
    cr_assert_eq(reopen(NULL), ERR_STORE);
    cr_assert_eq(chmod(path, 0600), 0);
    snprintf(other, sizeof(other), "%s/other.db", f.dir);
    cr_assert_eq(rename(path, other), 0);
    cr_assert_eq(symlink(other, path), 0);
    cr_assert_eq(reopen(NULL), ERR_STORE);
    cr_assert_eq(unlink(path), 0);
    cr_assert_eq(mkdir(path, 0700), 0);
    cr_assert_eq(reopen(NULL), ERR_STORE);
}

Test(store_open, the_directory_must_be_absolute_and_there)
{
    static const char *const bad[] = {"", "relative", "./x", "/nonexistent-motte", "/dev/null"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct store *store = NULL;
        struct error err = {0};
        cr_assert_eq(store_open(bad[i], &store, &err), -1, "%s", bad[i]);
        cr_assert_eq(err.code, ERR_STORE);
        cr_assert_null(store);
    }
}

Test(store_open, a_foreign_write_lock_is_busy_and_reads_go_on, .timeout = 30)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), other = fixture_vm("a", "two"), back;
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    int64_t begun = clock_mono_ms();
    cr_assert_eq(store_vm_insert(f.store, &other, &err), -1);
    cr_assert_eq(err.code, ERR_STORE_BUSY, "%s", err.msg);
    cr_assert_geq(clock_mono_ms() - begun, 1500, "gave up without waiting");
    err = (struct error){0};
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert_str_eq(back.instance, vm.instance);
    cr_assert_eq(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
    cr_assert_eq(store_vm_insert(f.store, &other, &err), 0, "%s", err.msg);
}

static void *insert_one(void *context)
{
    struct error *err = context;
    struct store_vm vm = fixture_vm("a", "one-of-many");
    (void)store_vm_insert(f.store, &vm, err);
    return NULL;
}

Test(store_open, all_who_wait_for_a_foreign_lock_give_up_together, .timeout = 60)
{
    enum { MANY = 8 };
    pthread_t threads[MANY];
    struct error errors[MANY] = {0};
    sqlite3 *db = NULL;
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    int64_t begun = clock_mono_ms();
    for (size_t i = 0; i < MANY; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, insert_one, &errors[i]), 0);
    for (size_t i = 0; i < MANY; i++) {
        pthread_join(threads[i], NULL);
        cr_assert_eq(errors[i].code, ERR_STORE_BUSY, "%s", errors[i].msg);
    }
    cr_assert_lt(clock_mono_ms() - begun, 4000, "one after the other");
    sqlite3_close(db);
}

Test(store_open, a_row_that_does_not_fit_is_an_error_not_a_cut)
{
    static const char *const changes[] = {
        "UPDATE vms SET image = 'a-name-of-an-image-that-is-too-long-to-be-one'",
        "UPDATE vms SET vcpus = 4294967296",
        "UPDATE vms SET uid = -1",
        "UPDATE vms SET labels = printf('%5000d', 1)",
        "UPDATE vms SET boot = printf('%37d', 1)",
    };
    for (size_t i = 0; i < COUNT_OF(changes); i++) {
        struct error err = {0};
        struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
        sql(changes[i]);
        cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), -1, "%s", changes[i]);
        cr_assert_eq(err.code, ERR_STORE, "%s", err.msg);
        fixture_end(f.store, vm.instance);
    }
}

/* A connection with a statement left would stay open, and so would the log. */
Test(store_open, closing_moves_the_log_into_the_file_whatever_was_asked)
{
    char log[80];
    struct store_vm row;
    struct error err = {0};
    snprintf(log, sizeof(log), "%s-wal", path);
    fixture_add(f.store, "ann", "mine");
    cr_assert_eq(store_vm_get(f.store, "ann", "mine", &row, &err), 0, "%s", err.msg);
    cr_assert_eq(access(log, F_OK), 0);
    store_close(f.store);
    f.store = NULL;
    cr_assert_eq(access(log, F_OK), -1, "%s is still there", log);
}
