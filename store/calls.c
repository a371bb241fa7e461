/* Requests that change something: who asked for what, and what came of it. */
#include "store/internal.h"

#define CALL_COLUMNS(X)                                                                            \
    X(TEXT, caller)                                                                                \
    X(NUMBER, wall_ms)                                                                             \
    X(TEXT, token)                                                                                 \
    X(TEXT, request_id)                                                                            \
    X(TEXT, method)                                                                                \
    X(TEXT, route)                                                                                 \
    X(TEXT, path)                                                                                  \
    X(TEXT, vm)                                                                                    \
    X(NUMBER, status)                                                                              \
    X(TEXT, code)

#define CALL_COLUMN(kind, member) STORE_COLUMN(struct store_call, kind, member)
static const struct store_column columns[] = {CALL_COLUMNS(CALL_COLUMN)};
static const struct store_table table = {"a call", columns, COUNT_OF(columns),
                                         sizeof(struct store_call)};

/* ---- writing ---- */

/* Numbered as events are: none twice. */
static const struct store_ring ring = {
    .size = "SELECT entries FROM calls_size",
    .insert = "INSERT INTO calls (seq" CALL_COLUMNS(
        STORE_COLUMN_NAME) ", number)"
                           " SELECT 1 + max(first, ifnull((SELECT max(seq) FROM calls), "
                           "0))" CALL_COLUMNS(
                               STORE_COLUMN_MARK) ", 1 + ifnull((SELECT max(number) FROM calls "
                                                  "WHERE caller = ?1), 0) FROM audit_size",
    .trim = "DELETE FROM calls WHERE caller = ?1 AND number <="
            " (SELECT max(number) FROM calls WHERE caller = ?1) - ?2",
    .lose = "UPDATE calls_size SET lost = (SELECT seq FROM calls ORDER BY seq"
            " LIMIT 1 OFFSET ?1 - 1)",
    .drop = "DELETE FROM calls WHERE seq <= (SELECT lost FROM calls_size)",
    .resize = "UPDATE calls_size SET entries = ?1",
    .own_max = STORE_CALLS_CALLER_MAX,
    .max = STORE_CALLS_MAX,
};

struct batch {
    const struct store_call *calls;
    size_t count;
};

static int add_batch(sqlite3 *db, void *context, struct error *err)
{
    const struct batch *batch = context;
    cleanup(store_ring_close) struct store_ring_writer writer = {0};
    if (store_ring_open(db, &ring, &writer, err) < 0)
        return -1;
    for (size_t i = 0; i < batch->count; i++)
        if (store_row_bind(writer.insert, &table, &batch->calls[i], err) < 0 ||
            store_ring_add(&writer, batch->calls[i].caller, err) < 0)
            return -1;
    return store_ring_finish(&writer, err);
}

int store_calls_add(struct store *store, const struct store_call *calls, size_t count,
                    struct error *err)
{
    struct batch batch = {.calls = calls, .count = count};
    return store_change(store, STORE_ROOM_USUAL, add_batch, &batch, err);
}

/* ---- reading ---- */

struct page {
    struct store_call *calls; /* owned */
    size_t count;
    bool more;
};

static void cleanup_page(struct page *page)
{
    free(page->calls);
}

static int read_page(sqlite3 *db, int64_t after, uint32_t limit, struct page *page,
                     struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(
            db,
            "SELECT seq" CALL_COLUMNS(STORE_COLUMN_NAME) " FROM calls"
                                                         " WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            &statement, err) < 0 ||
        store_bind_number(statement, 1, after, err) < 0 ||
        store_bind_number(statement, 2, (int64_t)limit + 1, err) < 0)
        return -1;
    int row = 0;
    while ((row = store_step(statement, err)) == 1 && page->count < limit) {
        struct store_call *call = &page->calls[page->count++];
        if (store_row_read(statement, &table, call, err) < 0)
            return -1;
        call->seq = sqlite3_column_int64(statement, 0);
    }
    page->more = row == 1;
    return row < 0 ? -1 : 0;
}

int store_calls_list(struct store *store, int64_t after, uint32_t limit, struct store_call **ret,
                     size_t *ret_count, bool *ret_more, struct error *err)
{
    if (limit < 1 || limit > STORE_PAGE_MAX)
        return error_set(err, ERR_QUERY, 0, "`limit` must be from 1 to %d", STORE_PAGE_MAX);
    cleanup(cleanup_page) struct page page = {.calls = calloc(limit, sizeof(*page.calls))};
    if (page.calls == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading the calls");
    sqlite3 *db = store_reader_take(store);
    int result = read_page(db, after, limit, &page, err);
    store_reader_give(store, db);
    if (result < 0)
        return -1;
    *ret_count = page.count;
    *ret_more = page.more;
    *ret = TAKE_PTR(page.calls);
    return 0;
}

int store_calls_size(struct store *store, uint64_t *ret, struct error *err)
{
    int64_t entries = 0;
    sqlite3 *db = store_reader_take(store);
    int result = store_query_number(db, "SELECT entries FROM calls_size", &entries, err);
    store_reader_give(store, db);
    if (result == 0)
        *ret = (uint64_t)entries;
    return result;
}
