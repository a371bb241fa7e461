/* Is this file ours, whole and not from the future? Then bring it up to date. */
#include "store/internal.h"

static int check_whole(sqlite3 *db, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "PRAGMA quick_check(1)", &statement, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    const char *text = row == 1 ? (const char *)sqlite3_column_text(statement, 0) : NULL;
    if (text != NULL && strcmp(text, "ok") == 0)
        return 0;
    return error_set(err, ERR_STORE, 0,
                     "the inventory is damaged (%.40s): stop motted and restore a copy (`motted "
                     "restore FILE`); or end all VMs with `motted --purge` and move motte.db aside "
                     "with its -wal and -shm",
                     text == NULL ? "quick_check says nothing" : text);
}

int store_check(sqlite3 *db, struct error *err)
{
    int64_t version = 0, application = 0, tables = 0;
    if (check_whole(db, err) < 0 ||
        store_query_number(db, "PRAGMA user_version", &version, err) < 0 ||
        store_query_number(db, "PRAGMA application_id", &application, err) < 0 ||
        store_query_number(db, "SELECT count(*) FROM sqlite_schema", &tables, err) < 0)
        return -1;
    if (version > store_version && application == STORE_APPLICATION_ID)
        return error_set(err, ERR_STORE_NEWER, 0,
                         "the inventory has schema %lld, this program knows up to %d: start the "
                         "version of Motte that wrote it, or a later one",
                         (long long)version, store_version);
    bool empty = version == 0 && application == 0 && tables == 0;
    bool ours = version > 0 && application == STORE_APPLICATION_ID;
    if (!empty && !ours)
        return error_set(err, ERR_STORE, 0,
                         "motte.db is a database of another program: move it aside or choose "
                         "another state directory");
    return 0;
}

static int migrate_inside(sqlite3 *db, struct error *err)
{
    int64_t version = 0;
    if (store_query_number(db, "PRAGMA user_version", &version, err) < 0)
        return -1;
    for (; version < store_version; version++)
        if (store_exec(db, store_migrations[version], err) < 0)
            return error_wrap(err, "migrating from schema %lld", (long long)version);
    char marks[96];
    snprintf(marks, sizeof(marks), "PRAGMA application_id = %d; PRAGMA user_version = %d",
             STORE_APPLICATION_ID, store_version);
    return store_exec(db, marks, err);
}

int store_migrate(sqlite3 *db, struct error *err)
{
    int64_t version = 0;
    if (store_query_number(db, "PRAGMA user_version", &version, err) < 0)
        return -1;
    if (version == store_version)
        return 0;
    if (store_begin(db, err) < 0)
        return -1;
    if (migrate_inside(db, err) == 0 && store_commit(db, err) == 0)
        return 0;
    store_rollback(db);
    return -1;
}
