/* Reading the audit: of one VM, in the order of what happened. */
#include "store/internal.h"

struct page {
    struct store_audit *entries; /* owned */
    size_t count;
    bool more;
};

static void cleanup_page(struct page *page)
{
    free(page->entries);
}

/* The VM that has the id now, else the one that had it last; ERR_VM_AMBIGUOUS as in store_find(). */
static int find_instance(sqlite3 *db, const struct store_audit_filter *filter,
                         char ret[static ID_INSTANCE_SIZE], struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT instance, lives FROM ("
                      " SELECT instance, 1 AS lives, seq FROM vms"
                      "  WHERE id = ?1 AND (?2 IS NULL OR owner = ?2) AND purpose = 0"
                      " UNION ALL SELECT instance, 0, number FROM certificates"
                      "  WHERE id = ?1 AND (?2 IS NULL OR owner = ?2) AND purpose = 0)"
                      " ORDER BY lives DESC, seq DESC LIMIT 2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, filter->id, err) < 0 ||
        store_bind_text(statement, 2, filter->owner, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERR_VM_UNKNOWN, 0, "there is no VM `%.64s`, nor a record of one",
                         filter->id);
    snprintf(ret, ID_INSTANCE_SIZE, "%s", (const char *)sqlite3_column_text(statement, 0));
    if (filter->owner != NULL || sqlite3_column_int(statement, 1) == 0)
        return 0;
    int more = store_step(statement, err);
    if (more > 0 && sqlite3_column_int(statement, 1) != 0)
        return store_refuse_ambiguous(filter->id, err);
    return more < 0 ? -1 : 0;
}

static int read_text(sqlite3_stmt *statement, int column, char *out, size_t size, struct error *err)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    if (text == NULL || strlen(text) >= size)
        return error_set(err, ERR_STORE, 0,
                         "the inventory is damaged: a text of the audit does not fit");
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

int store_audit_read(sqlite3_stmt *statement, struct store_audit *ret, struct error *err)
{
    ret->seq = sqlite3_column_int64(statement, 0);
    ret->wall_ms = sqlite3_column_int64(statement, 1);
    ret->kind = (enum store_audit_kind)sqlite3_column_int(statement, 5);
    return read_text(statement, 2, ret->instance, sizeof(ret->instance), err) < 0 ||
                   read_text(statement, 3, ret->id, sizeof(ret->id), err) < 0 ||
                   read_text(statement, 4, ret->owner, sizeof(ret->owner), err) < 0 ||
                   read_text(statement, 6, ret->detail, sizeof(ret->detail), err) < 0
               ? -1
               : 0;
}

static int read_page(sqlite3 *db, const struct store_audit_filter *filter, struct page *page,
                     struct error *err)
{
    char instance[ID_INSTANCE_SIZE];
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (find_instance(db, filter, instance, err) < 0 ||
        store_prepare(db,
                      "SELECT seq, wall_ms, instance, id, owner, kind, detail FROM audit"
                      " WHERE instance = ?1 AND seq > ?2 ORDER BY number LIMIT ?3",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, instance, err) < 0 ||
        store_bind_number(statement, 2, filter->after, err) < 0 ||
        store_bind_number(statement, 3, (int64_t)filter->limit + 1, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1 && page->count < filter->limit)
        if (store_audit_read(statement, &page->entries[page->count++], err) < 0)
            return -1;
    page->more = row == 1;
    return row < 0 ? -1 : 0;
}

int store_audit_list(struct store *store, const struct store_audit_filter *filter,
                     struct store_audit **ret, size_t *ret_count, bool *ret_more, struct error *err)
{
    if (filter->limit < 1 || filter->limit > STORE_AUDIT_VM_MAX)
        return error_set(err, ERR_QUERY, 0, "`limit` must be from 1 to %d", STORE_AUDIT_VM_MAX);
    cleanup(cleanup_page) struct page page = {.entries =
                                                  calloc(filter->limit, sizeof(*page.entries))};
    if (page.entries == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading the audit");
    sqlite3 *db = store_reader_take(store);
    int result = read_page(db, filter, &page, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = page.count;
    *ret_more = page.more;
    *ret = TAKE_PTR(page.entries);
    return 0;
}

int store_audit_size(struct store *store, uint64_t *ret, struct error *err)
{
    int64_t entries = 0;
    sqlite3 *db = store_reader_take(store);
    int result = store_query_number(db, "SELECT entries FROM audit_size", &entries, err);
    store_reader_give(store, db);
    if (result == 0)
        *ret = (uint64_t)entries;
    return result;
}
