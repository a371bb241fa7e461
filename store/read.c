/* What is there: one VM, a page, all, sums. Each on one reading connection. */
#include "store/internal.h"

/* Rows as they come; grows by doubling. */
struct rows {
    struct store_vm *vm; /* owned */
    size_t count, room;
};

static void cleanup_rows(struct rows *rows)
{
    free(rows->vm);
}

static int add_row(struct rows *rows, sqlite3_stmt *statement, struct error *err)
{
    if (rows->count == rows->room) {
        size_t room = rows->room == 0 ? 16 : 2 * rows->room;
        struct store_vm *grown = reallocarray(rows->vm, room, sizeof(*grown));
        if (grown == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing VMs");
        rows->vm = grown;
        rows->room = room;
    }
    if (store_row_read(statement, &store_vm_table, &rows->vm[rows->count], err) < 0)
        return -1;
    rows->count++;
    return 0;
}

/* Why there is no row: it ended and we know how, or it never was. */
static int refuse_missing(sqlite3 *db, const char *sql, const char *first, const char *second,
                          struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, first, err) < 0 ||
        (second != NULL && store_bind_text(statement, 2, second, err) < 0))
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERR_VM_UNKNOWN, 0, "there is no VM `%.64s`", first);
    const char *reason = (const char *)sqlite3_column_text(statement, 1);
    const char *message = (const char *)sqlite3_column_text(statement, 2);
    bool more = message != NULL && message[0] != '\0';
    return error_set(err, ERR_VM_GONE, 0, "VM `%.64s` is gone: %s (%s)%s%s", first,
                     store_state_name((enum store_state)sqlite3_column_int(statement, 0)),
                     reason == NULL ? "" : reason, more ? ": " : "", more ? message : "");
}

int store_refuse_ambiguous(const char *id, struct error *err)
{
    return error_set(err, ERR_VM_AMBIGUOUS, 0, "more than one tenant has a VM `%.64s`", id);
}

/* Nobody's VM is changed or shown for another's: several owners may have one of that id. */
static int read_only_row(sqlite3_stmt *statement, const char *id, struct store_vm *ret,
                         struct error *err)
{
    if (store_row_read(statement, &store_vm_table, ret, err) < 0)
        return -1;
    int more = store_step(statement, err);
    if (more > 0)
        return store_refuse_ambiguous(id, err);
    return more;
}

int store_find(sqlite3 *db, const char *owner, const char *id, struct store_vm *ret,
               struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    const char *sql = owner != NULL ? STORE_SELECT_VM
                          " WHERE id = ?1 AND owner = ?2 AND purpose = 0"
                                    : STORE_SELECT_VM " WHERE id = ?1 AND purpose = 0";
    if (store_prepare_kept(db, sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, id, err) < 0 ||
        (owner != NULL && store_bind_text(statement, 2, owner, err) < 0))
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 1)
        return owner != NULL ? store_row_read(statement, &store_vm_table, ret, err)
                             : read_only_row(statement, id, ret, err);
    return refuse_missing(db,
                          owner != NULL ? "SELECT state, reason, message FROM certificates"
                                          " WHERE id = ?1 AND owner = ?2 AND purpose = 0"
                                          " ORDER BY number DESC LIMIT 1"
                                        : "SELECT state, reason, message FROM certificates"
                                          " WHERE id = ?1 AND purpose = 0"
                                          " ORDER BY number DESC LIMIT 1",
                          id, owner, err);
}

int store_vm_get(struct store *store, const char *owner, const char *id, struct store_vm *ret,
                 struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = store_find(db, owner, id, ret, err);
    store_reader_give(store, db);
    return result;
}

int store_find_instance(sqlite3 *db, const char *instance, struct store_vm *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, STORE_SELECT_VM " WHERE instance = ?1", &statement, err) < 0 ||
        store_bind_text(statement, 1, instance, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 1)
        return store_row_read(statement, &store_vm_table, ret, err);
    return refuse_missing(db, "SELECT state, reason, message FROM certificates WHERE instance = ?1",
                          instance, NULL, err);
}

int store_vm_by_instance(struct store *store, const char *instance, struct store_vm *ret,
                         struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = store_find_instance(db, instance, ret, err);
    store_reader_give(store, db);
    return result;
}

/* Where a page goes on: the place of a VM that may have ended since the last page. */
static int find_cursor(sqlite3 *db, const struct store_filter *filter, int64_t *ret,
                       struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT seq FROM vms WHERE instance = ?1 AND (?2 IS NULL OR owner = ?2)"
                      " AND purpose = 0"
                      " UNION ALL SELECT seq FROM certificates"
                      " WHERE instance = ?1 AND (?2 IS NULL OR owner = ?2) AND purpose = 0",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, filter->after, err) < 0 ||
        store_bind_text(statement, 2, filter->owner, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERR_QUERY, 0,
                         "the cursor is unknown or too old: list again from the start");
    *ret = sqlite3_column_int64(statement, 0);
    return 0;
}

