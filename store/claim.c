/* The pool in the inventory: a VM that waits becomes a caller's, or is taken back, never both. */
#include "store/internal.h"

struct claim {
    const struct store_vm *wish;
    const char *labels; /* of one that waits */
    struct store_quota quota;
    struct store_vm *vm;
    bool found;
};

/* `purpose = 1` is what the index of pooled VMs says. */
_Static_assert(STORE_FOR_POOL == 1 && STORE_RUNNING == 2 && STORE_AGENT_RESPONSIVE == 1,
               "as find_sql has them");
static const char find_sql[] =
    STORE_SELECT_VM " WHERE purpose = 1 AND state = 2 AND agent = 1 AND image_digest = ?1"
                    " AND vcpus = ?2 AND memory_mib = ?3 AND disk_mib = ?4 AND seccomp = ?5"
                    " AND hypervisor = ?6 AND without = ?7 AND layout = ?8 AND boot = ?9"
                    " AND labels = ?10"
                    " ORDER BY seq LIMIT 1";

/* 1 with a row, 0, -1. */
static int find(sqlite3 *db, const struct claim *claim, struct error *err)
{
    const struct store_vm *wish = claim->wish;
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, find_sql, &statement, err) < 0)
        return -1;
    int rc = sqlite3_bind_blob(statement, 1, wish->image_digest, HASH_SIZE, SQLITE_STATIC);
    if (rc != SQLITE_OK)
        return store_fail(db, rc, "binding", err);
    if (store_bind_number(statement, 2, wish->vcpus, err) < 0 ||
        store_bind_number(statement, 3, wish->memory_mib, err) < 0 ||
        store_bind_number(statement, 4, wish->disk_mib, err) < 0 ||
        store_bind_text(statement, 5, wish->seccomp, err) < 0 ||
        store_bind_text(statement, 6, wish->hypervisor, err) < 0 ||
        store_bind_number(statement, 7, wish->without, err) < 0 ||
        store_bind_number(statement, 8, wish->layout, err) < 0 ||
        store_bind_text(statement, 9, wish->boot, err) < 0 ||
        store_bind_text(statement, 10, claim->labels, err) < 0)
        return -1;
    int row = store_step(statement, err);
    return row == 1 && store_row_read(statement, &store_vm_table, claim->vm, err) < 0 ? -1 : row;
}

static void hand_over(const struct store_vm *wish, struct store_vm *vm)
{
    memcpy(vm->id, wish->id, sizeof(vm->id));
    memcpy(vm->owner, wish->owner, sizeof(vm->owner));
    memcpy(vm->labels, wish->labels, sizeof(vm->labels));
    vm->ttl_s = wish->ttl_s;
    vm->created_wall_ms = vm->state_wall_ms = wish->created_wall_ms;
    vm->expires_boot_ms = wish->expires_boot_ms;
    vm->expires_wall_ms = wish->expires_wall_ms;
    vm->idle_s = wish->idle_s;
    vm->idle_since_boot_ms = wish->idle_since_boot_ms;
    vm->on_unresponsive = wish->on_unresponsive;
    vm->purpose = STORE_FOR_CALLER;
    vm->source = STORE_FROM_POOL;
}

static const char write_sql[] =
    "UPDATE vms SET seq = 1 + (SELECT seq FROM sqlite_sequence WHERE name = 'vms'),"
    " id = ?2, owner = ?3, labels = ?4, purpose = ?5, ttl_s = ?6, created_wall_ms = ?7,"
    " state_wall_ms = ?7, expires_boot_ms = ?8, expires_wall_ms = ?9, idle_s = ?10,"
    " idle_since_boot_ms = ?11, on_unresponsive = ?12, source = ?13"
    " WHERE instance = ?1";

/* As new in lists: a page that goes on behind the place that it had has not shown it. */
static int write_row(sqlite3 *db, const struct store_vm *vm, struct error *err)
{
    const int64_t numbers[] = {
        vm->purpose,         vm->ttl_s,  vm->created_wall_ms,    vm->expires_boot_ms,
        vm->expires_wall_ms, vm->idle_s, vm->idle_since_boot_ms, vm->on_unresponsive,
        vm->source};
    cleanup_kept sqlite3_stmt *statement = NULL;
    if (store_prepare_kept(db, write_sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_text(statement, 2, vm->id, err) < 0 ||
        store_bind_text(statement, 3, vm->owner, err) < 0 ||
        store_bind_text(statement, 4, vm->labels, err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        if (store_bind_number(statement, (int)i + 5, numbers[i], err) < 0)
            return -1;
    if (store_step(statement, err) < 0)
        return -1;
    return store_exec(db, "UPDATE sqlite_sequence SET seq = seq + 1 WHERE name = 'vms'", err);
}

static int claim(sqlite3 *db, void *context, struct error *err)
{
    struct claim *claim = context;
    if (store_admit_check(db, &claim->quota, claim->wish, err) < 0)
        return -1;
    int row = find(db, claim, err);
    claim->found = row == 1;
    if (row != 1)
        return row;
    hand_over(claim->wish, claim->vm);
    return write_row(db, claim->vm, err) < 0 ||
                   store_keep(db, claim->wish->keep, claim->vm, err) < 0
               ? -1
               : store_audit_put(db, claim->vm->instance, STORE_AUDIT_CLAIMED, NULL, err);
}

int store_vm_claim(struct store *store, const struct store_vm *wish, const char *labels,
                   struct store_vm *ret, bool *ret_found, struct error *err)
{
    struct claim claiming = {
        .wish = wish, .labels = labels, .vm = ret, .quota = store_quota_of(store, wish->owner)};
    if (store_change(store, STORE_ROOM_NEW, claim, &claiming, err) < 0)
        return -1;
    *ret_found = claiming.found;
    return 0;
}

struct retirement {
    const char *instance;
    bool done;
};

static int retire(sqlite3 *db, void *context, struct error *err)
{
    struct retirement *retirement = context;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE vms SET state = ?2, state_wall_ms = ?3"
                      " WHERE instance = ?1 AND purpose <> 0 AND state <> ?2",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, retirement->instance, err) < 0 ||
        store_bind_number(statement, 2, STORE_DELETING, err) < 0 ||
        store_bind_number(statement, 3, clock_wall_ms(), err) < 0 || store_step(statement, err) < 0)
        return -1;
    retirement->done = sqlite3_changes(db) == 1;
    return 0;
}

int store_vm_retire(struct store *store, const char *instance, bool *ret, struct error *err)
{
    struct retirement retirement = {.instance = instance};
    if (store_change(store, STORE_ROOM_END, retire, &retirement, err) < 0)
        return -1;
    *ret = retirement.done;
    return 0;
}
