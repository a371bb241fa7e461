/* What changes about a VM while it lives: how long it is still needed, whether it is paused, and
 * whether its agent answers. */
#include "store/internal.h"

struct keepalive {
    const char *owner, *id;
    int64_t ttl_s, boot_ms;
    struct store_vm vm;
};

static int keep(sqlite3 *db, void *context, struct error *err)
{
    struct keepalive *keepalive = context;
    struct store_vm *vm = &keepalive->vm;
    if (store_find(db, keepalive->owner, keepalive->id, vm, err) < 0)
        return -1;
    if (vm->state != STORE_RUNNING && vm->state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0,
                         "the VM is %s; only one that runs or is paused can be kept alive",
                         store_state_name(vm->state));
    int64_t more_ms = (keepalive->ttl_s > 0 ? keepalive->ttl_s : vm->ttl_s) * 1000;
    if (vm->expires_boot_ms < keepalive->boot_ms + more_ms) {
        vm->expires_boot_ms = keepalive->boot_ms + more_ms;
        vm->expires_wall_ms = clock_wall_ms() + more_ms;
    }
    if (vm->idle_since_boot_ms > 0)
        vm->idle_since_boot_ms = keepalive->boot_ms;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE vms SET expires_boot_ms = ?2, expires_wall_ms = ?3,"
                      " idle_since_boot_ms = ?4 WHERE instance = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_number(statement, 2, vm->expires_boot_ms, err) < 0 ||
        store_bind_number(statement, 3, vm->expires_wall_ms, err) < 0 ||
        store_bind_number(statement, 4, vm->idle_since_boot_ms, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_vm_keepalive(struct store *store, const char *owner, const char *id, int64_t ttl_s,
                       int64_t boot_ms, struct store_vm *ret, struct error *err)
{
    struct keepalive keepalive = {.owner = owner, .id = id, .ttl_s = ttl_s, .boot_ms = boot_ms};
    if (store_change(store, STORE_ROOM_USUAL, keep, &keepalive, err) < 0)
        return -1;
    *ret = keepalive.vm;
    return 0;
}

struct patching {
    const char *owner, *id;
    const struct store_patch *patch;
    int64_t boot_ms;
    struct store_vm vm;
};

static int patch(sqlite3 *db, void *context, struct error *err)
{
    struct patching *patching = context;
    struct store_vm *vm = &patching->vm;
    if (store_find(db, patching->owner, patching->id, vm, err) < 0)
        return -1;
    if (vm->state != STORE_RUNNING && vm->state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0,
                         "the VM is %s; only one that runs or is paused can be changed",
                         store_state_name(vm->state));
    if (patching->patch->labels(patching->patch->context, vm->labels, err) < 0)
        return -1;
    if (patching->patch->ttl_s > 0) {
        vm->ttl_s = patching->patch->ttl_s;
        vm->expires_boot_ms = patching->boot_ms + vm->ttl_s * 1000;
        vm->expires_wall_ms = clock_wall_ms() + vm->ttl_s * 1000;
    }
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE vms SET labels = ?2, ttl_s = ?3, expires_boot_ms = ?4,"
                      " expires_wall_ms = ?5 WHERE instance = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_text(statement, 2, vm->labels, err) < 0 ||
        store_bind_number(statement, 3, vm->ttl_s, err) < 0 ||
        store_bind_number(statement, 4, vm->expires_boot_ms, err) < 0 ||
        store_bind_number(statement, 5, vm->expires_wall_ms, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_vm_patch(struct store *store, const char *owner, const char *id,
                   const struct store_patch *wanted, int64_t boot_ms, struct store_vm *ret,
                   struct error *err)
{
    struct patching patching = {.owner = owner, .id = id, .patch = wanted, .boot_ms = boot_ms};
    if (store_change(store, STORE_ROOM_USUAL, patch, &patching, err) < 0)
        return -1;
    *ret = patching.vm;
    return 0;
}

struct pausing {
    const char *instance;
    bool paused;
    int64_t boot_ms;
    struct store_vm vm;
};

static int write_state(sqlite3 *db, const struct store_vm *vm, struct error *err)
{
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db,
                      "UPDATE vms SET state = ?2, state_wall_ms = ?3, idle_since_boot_ms = ?4"
                      " WHERE instance = ?1",
                      &statement, err) < 0 ||
        store_bind_text(statement, 1, vm->instance, err) < 0 ||
        store_bind_number(statement, 2, vm->state, err) < 0 ||
        store_bind_number(statement, 3, vm->state_wall_ms, err) < 0 ||
        store_bind_number(statement, 4, vm->idle_since_boot_ms, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

static int change_paused(sqlite3 *db, void *context, struct error *err)
{
    struct pausing *pausing = context;
    struct store_vm *vm = &pausing->vm;
    enum store_state wanted = pausing->paused ? STORE_PAUSED : STORE_RUNNING;
    if (store_find_instance(db, pausing->instance, vm, err) < 0)
        return -1;
    if (vm->state != STORE_RUNNING && vm->state != STORE_PAUSED)
        return error_set(err, ERR_VM_NOT_RUNNING, 0, "the VM is %s", store_state_name(vm->state));
    if (vm->state == wanted)
        return 0;
    vm->state = wanted;
    vm->state_wall_ms = clock_wall_ms();
    if (!pausing->paused && vm->idle_since_boot_ms > 0)
        vm->idle_since_boot_ms = pausing->boot_ms;
    if (write_state(db, vm, err) < 0)
        return -1;
    return store_audit_put(db, vm->instance,
                           pausing->paused ? STORE_AUDIT_PAUSED : STORE_AUDIT_RESUMED, NULL, err);
}

int store_vm_paused(struct store *store, const char *instance, bool paused, int64_t boot_ms,
                    struct store_vm *ret, struct error *err)
{
    struct pausing pausing = {.instance = instance, .paused = paused, .boot_ms = boot_ms};
    if (store_change(store, STORE_ROOM_USUAL, change_paused, &pausing, err) < 0)
        return -1;
    *ret = pausing.vm;
    store_news(store, instance);
    return 0;
}

/* One number of one row. */
struct setting {
    const char *sql, *instance;
    int64_t value;
};

static int set(sqlite3 *db, void *context, struct error *err)
{
    const struct setting *setting = context;
    cleanup_statement sqlite3_stmt *statement = NULL;
    if (store_prepare(db, setting->sql, &statement, err) < 0 ||
        store_bind_text(statement, 1, setting->instance, err) < 0 ||
        store_bind_number(statement, 2, setting->value, err) < 0)
        return -1;
    return store_step(statement, err) < 0 ? -1 : 0;
}

int store_vm_idle(struct store *store, const char *instance, int64_t since_boot_ms,
                  struct error *err)
{
    struct setting setting = {"UPDATE vms SET idle_since_boot_ms = ?2 WHERE instance = ?1",
                              instance, since_boot_ms};
    return store_change(store, STORE_ROOM_USUAL, set, &setting, err);
}

int store_vm_agent(struct store *store, const char *instance, enum store_agent agent,
                   struct error *err)
{
    struct setting setting = {"UPDATE vms SET agent = ?2 WHERE instance = ?1", instance, agent};
    return store_change(store, STORE_ROOM_USUAL, set, &setting, err);
}
