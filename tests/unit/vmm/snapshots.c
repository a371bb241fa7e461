#include "tests/unit/vmm/snapshots.h"

struct store_vm vm_run(struct engine *engine, const char *id, struct plan plan)
{
    struct store_vm vm;
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, 600, &vm, &err) == 0);
    root_plan(&engine->root, (struct plan){0});
    return vm;
}

void vm_remove(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

struct store_snapshot snapshot_take(struct engine *engine, const char *id)
{
    struct store_snapshot snapshot;
    struct error err = {0};
    if (engine_snapshot(engine, id, false, &snapshot, &err) < 0) {
        fprintf(stderr, "no snapshot of %s: %s: %s\n", id, error_code_name(err.code), err.msg);
        abort();
    }
    return snapshot;
}

void snapshot_fails(struct engine *engine, const char *id, enum error_code code, const char *words)
{
    struct store_snapshot snapshot;
    struct error err = {0};
    CHECK(engine_snapshot(engine, id, false, &snapshot, &err) < 0);
    if (err.code == code && strstr(err.msg, words) != NULL)
        return;
    fprintf(stderr, "wanted `%s`, have %s: %s\n", words, error_code_name(err.code), err.msg);
    abort();
}

void vm_exec_works(struct engine *engine, const char *id)
{
    struct error err = {0};
    if (engine_exec(engine, id, &err) == 0)
        return;
    fprintf(stderr, "no command in %s: %s: %s\n", id, error_code_name(err.code), err.msg);
    abort();
}

size_t snapshot_rows(struct engine *engine)
{
    struct store_snapshot *page = NULL;
    struct error err = {0};
    size_t count = 0;
    bool more = false;
    const struct store_filter all = {.limit = STORE_PAGE_MAX};
    CHECK(store_snapshot_list(engine->fixture.store, &all, &page, &count, &more, &err) == 0);
    free(page);
    return count;
}

void vm_is_whole(struct engine *engine, const struct store_vm *vm, bool paused, size_t count)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_get(engine->fixture.store, "owner", vm->id, &row, &err) == 0);
    CHECK(row.state == (paused ? STORE_PAUSED : STORE_RUNNING));
    CHECK(root_paused(&engine->root, vm->instance) == paused);
    CHECK(root_phase(&engine->root, vm->instance) == PHASE_NONE);
    CHECK(!engine_intended(engine, vm->instance));
    CHECK(root_snapshots(&engine->root) == count && snapshot_rows(engine) == count);
    if (!paused)
        vm_exec_works(engine, vm->id);
}
