/* Snapshots of images: the service's own, by what a VM is made of and by when they were used. */
#include "store/internal.h"

_Static_assert(STORE_OF_IMAGE == 2, "as the SQL below and the index of schema 5 say");

/* `used` numbers the uses, of all of them. */
int store_image_snapshot_use(sqlite3 *db, const char *id, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE snapshots SET used = 1 + (SELECT max(used) FROM snapshots"
                      " WHERE kind = 2) WHERE id = ?1 AND kind = 2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, id, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int use(sqlite3 *db, void *context, struct error *err)
{
    return store_image_snapshot_use(db, context, err);
}

static const char find_sql[] =
    "SELECT id, used = (SELECT max(used) FROM snapshots WHERE kind = 2) FROM snapshots"
    " WHERE kind = 2 AND image_digest = ?1 AND vcpus = ?2 AND memory_mib = ?3 AND disk_mib = ?4"
    " AND seccomp = ?5 AND hypervisor = ?6 AND labels = ?7 ORDER BY used DESC LIMIT 1";

static int find(sqlite3 *db, const struct store_image_key *key, char ret[static ID_INSTANCE_SIZE],
                bool *ret_last, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, find_sql, &statement, err) < 0)
        return -1;
    int rc = sqlite3_bind_blob(statement, 1, key->image_digest, HASH_SIZE, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "binding", err);
    if (store_bind_number(statement, 2, key->vcpus, err) < 0 ||
        store_bind_number(statement, 3, key->memory_mib, err) < 0 ||
        store_bind_number(statement, 4, key->disk_mib, err) < 0 ||
        store_bind_text(statement, 5, key->seccomp, err) < 0 ||
        store_bind_text(statement, 6, key->hypervisor, err) < 0 ||
        store_bind_text(statement, 7, key->labels, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row == 1) {
        snprintf(ret, ID_INSTANCE_SIZE, "%s", (const char *)sqlite3_column_text(statement, 0));
        *ret_last = sqlite3_column_int(statement, 1) == 1;
    }
    return row;
}

/* Mostly it is the one that was used last already: then nothing is written. */
int store_image_snapshot_find(struct store *store, const struct store_image_key *key,
                              char ret[static ID_INSTANCE_SIZE], struct error *err)
{
    char id[ID_INSTANCE_SIZE] = "";
    bool last = false;
    sqlite3 *db = store_reader_take(store);
    int row = find(db, key, id, &last, err);
    store_reader_give(store, db);
    if (row < 0 || (row == 1 && !last && store_change(store, STORE_ROOM_USUAL, use, id, err) < 0))
        return -1;
    memcpy(ret, id, sizeof(id));
    return 0;
}

static int read_all(sqlite3 *db, struct store_snapshot **ret, size_t *ret_count, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    cleanup_free struct store_snapshot *all = NULL;
    size_t count = 0;
    int row = 0;
    if (store_prepare(db, STORE_SELECT_SNAPSHOT " WHERE kind = 2 ORDER BY used DESC", &statement,
                      err) < 0)
        return -1;
    while ((row = store_step(statement, err)) == 1) {
        struct store_snapshot *grown = realloc(all, (count + 1) * sizeof(*all));
        if (grown == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing snapshots");
        all = grown;
        if (store_row_read(statement, &store_snapshot_table, &all[count++], err) < 0)
            return -1;
    }
    if (row < 0)
        return -1;
    *ret = TAKE_PTR(all);
    *ret_count = count;
    return 0;
}

int store_image_snapshots(struct store *store, struct store_snapshot **ret, size_t *ret_count,
                          struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = read_all(db, ret, ret_count, err);
    store_reader_give(store, db);
    return result;
}

static int remove_one(sqlite3 *db, void *context, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "DELETE FROM snapshots WHERE id = ?1 AND kind = 2", &statement, err) <
            0 ||
        store_bind_text(statement, 1, context, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_image_snapshot_remove(struct store *store, const char *id, struct error *err)
{
    char name[ID_INSTANCE_SIZE];
    snprintf(name, sizeof(name), "%s", id);
    return store_change(store, STORE_ROOM_END, remove_one, name, err);
}
