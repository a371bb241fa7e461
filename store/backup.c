/* Copies of the inventory: taken while others use it, and put in its place while nobody does. A copy
 * is one file, with no log beside it. */
#include "store/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <time.h>

enum { WAIT_MS = 20, ATTEMPTS = 500 };

static const char database[] = "motte.db";

static int copy_pages(sqlite3 *from, sqlite3 *to, struct error *err)
{
    sqlite3_backup *backup = sqlite3_backup_init(to, "main", from, "main");
    if (backup == NULL)
        return store_fail(to, sqlite3_errcode(to), "copying", err);
    int rc = sqlite3_backup_step(backup, -1);
    for (int i = 0; (rc == SQLITE_BUSY || rc == SQLITE_LOCKED) && i < ATTEMPTS; i++) {
        sqlite3_sleep(WAIT_MS);
        rc = sqlite3_backup_step(backup, -1);
    }
    sqlite3_backup_finish(backup);
    return rc == SQLITE_DONE ? 0 : store_fail(to, rc, "copying", err);
}

/* One file, whole, and an inventory: then it may be trusted with the place of another. */
static int settle(sqlite3 *db, struct error *err)
{
    int64_t version = 0;
    if (store_check(db, err) < 0 ||
        store_query_number(db, "PRAGMA user_version", &version, err) < 0)
        return -1;
    if (version == 0)
        return error_set(err, ERR_STORE, 0, "this file holds no inventory");
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return store_exec(db, "PRAGMA journal_mode = DELETE", err);
}

static int copy(sqlite3 *from, const char *path, struct error *err)
{
    cleanup_sqlite sqlite3 *to = NULL;
    if (store_connect(path, &to, err) < 0 || copy_pages(from, to, err) < 0)
        return -1;
    return settle(to, err);
}

static void remove_copy(const char *path)
{
    static const char *const parts[] = {"", "-wal", "-shm", "-journal"};
    char name[PATH_MAX];
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        if (snprintf(name, sizeof(name), "%s%s", path, parts[i]) < (int)sizeof(name))
            unlink(name);
}

int store_copy(sqlite3 *from, const char *path, struct error *err)
{
    if (mknod(path, S_IFREG | 0600, 0) < 0)
        return error_set(err, errno == ENOSPC ? ERR_STORE_FULL : ERR_STORE, errno,
                         "%.120s cannot be made", path);
    if (copy(from, path, err) == 0)
        return 0;
    remove_copy(path);
    return -1;
}

int store_copy_before_migration(sqlite3 *db, const char *path, struct error *err)
{
    char part[PATH_MAX], kept[PATH_MAX];
    int64_t version = 0;
    if (store_query_number(db, "PRAGMA user_version", &version, err) < 0)
        return -1;
    if (version == 0 || version == store_version) /* nothing is there, or nothing will change */
        return 0;
    if (snprintf(part, sizeof(part), "%s.part", path) >= (int)sizeof(part) ||
        snprintf(kept, sizeof(kept), "%s.v%lld", path, (long long)version) >= (int)sizeof(kept))
        return error_set(err, ERR_STORE, ENAMETOOLONG, "the copy before a migration");
    remove_copy(part);
    if (store_copy(db, part, err) < 0)
        return error_wrap(err, "copying the inventory before it is migrated");
    return rename(part, kept) == 0
               ? 0
               : error_set(err, ERR_STORE, errno, "keeping the copy before a migration");
}

static int place(const char *dir, const char *name, char out[static PATH_MAX], struct error *err)
{
    cleanup_free char *real = realpath(dir, NULL);
    if (real == NULL)
        return error_set(err, ERR_STORE, errno, "the state directory %.120s", dir);
    return snprintf(out, PATH_MAX, "%s/%s", real, name) < PATH_MAX
               ? 0
               : error_set(err, ERR_STORE, ENAMETOOLONG, "the state directory");
}

int store_backup(const char *dir, const char *name, struct error *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    cleanup_sqlite sqlite3 *db = NULL;
    if (place(dir, database, from, err) < 0 || place(dir, name, to, err) < 0 ||
        store_connect(from, &db, err) < 0 || store_exec(db, "PRAGMA query_only = ON", err) < 0)
        return -1;
    remove_copy(to);
    return store_copy(db, to, err);
}

/* ---- restore ---- */

/* What its log holds goes into the file, if the file can still take it. Returns the number of its
 * last event, 0 if it has none. */
static int64_t merge_log(const char *path)
{
    struct error ignored = {0};
    cleanup_sqlite sqlite3 *db = NULL;
    if (store_connect(path, &db, &ignored) < 0)
        return 0;
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return store_events_last(db);
}

static int move_log(const char *path, const char *aside, struct error *err)
{
    static const char *const parts[] = {"-wal", "-shm"};
    char from[PATH_MAX], to[PATH_MAX];
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        if (snprintf(from, sizeof(from), "%s%s", path, parts[i]) >= (int)sizeof(from) ||
            snprintf(to, sizeof(to), "%s%s", aside, parts[i]) >= (int)sizeof(to))
            return error_set(err, ERR_STORE, ENAMETOOLONG, "setting the inventory aside");
        if (rename(from, to) < 0 && errno != ENOENT)
            return error_set(err, ERR_STORE, errno, "setting the inventory's log aside");
    }
    return 0;
}

/* A second name first, then the log, then the new file in its place: at each moment there is an
 * inventory, and never one with the log of another. */
static int exchange(const char *path, const char *aside, const char *fresh, struct error *err)
{
    bool there = link(path, aside) == 0;
    if (!there && errno != ENOENT)
        return error_set(err, ERR_STORE, errno, "setting the inventory aside");
    if (move_log(path, aside, err) < 0)
        return -1;
    if (rename(fresh, path) < 0)
        return error_set(err, ERR_STORE, errno, "putting the copy in its place");
    return 0;
}

static int check_copy(const char *path, struct error *err)
{
    cleanup_sqlite sqlite3 *db = NULL;
    return store_connect(path, &db, err) < 0 ? -1 : settle(db, err);
}

/* Readers were told numbers of events that the copy does not have: none of them comes again. */
static int renew_events(const char *path, int64_t last, struct error *err)
{
    cleanup_sqlite sqlite3 *db = NULL;
    return store_connect(path, &db, err) < 0 ? -1 : store_events_renew(db, last, err);
}

static int sync_directory(const char *dir, struct error *err)
{
    cleanup_close int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd >= 0 && fsync(fd) == 0 ? 0 : error_set(err, ERR_STORE, errno, "syncing %.120s", dir);
}

int store_restore(const char *dir, const char *name, char aside[static STORE_ASIDE_SIZE],
                  struct error *err)
{
    char path[PATH_MAX], fresh[PATH_MAX], old[PATH_MAX];
    struct tm utc;
    time_t now = clock_wall_ms() / 1000;
    gmtime_r(&now, &utc);
    strftime(aside, STORE_ASIDE_SIZE, "motte.db.before-%Y%m%dT%H%M%SZ", &utc);
    if (place(dir, database, path, err) < 0 || place(dir, name, fresh, err) < 0 ||
        place(dir, aside, old, err) < 0 || check_copy(fresh, err) < 0)
        return -1;
    if (renew_events(fresh, merge_log(path), err) < 0 || exchange(path, old, fresh, err) < 0)
        return -1;
    if (access(old, F_OK) < 0)
        aside[0] = '\0';
    return sync_directory(dir, err);
}
