/* The audits of all VMs as one sequence: its numbers, its reading, and who waits for more of it. */
#include "store/internal.h"

enum {
    BOOT_SHIFT = 32, /* so many events has a boot, */
    SCAN_MAX = 1000, /* and so many are looked at in one reading */
};

/* ---- numbers ---- */

/* What a power cut undoes is of the boot that it ends: the next one begins above all of its numbers,
 * and that is on the disk before any of them is given. */
static int begin_boot(sqlite3 *db, void *context, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE audit_size SET boot = ?1, first = (1 + (max(first,"
                      " ifnull((SELECT max(seq) FROM audit), 0)) >> ?2)) << ?2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, context, err) < 0 ||
        store_bind_number(statement, 2, BOOT_SHIFT, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int is_boot(sqlite3 *db, const char *boot, bool *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "SELECT 1 FROM audit_size WHERE boot = ?1", &statement, err) < 0 ||
        store_bind_text(statement, 1, boot, err) < 0)
        return -1;
    int row = store_step(statement, err);
    *ret = row == 1;
    return row < 0 ? -1 : 0;
}

int store_events_boot(struct store *store, const char *boot, struct error *err)
{
    char text[ID_BOOT_SIZE];
    bool known = false;
    sqlite3 *db = store_reader_take(store);
    int result = is_boot(db, boot, &known, err);
    store_reader_give(store, db);
    if (result < 0 || known)
        return result;
    snprintf(text, sizeof(text), "%s", boot);
    return store_change(store, STORE_ROOM_BOOT, begin_boot, text, err);
}

int64_t store_events_last(sqlite3 *db)
{
    struct error ignored = {0};
    int64_t last = 0;
    (void)store_query_number(db,
                             "SELECT max(first, ifnull((SELECT max(seq) FROM audit), 0))"
                             " FROM audit_size",
                             &last, &ignored);
    return last;
}

int store_events_renew(sqlite3 *db, int64_t last, struct error *err)
{
    int64_t numbered = 0;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_query_number(db,
                           "SELECT count(*) FROM pragma_table_info('audit_size')"
                           " WHERE name = 'first'",
                           &numbered, err) < 0)
        return -1;
    if (numbered == 0) /* of a version before events */
        return 0;
    if (store_prepare(db, "UPDATE audit_size SET boot = '', first = max(first, ?1)", &statement,
                      err) < 0 ||
        store_bind_number(statement, 1, last, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int read_bounds(sqlite3 *db, struct store_events_bounds *ret, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "SELECT max(first, ifnull((SELECT max(seq) FROM audit), 0)), lost"
                           " FROM audit_size",
                           &statement, err) < 0 ||
        store_step(statement, err) < 0)
        return -1;
    ret->newest = sqlite3_column_int64(statement, 0);
    ret->lost = sqlite3_column_int64(statement, 1);
    return 0;
}

int store_events_bounds(struct store *store, struct store_events_bounds *ret, struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = read_bounds(db, ret, err);
    store_reader_give(store, db);
    return result;
}

/* ---- reading ---- */

static bool is_of(const struct store_events_filter *filter, const struct store_audit *entry)
{
    return strcmp(entry->owner, STORE_OWNER_ITSELF) != 0 &&
           (filter->owner == NULL || strcmp(entry->owner, filter->owner) == 0) &&
           (filter->id == NULL || strcmp(entry->id, filter->id) == 0);
}

/* One statement, so that what went and what is kept are of one moment. The newest entry of all is
 * never lost: where something was, there is a row to tell it. */
static const char read_sql[] =
    "SELECT seq, wall_ms, instance, id, owner, kind, detail,"
    " previous > max(?1, ?2) AND NOT EXISTS (SELECT 1 FROM audit AS before WHERE "
    "before.seq = audit.previous),"
    " (SELECT lost FROM audit_size)"
    " FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?3";

static int read_row(sqlite3_stmt *statement, const struct store_events_filter *filter,
                    struct store_events *events, struct error *err)
{
    enum { TORN = 7, LOST = 8 };
    struct store_audit *entry = &events->entries[events->count];
    if (store_audit_read(statement, entry, err) < 0)
        return -1;
    int64_t lost = sqlite3_column_int64(statement, LOST);
    if (lost > events->after) /* can be so for the first row only */
        events->gap = lost;
    events->after = entry->seq;
    bool torn = sqlite3_column_int(statement, TORN) != 0;
    bool wanted = filter->kinds == 0 || (filter->kinds >> entry->kind & 1) != 0;
    if (!is_of(filter, entry) || !(torn || wanted)) /* what is gone was of who knows which kind */
        return 0;
    events->torn[events->count] = torn;
    events->wanted[events->count++] = wanted;
    return 0;
}

static int read_events(sqlite3 *db, const struct store_events_filter *filter,
                       struct store_events *events, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, read_sql, &statement, err) < 0 ||
        store_bind_number(statement, 1, events->after, err) < 0 ||
        store_bind_number(statement, 2, events->told, err) < 0 ||
        store_bind_number(statement, 3, SCAN_MAX, err) < 0)
        return -1;
    int row = 0, seen = 0;
    while (events->count < STORE_EVENTS_PAGE && (row = store_step(statement, err)) == 1) {
        seen++;
        if (read_row(statement, filter, events, err) < 0)
            return -1;
    }
    events->more = row == 1 || seen == SCAN_MAX;
    return row < 0 ? -1 : 0;
}

int store_events_read(struct store *store, const struct store_events_filter *filter,
                      struct store_events *events, struct error *err)
{
    events->count = 0;
    events->gap = 0;
    sqlite3 *db = store_reader_take(store);
    int result = read_events(db, filter, events, err);
    store_reader_give(store, db);
    return result;
}

/* ---- waiting ---- */

static void on_row(void *context, int operation, const char *database, const char *table,
                   sqlite3_int64 row)
{
    struct store *store = context;
    (void)database;
    (void)row;
    if (operation == SQLITE_INSERT && strcmp(table, "audit") == 0)
        store->told = true;
}

void store_event_notice(struct store *store)
{
    sqlite3_update_hook(store->writer, on_row, store);
}

void store_event_news(struct store *store)
{
    pthread_mutex_lock(&store->watching);
    waker_wake_all(&store->listeners);
    pthread_mutex_unlock(&store->watching);
}

void store_events_listen(struct store *store, struct waker *waker)
{
    pthread_mutex_lock(&store->watching);
    waker_add(&store->listeners, waker);
    pthread_mutex_unlock(&store->watching);
}

void store_events_unlisten(struct store *store, struct waker *waker)
{
    pthread_mutex_lock(&store->watching);
    waker_remove(waker);
    pthread_mutex_unlock(&store->watching);
}
