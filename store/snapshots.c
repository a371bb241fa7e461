/* Snapshots: intent, commit, and what there is. */
#include "store/internal.h"

/* What the SQL below says. */
_Static_assert(STORE_LASTING == 0 && STORE_EPHEMERAL == 1, "kinds");

static int run(sqlite3_stmt *statement, struct error *err)
{
    return store_step(statement, err) < 0 ? -1 : 0;
}

/* ---- making one ---- */

static int begin(sqlite3 *db, void *context, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "INSERT OR IGNORE INTO snapshotting VALUES (?1)", &statement, err) < 0 ||
        store_bind_text(statement, 1, context, err) < 0 || run(statement, err) < 0)
        return -1;
    if (sqlite3_changes(db) == 0)
        return error_set(err, ERR_SNAPSHOT_BUSY, 0, "a snapshot of this VM is being made already");
    return 0;
}

int store_snapshot_begin(struct store *store, const char *instance, struct error *err)
{
    char name[ID_INSTANCE_SIZE];
    snprintf(name, sizeof(name), "%s", instance);
    return store_change(store, STORE_ROOM_NEW, begin, name, err);
}

static int remove_intent(sqlite3 *db, const char *instance, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "DELETE FROM snapshotting WHERE instance = ?1", &statement, err) < 0 ||
        store_bind_text(statement, 1, instance, err) < 0)
        return -1;
    return run(statement, err);
}

static int commit(sqlite3 *db, void *context, struct error *err)
{
    const struct store_snapshot *snapshot = context;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, STORE_INSERT_SNAPSHOT, &statement, err) < 0 ||
        store_row_bind(statement, &store_snapshot_table, snapshot, err) < 0 ||
        run(statement, err) < 0 ||
        (snapshot->kind == STORE_OF_IMAGE && store_image_snapshot_use(db, snapshot->id, err) < 0) ||
        store_keep(db, snapshot->keep, snapshot, err) < 0)
        return -1;
    return remove_intent(db, snapshot->instance, err);
}

int store_snapshot_commit(struct store *store, const struct store_snapshot *snapshot,
                          struct error *err)
{
    struct store_snapshot row = *snapshot;
    return store_change(store, STORE_ROOM_LASTING, commit, &row, err);
}

static int abandon(sqlite3 *db, void *context, struct error *err)
{
    return remove_intent(db, context, err);
}

int store_snapshot_abandon(struct store *store, const char *instance, struct error *err)
{
    char name[ID_INSTANCE_SIZE];
    snprintf(name, sizeof(name), "%s", instance);
    return store_change(store, STORE_ROOM_END, abandon, name, err);
}

/* Does `sql` find a row for `name`? */
static int is_there(struct store *store, const char *sql, const char *name, bool *ret,
                    struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    sqlite3 *db = store_reader_take(store);
    int row = -1;
    if (store_prepare(db, sql, &statement, err) == 0 &&
        store_bind_text(statement, 1, name, err) == 0)
        row = store_step(statement, err);
    store_cleanup_statement(&statement);
    statement = NULL;
    store_reader_give(store, db);
    *ret = row == 1;
    return row < 0 ? -1 : 0;
}

int store_snapshot_intended(struct store *store, const char *instance, bool *ret, struct error *err)
{
    return is_there(store, "SELECT 1 FROM snapshotting WHERE instance = ?1", instance, ret, err);
}

int store_snapshot_recorded(struct store *store, const char *id, bool *ret, struct error *err)
{
    return is_there(store, "SELECT 1 FROM snapshots WHERE id = ?1", id, ret, err);
}

int store_snapshot_forking(struct store *store, const char *id, bool *ret, struct error *err)
{
    return is_there(store, "SELECT 1 FROM snapshots WHERE id = ?1 AND kind = 1", id, ret, err);
}

static int recover(sqlite3 *db, void *context, struct error *err)
{
    (void)context;
    return store_exec(db,
                      "DELETE FROM snapshotting WHERE instance NOT IN (SELECT instance FROM vms);"
                      "DELETE FROM snapshots WHERE kind = 1;"
                      "DELETE FROM keys WHERE status = 0 AND once = 0;"
                      "UPDATE keys SET status = -1 WHERE status = 0",
                      err);
}

int store_recover(struct store *store, struct error *err)
{
    return store_change(store, STORE_ROOM_END, recover, NULL, err);
}

/* ---- what there is ---- */

static int refuse_unknown(const char *id, struct error *err)
{
    return error_set(err, ERR_SNAPSHOT_UNKNOWN, 0, "there is no snapshot `%.64s`", id);
}

static int find(sqlite3 *db, const char *owner, const char *id, enum store_snapshot_kind most,
                struct store_snapshot *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      STORE_SELECT_SNAPSHOT " WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)"
                                            " AND kind <= ?3",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, id, err) < 0 ||
        store_bind_text(statement, 2, owner, err) < 0 ||
        store_bind_number(statement, 3, most, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row == 0)
        return refuse_unknown(id, err);
    return row < 0 ? -1 : store_row_read(statement, &store_snapshot_table, ret, err);
}

int store_snapshot_get(struct store *store, const char *owner, const char *id,
                       struct store_snapshot *ret, struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = find(db, owner, id, STORE_LASTING, ret, err);
    store_reader_give(store, db);
    return result;
}

int store_snapshot_known(sqlite3 *db, const char *owner, const char *id, struct error *err)
{
    struct store_snapshot snapshot;
    return find(db, owner, id, STORE_EPHEMERAL, &snapshot, err);
}

