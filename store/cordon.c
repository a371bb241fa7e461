/* The cordon: at most one row. It stands in the inventory so that it outlives restarts, and is
 * looked at in the transaction that admits a VM so that none slips in behind it. */
#include "store/internal.h"

int store_cordon_read(sqlite3 *db, struct store_cordon *ret, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    *ret = (struct store_cordon){0};
    if (store_prepare(db, "SELECT owner, since_wall_ms, drain_wall_ms, drain_boot_ms FROM cordon",
                      &statement, err) < 0)
        return -1;
    int row = store_step(statement, err);
    if (row <= 0)
        return row;
    const char *owner = (const char *)sqlite3_column_text(statement, 0);
    ret->set = true;
    snprintf(ret->owner, sizeof(ret->owner), "%s", owner != NULL ? owner : "");
    ret->since_wall_ms = sqlite3_column_int64(statement, 1);
    ret->drain_wall_ms = sqlite3_column_int64(statement, 2);
    ret->drain_boot_ms = sqlite3_column_int64(statement, 3);
    return 0;
}

int store_cordon_refuse(const struct store_cordon *cordon, struct error *err)
{
    char since[25];
    clock_format(cordon->since_wall_ms, since);
    return error_set(err, ERR_CORDONED, 0,
                     "%s cordoned this host at %s: it takes no new VMs; those that run go on%s",
                     cordon->owner, since,
                     cordon->drain_boot_ms != 0 ? " until they are drained" : "");
}

int store_cordon_get(struct store *store, struct store_cordon *ret, struct error *err)
{
    sqlite3 *db = store_reader_take(store);
    int result = store_cordon_read(db, ret, err);
    store_reader_give(store, db);
    return result;
}

struct setting {
    const char *owner;
    int64_t drain_ms;
    struct store_cordon cordon;
};

static int set(sqlite3 *db, void *context, struct error *err)
{
    struct setting *setting = context;
    struct store_cordon *cordon = &setting->cordon;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_cordon_read(db, cordon, err) < 0)
        return -1;
    if (!cordon->set) {
        cordon->set = true;
        cordon->since_wall_ms = clock_wall_ms();
        snprintf(cordon->owner, sizeof(cordon->owner), "%s", setting->owner);
    }
    if (setting->drain_ms >= 0) {
        cordon->drain_wall_ms = clock_wall_ms() + setting->drain_ms;
        cordon->drain_boot_ms = clock_boot_ms() + setting->drain_ms;
    }
    if (store_prepare(db, "INSERT OR REPLACE INTO cordon VALUES (1, ?1, ?2, ?3, ?4)", &statement,
                      err) < 0 ||
        store_bind_text(statement, 1, cordon->owner, err) < 0 ||
        store_bind_number(statement, 2, cordon->since_wall_ms, err) < 0 ||
        store_bind_number(statement, 3, cordon->drain_wall_ms, err) < 0 ||
        store_bind_number(statement, 4, cordon->drain_boot_ms, err) < 0)
        return -1;
    return store_step(statement, err);
}

int store_cordon_set(struct store *store, const char *owner, int64_t drain_ms,
                     struct store_cordon *ret, struct error *err)
{
    struct setting setting = {.owner = owner, .drain_ms = drain_ms};
    if (store_change(store, STORE_ROOM_USUAL, set, &setting, err) < 0)
        return -1;
    *ret = setting.cordon;
    return 0;
}

static int lift(sqlite3 *db, void *context, struct error *err)
{
    (void)context;
    return store_exec(db, "DELETE FROM cordon", err);
}

int store_cordon_lift(struct store *store, struct error *err)
{
    return store_change(store, STORE_ROOM_USUAL, lift, NULL, err);
}
