/* What remains of a VM that has ended. */
#include "store/internal.h"

static void take_text(sqlite3_stmt *statement, int column, char *out, size_t size)
{
    const char *text = (const char *)sqlite3_column_text(statement, column);
    snprintf(out, size, "%s", text == NULL ? "" : text);
}

static void take_console(sqlite3_stmt *statement, int column, struct store_certificate *ret)
{
    const void *bytes = sqlite3_column_blob(statement, column);
    size_t len = (size_t)sqlite3_column_bytes(statement, column);
    ret->console_len = len < sizeof(ret->console) ? len : sizeof(ret->console);
    if (bytes != NULL)
        memcpy(ret->console, bytes, ret->console_len);
}

/* The newest of that id. */
static int find(sqlite3 *db, const char *owner, const char *id, struct store_certificate *ret,
                struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "SELECT instance, state, reason, message, created_wall_ms, ended_wall_ms,"
                      " console FROM certificates WHERE id = ?1 AND (?2 IS NULL OR owner = ?2)"
                      " AND purpose = 0 ORDER BY number DESC LIMIT 1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, id, err) < 0 || store_bind_text(statement, 2, owner, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row < 0)
        return -1;
    if (row == 0)
        return error_set(err, ERR_VM_UNKNOWN, 0, "no VM `%.64s` has ended", id);
    take_text(statement, 0, ret->instance, sizeof(ret->instance));
    ret->state = (enum store_state)sqlite3_column_int(statement, 1);
    take_text(statement, 2, ret->reason, sizeof(ret->reason));
    take_text(statement, 3, ret->message, sizeof(ret->message));
    ret->created_wall_ms = sqlite3_column_int64(statement, 4);
    ret->ended_wall_ms = sqlite3_column_int64(statement, 5);
    take_console(statement, 6, ret);
    return 0;
}

int store_certificate_get(struct store *store, const char *owner, const char *id,
                          struct store_certificate *ret, struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = find(db, owner, id, ret, err);
    store_reader_give(store, db);
    return result;
}
