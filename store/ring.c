/* Rings in the inventory: of one owner inside one of all. An owner's own oldest entry makes room for
 * his newest, so that who fills his ring takes nothing from the others. */
#include "store/internal.h"

void store_ring_close(struct store_ring_writer *writer)
{
    store_cleanup_kept(&writer->insert);
    store_cleanup_kept(&writer->trim);
}

static int number(sqlite3 *db, const char *sql, int64_t *ret, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, sql, &statement, err) < 0 || store_step(statement, err) < 0)
        return -1;
    *ret = sqlite3_column_int64(statement, 0);
    return 0;
}

int store_ring_open(sqlite3 *db, const struct store_ring *ring, struct store_ring_writer *ret,
                    struct error *err)
{
    ret->db = db;
    ret->ring = ring;
    if (number(db, ring->size, &ret->entries, err) < 0 ||
        store_prepare_kept(db, ring->insert, &ret->insert, err) < 0 ||
        store_prepare_kept(db, ring->trim, &ret->trim, err) < 0)
        return -1;
    return store_bind_number(ret->trim, 2, ring->own_max, err);
}

/* To its end, and ready for the next entry. Counts rows that came or went. */
static int run(sqlite3_stmt *statement, int *ret_changes, struct error *err)
{
    int result = store_step(statement, err);
    *ret_changes = sqlite3_changes(sqlite3_db_handle(statement));
    sqlite3_reset(statement);
    return result;
}

int store_ring_add(struct store_ring_writer *writer, const char *owner, struct error *err)
{
    int came = 0, went = 0;
    if (store_bind_text(writer->insert, 1, owner, err) < 0 ||
        store_bind_text(writer->trim, 1, owner, err) < 0 || run(writer->insert, &came, err) < 0 ||
        run(writer->trim, &went, err) < 0)
        return -1;
    writer->entries += came - went;
    return 0;
}

static int change(sqlite3 *db, const char *sql, int64_t number, struct error *err)
{
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, sql, &statement, err) < 0 ||
        (sqlite3_bind_parameter_count(statement) > 0 &&
         store_bind_number(statement, 1, number, err) < 0))
        return -1;
    return store_step(statement, err);
}

/* The oldest of all go when there are too many. The size is kept, since counting would cost more
 * than all else. */
int store_ring_finish(struct store_ring_writer *writer, struct error *err)
{
    const struct store_ring *ring = writer->ring;
    int64_t excess = writer->entries - ring->max;
    if (excess > 0 && (change(writer->db, ring->lose, excess, err) < 0 ||
                       change(writer->db, ring->drop, 0, err) < 0))
        return -1;
    return change(writer->db, ring->resize, excess > 0 ? ring->max : writer->entries, err);
}
