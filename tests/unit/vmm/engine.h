/* The real engine on a real store, with the scripted root half behind it. */
#ifndef MOTTE_TESTS_VMM_ENGINE_H
#define MOTTE_TESTS_VMM_ENGINE_H

#include "tests/unit/store/fixture.h"
#include "tests/unit/vmm/root.h"
#include "vmm/internal.h"

#include <stdatomic.h>

enum { PATIENCE_MS = 30000, BOOT_MS = 1500, ANSWER_MS = 500 };

struct engine {
    struct fixture fixture;
    struct root root;
    struct priv_client *client;
    struct vmm *vmm;
    size_t fds; /* of the process, before */
    atomic_uint violations, audits_lost, hung_vmms, hung_agents;
    atomic_int last_violation;
    int64_t idle_s; /* of the VMs to come, as the next */
    enum store_policy on_unresponsive;
};
void engine_open(struct engine *engine);
/* Waits until no machine is left, then checks R04: no row, no instance, no descriptor more. */
void engine_close(struct engine *engine);
void engine_empty(struct engine *engine);
/* The front ends and starts again; VMs, rows and the root half's instances stay. */
void engine_stop(struct engine *engine);
struct vmm_recovered engine_restart(struct engine *engine);
/* Without recovery. */
void engine_reopen(struct engine *engine);

int engine_spawn(struct engine *engine, const char *id, int64_t ttl_s, struct store_vm *ret,
                 struct error *err);
int engine_exec(struct engine *engine, const char *id, struct error *err);
/* Each test in an engine of its own; for main(). */
typedef void engine_test(struct engine *engine);
int engine_run(engine_test *const tests[], size_t count);
/* What its certificate says. */
void engine_ended(struct engine *engine, const char *id, enum store_state state,
                  const char *reason);

#endif
