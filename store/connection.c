/* SQLite's calls with our errors. */
#include "store/internal.h"

#include <errno.h>

/* With the statements that it keeps. */
void store_cleanup_sqlite(sqlite3 **db)
{
    int saved = errno;
    sqlite3_stmt *kept = NULL;
    while (*db != NULL && (kept = sqlite3_next_stmt(*db, NULL)) != NULL)
        sqlite3_finalize(kept);
    sqlite3_close(*db);
    errno = saved;
}

void store_cleanup_statement(sqlite3_stmt **statement)
{
    int saved = errno;
    sqlite3_finalize(*statement);
    errno = saved;
}

void store_cleanup_kept(sqlite3_stmt **statement)
{
    int saved = errno;
    if (*statement != NULL) {
        sqlite3_reset(*statement);
        sqlite3_clear_bindings(*statement);
    }
    errno = saved;
}

/* An I/O error may be ENOSPC below: growing the shared index of the log, or an fsync. */
static bool is_full(sqlite3 *db, int primary)
{
    int sys = db != NULL ? sqlite3_system_errno(db) : 0;
    return primary == SQLITE_FULL || ((primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN) &&
                                      (sys == ENOSPC || sys == EDQUOT));
}

static bool is_read_only(sqlite3 *db, int primary)
{
    int sys = db != NULL ? sqlite3_system_errno(db) : 0;
    return primary == SQLITE_READONLY || (primary == SQLITE_CANTOPEN && sys == EROFS);
}

int store_fail(sqlite3 *db, int rc, const char *what, struct error *err)
{
    int primary = rc & 0xff;
    if (is_full(db, primary))
        return error_set(err, ERR_STORE_FULL, 0,
                         "the inventory cannot grow while %s: free space on the disk of the state "
                         "directory",
                         what);
    if (primary == SQLITE_BUSY || primary == SQLITE_LOCKED)
        return error_set(err, ERR_STORE_BUSY, 0,
                         "another program holds the inventory's lock while %s: try again", what);
    if (primary == SQLITE_NOMEM)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while %s", what);
    if (is_read_only(db, primary))
        return error_set(
            err, ERR_STORE, 0,
            "the disk of the state directory is read-only (seen while %s): look at the "
            "kernel's log, then mount it writable again",
            what);
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
        return error_set(err, ERR_STORE, 0,
                         "the inventory is damaged (%s, %s): stop motted and restore a copy "
                         "(`motted restore FILE`); or end all VMs with `motted --purge` and move "
                         "motte.db aside with its -wal and -shm",
                         what, sqlite3_errstr(rc));
    return error_set(err, ERR_STORE, 0, "the inventory failed while %s: %s", what,
                     db != NULL ? sqlite3_errmsg(db) : sqlite3_errstr(rc));
}

/* The schema is ours, yet the file may have been written to by others: no trust in it. */
static int harden(sqlite3 *db, struct error *err)
{
    sqlite3_extended_result_codes(db, 1);
    sqlite3_busy_timeout(db, STORE_BUSY_MS);
    sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
    sqlite3_db_config(db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    /* Each connection would keep 2 MB of pages, of a file that the kernel has in memory anyway. */
    return store_exec(db,
                      "PRAGMA temp_store = MEMORY; PRAGMA cell_size_check = ON;"
                      " PRAGMA cache_size = -256",
                      err);
}

int store_connect(const char *path, sqlite3 **ret, struct error *err)
{
    cleanup_sqlite sqlite3 *db = NULL;
    int rc = sqlite3_open_v2(
        path, &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "opening", err);
    if (harden(db, err) < 0)
        return -1;
    *ret = TAKE_PTR(db);
    return 0;
}

int store_exec(sqlite3 *db, const char *sql, struct error *err)
{
    int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_fail(db, rc, "setting up", err);
}

int store_prepare(sqlite3 *db, const char *sql, sqlite3_stmt **ret, struct error *err)
{
    sqlite3_stmt *statement = NULL;
    int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "preparing", err);
    *ret = statement;
    return 0;
}

/* The connection's own list of its statements is all the book-keeping there is; it is short. */
int store_prepare_kept(sqlite3 *db, const char *sql, sqlite3_stmt **ret, struct error *err)
{
    sqlite3_stmt *kept = sqlite3_next_stmt(db, NULL);
    while (kept != NULL && strcmp(sqlite3_sql(kept), sql) != 0)
        kept = sqlite3_next_stmt(db, kept);
    if (kept == NULL)
        return store_prepare(db, sql, ret, err);
    *ret = kept;
    return 0;
}

int store_step(sqlite3_stmt *statement, struct error *err)
{
    int rc = sqlite3_step(statement);
    if (rc == SQLITE_ROW)
        return 1;
    if (rc == SQLITE_DONE)
        return 0;
    return store_fail(sqlite3_db_handle(statement), rc,
                      sqlite3_stmt_readonly(statement) ? "reading" : "writing", err);
}

int store_query_number(sqlite3 *db, const char *sql, int64_t *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, sql, &statement, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    *ret = row == 1 ? sqlite3_column_int64(statement, 0) : 0;
    return 0;
}

int store_bind_text(sqlite3_stmt *statement, int index, const char *text, struct error *err)
{
    int rc = sqlite3_bind_text(statement, index, text, -1, SQLITE_STATIC);
    return rc == SQLITE_OK ? 0 : store_fail(sqlite3_db_handle(statement), rc, "binding", err);
}

int store_bind_number(sqlite3_stmt *statement, int index, int64_t number, struct error *err)
{
    int rc = sqlite3_bind_int64(statement, index, number);
    return rc == SQLITE_OK ? 0 : store_fail(sqlite3_db_handle(statement), rc, "binding", err);
}

/* A rollback needs memory too: one that failed is made up for here. */
int store_begin(sqlite3 *db, struct error *err)
{
    store_rollback(db);
    int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_fail(db, rc, "beginning", err);
}

int store_commit(sqlite3 *db, struct error *err)
{
    int rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
    return rc == SQLITE_OK ? 0 : store_fail(db, rc, "committing", err);
}

void store_rollback(sqlite3 *db)
{
    if (!sqlite3_get_autocommit(db)) /* SQLite rolls back by itself after some failures */
        sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
}