static int find_cursor(sqlite3 *db, const struct store_filter *filter, int64_t *ret,
                       struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT seq FROM snapshots WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)"
                      " AND kind = 0",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, filter->after, err) < 0 ||
        store_bind_text(statement, 2, filter->owner, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row == 0)
        return error_set(err, ERR_QUERY, 0, "the cursor is unknown: list again from the start");
    if (row == 1)
        *ret = sqlite3_column_int64(statement, 0);
    return row < 0 ? -1 : 0;
}

struct page {
    struct store_snapshot *snapshots; /* owned, room for `limit` */
    size_t count;
    bool more;
};

static void cleanup_page(struct page *page)
{
    free(page->snapshots);
}

static int read_page(sqlite3 *db, const struct store_filter *filter, struct page *page,
                     struct error *err)
{
    int64_t seq = 0;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if ((filter->after != NULL && find_cursor(db, filter, &seq, err) < 0) ||
        store_prepare(db,
                      STORE_SELECT_SNAPSHOT
                      " WHERE seq > ?1 AND (?2 IS NULL OR owner = ?2) AND kind = 0"
                      " AND " STORE_HAS_LABEL("?3", "?4") " ORDER BY seq LIMIT ?5",
                      &statement, err) < 0 ||
        store_bind_number(statement, 1, seq, err) < 0 ||
        store_bind_text(statement, 2, filter->owner, err) < 0 ||
        store_bind_text(statement, 3, filter->label_key, err) < 0 ||
        store_bind_text(statement, 4, filter->label_value, err) < 0 ||
        store_bind_number(statement, 5, (int64_t)filter->limit + 1, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1 && page->count < filter->limit)
        if (store_row_read(statement, &store_snapshot_table, &page->snapshots[page->count++], err) <
            0)
            return -1;
    page->more = row == 1;
    return row < 0 ? -1 : 0;
}

int store_snapshot_list(struct store *store, const struct store_filter *filter,
                        struct store_snapshot **ret, size_t *ret_count, bool *ret_more,
                        struct error *err)
{
    if (filter->limit < 1 || filter->limit > STORE_PAGE_MAX)
        return error_set(err, ERR_QUERY, 0, "`limit` must be from 1 to %d", STORE_PAGE_MAX);
    cleanup(cleanup_page) struct page page = {.snapshots =
                                                  calloc(filter->limit, sizeof(*page.snapshots))};
    if (page.snapshots == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing snapshots");
    sqlite3 *db = store_reader_take(store);
    int result = read_page(db, filter, &page, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = page.count;
    *ret_more = page.more;
    *ret = TAKE_PTR(page.snapshots);
    return 0;
}

/* ---- removing one ---- */

struct removal {
    const char *owner, *id;
    const struct store_keep *keep;
};

static int refuse_in_use(sqlite3 *db, const char *id, enum store_snapshot_kind kind,
                         struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT count(*), min(vms.id) FROM vms, snapshots AS s"
                      " WHERE vms.snapshot = ?1 AND s.id = ?1 AND s.kind = ?2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, id, err) < 0 ||
        store_bind_number(statement, 2, kind, err) < 0 || store_step(statement, err) < 0)
        return -1;
    int64_t count = sqlite3_column_int64(statement, 0);
    if (count == 0)
        return 0;
    return error_set(err, ERR_SNAPSHOT_IN_USE, 0,
                     "%lld VMs that are there were restored from it, `%.64s` among them",
                     (long long)count, (const char *)sqlite3_column_text(statement, 1));
}

static int remove_one(sqlite3 *db, void *context, struct error *err)
{
    const struct removal *removal = context;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_snapshot_known(db, removal->owner, removal->id, err) < 0 ||
        refuse_in_use(db, removal->id, STORE_LASTING, err) < 0 ||
        store_prepare(db, "DELETE FROM snapshots WHERE id = ?1", &statement, err) < 0 ||
        store_bind_text(statement, 1, removal->id, err) < 0 || run(statement, err) < 0)
        return -1;
    return store_keep(db, removal->keep, NULL, err);
}

int store_fork_commit(struct store *store, const struct store_snapshot *snapshot, struct error *err)
{
    struct removal removal = {snapshot->owner, snapshot->id, snapshot->keep};
    return store_change(store, STORE_ROOM_USUAL, remove_one, &removal, err);
}

int store_snapshot_remove(struct store *store, const char *owner, const char *id, struct error *err)
{
    struct removal removal = {.owner = owner, .id = id};
    return store_change(store, STORE_ROOM_END, remove_one, &removal, err);
}

static int remove_ephemeral(sqlite3 *db, void *context, struct error *err)
{
    const struct removal *removal = context;
    cleanup_statement sqlite3_stmt *statement = NULL;
    return refuse_in_use(db, removal->id, STORE_EPHEMERAL, err) < 0 ||
                   store_prepare(db, "DELETE FROM snapshots WHERE id = ?1 AND kind = ?2",
                                 &statement, err) < 0 ||
                   store_bind_text(statement, 1, removal->id, err) < 0 ||
                   store_bind_number(statement, 2, STORE_EPHEMERAL, err) < 0 ||
                   run(statement, err) < 0
               ? -1
               : 0;
}

int store_ephemeral_remove(struct store *store, const char *id, struct error *err)
{
    struct removal removal = {.id = id};
    return store_change(store, STORE_ROOM_END, remove_ephemeral, &removal, err);
}
