/* How old certificates and keys are, on a clock that nobody sets: the time that this host was up. */
#include "store/internal.h"

struct age {
    const char *boot;
    int64_t boot_ms, keep_ms;
};

/* Between two calls in one boot the host was up all the time, whoever ran meanwhile. */
static int tick(sqlite3 *db, const struct age *age, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE clock SET up_ms = up_ms + iif(boot = ?1, max(0, ?2 - boot_ms), 0),"
                      " boot = ?1, boot_ms = ?2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, age->boot, err) < 0 ||
        store_bind_number(statement, 2, age->boot_ms, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int forget(sqlite3 *db, const char *sql, int64_t keep_ms, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, sql, &statement, err) < 0 ||
        store_bind_number(statement, 1, keep_ms, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int prune(sqlite3 *db, void *context, struct error *err)
{
    const struct age *age = context;
    if (tick(db, age, err) < 0 ||
        forget(db, "DELETE FROM certificates WHERE ended_up_ms < (SELECT up_ms FROM clock) - ?1",
               age->keep_ms, err) < 0)
        return -1;
    return forget(db,
                  "DELETE FROM keys WHERE status <> 0"
                  " AND made_up_ms < (SELECT up_ms FROM clock) - ?1",
                  STORE_KEYS_KEEP_S * INT64_C(1000), err);
}

int store_age(struct store *store, const char *boot, int64_t boot_ms, int64_t keep_ms,
              struct error *err)
{
    struct age age = {.boot = boot, .boot_ms = boot_ms, .keep_ms = keep_ms};
    return store_change(store, STORE_ROOM_USUAL, prune, &age, err);
}