static const char page_sql[] =
    STORE_SELECT_VM " WHERE seq > ?1 AND purpose = 0 AND (?2 IS NULL OR owner = ?2)"
                    " AND (?3 = 0 OR state = ?3)"
                    " AND " STORE_HAS_LABEL("?4", "?5") " ORDER BY seq LIMIT ?6";

static int read_page(sqlite3 *db, const struct store_filter *filter, struct rows *rows,
                     bool *ret_more, struct error *err)
{
    int64_t after = 0;
    if (filter->after != NULL && find_cursor(db, filter, &after, err) < 0)
        return -1;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, page_sql, &statement, err) < 0 ||
        store_bind_number(statement, 1, after, err) < 0 ||
        store_bind_text(statement, 2, filter->owner, err) < 0 ||
        store_bind_number(statement, 3, filter->state, err) < 0 ||
        store_bind_text(statement, 4, filter->label_key, err) < 0 ||
        store_bind_text(statement, 5, filter->label_value, err) < 0 ||
        store_bind_number(statement, 6, (int64_t)filter->limit + 1, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1 && rows->count < filter->limit)
        if (add_row(rows, statement, err) < 0)
            return -1;
    if (row < 0)
        return -1;
    *ret_more = row == 1;
    return 0;
}

int store_vm_list(struct store *store, const struct store_filter *filter, struct store_vm **ret,
                  size_t *ret_count, bool *ret_more, struct error *err)
{
    if (filter->limit < 1 || filter->limit > STORE_PAGE_MAX)
        return error_set(err, ERR_QUERY, 0, "`limit` must be from 1 to %d", STORE_PAGE_MAX);
    cleanup(cleanup_rows) struct rows rows = {0};
    bool more = false;
    sqlite3 *db = store_reader_take(store);
    int result = read_page(db, filter, &rows, &more, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = rows.count;
    *ret_more = more;
    *ret = TAKE_PTR(rows.vm);
    return 0;
}

static int read_all(sqlite3 *db, struct rows *rows, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, STORE_SELECT_VM " ORDER BY seq", &statement, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1)
        if (add_row(rows, statement, err) < 0)
            return -1;
    return row;
}

int store_vm_all(struct store *store, struct store_vm **ret, size_t *ret_count, struct error *err)
{
    cleanup(cleanup_rows) struct rows rows = {0};
    sqlite3 *db = store_reader_take(store);
    int result = read_all(db, &rows, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = rows.count;
    *ret = TAKE_PTR(rows.vm);
    return 0;
}

struct names {
    char (*name)[ID_INSTANCE_SIZE]; /* owned */
    size_t count;
};

static void cleanup_names(struct names *names)
{
    free(names->name);
}

static int read_instances(sqlite3 *db, struct names *names, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, "SELECT instance FROM vms", &statement, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1) {
        char(*grown)[ID_INSTANCE_SIZE] =
            reallocarray(names->name, names->count + 1, sizeof(*names->name));
        if (grown == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing VMs");
        names->name = grown;
        snprintf(grown[names->count++], sizeof(*grown), "%s",
                 (const char *)sqlite3_column_text(statement, 0));
    }
    return row;
}

int store_vm_instances(struct store *store, char (**ret)[ID_INSTANCE_SIZE], size_t *ret_count,
                       struct error *err)
{
    cleanup(cleanup_names) struct names names = {0};
    sqlite3 *db = store_reader_take(store);
    int result = read_instances(db, &names, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = names.count;
    *ret = TAKE_PTR(names.name);
    return 0;
}

static int read_totals(sqlite3 *db, struct store_totals *totals, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db,
                           "SELECT state, count(*), sum(memory_mib), sum(vcpus), purpose FROM vms"
                           " WHERE state BETWEEN 1 AND 4 GROUP BY state, purpose",
                           &statement, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1) {
        bool callers = sqlite3_column_int(statement, 4) == STORE_FOR_CALLER;
        uint64_t count = (uint64_t)sqlite3_column_int64(statement, 1);
        if (callers)
            totals->by_state[sqlite3_column_int(statement, 0)] = count;
        else
            totals->itself += count;
        totals->memory_mib += (uint64_t)sqlite3_column_int64(statement, 2);
        totals->vcpus += (uint64_t)sqlite3_column_int64(statement, 3);
    }
    return row;
}

int store_totals(struct store *store, struct store_totals *ret, struct error *err)
{
    struct store_totals totals = {0};
    sqlite3 *db = store_reader_take(store);
    int result = read_totals(db, &totals, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret = totals;
    return 0;
}
