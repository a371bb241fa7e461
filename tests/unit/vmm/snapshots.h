/* What tests of snapshots share: VMs of a plan, and that they and the snapshots are whole. */
#ifndef MOTTE_TESTS_VMM_SNAPSHOTS_H
#define MOTTE_TESTS_VMM_SNAPSHOTS_H

#include "tests/unit/vmm/engine.h"

/* The plan is of this one alone. */
struct store_vm vm_run(struct engine *engine, const char *id, struct plan plan);
void vm_remove(struct engine *engine, const char *id);
void vm_exec_works(struct engine *engine, const char *id);
/* It runs, or not, and so says its row; there are `count` snapshots, and nothing half of one. */
void vm_is_whole(struct engine *engine, const struct store_vm *vm, bool paused, size_t count);
struct store_snapshot snapshot_take(struct engine *engine, const char *id);
void snapshot_fails(struct engine *engine, const char *id, enum error_code code, const char *words);
/* How many the inventory lists. */
size_t snapshot_rows(struct engine *engine);

#endif
