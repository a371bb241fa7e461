/* The real engine on a real store, with the scripted root half behind it. */
#ifndef MOTTE_TESTS_VMM_ENGINE_H
#define MOTTE_TESTS_VMM_ENGINE_H

#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"
#include "tests/unit/vmm/root.h"
#include "vmm/internal.h"

#include <sqlite3.h>
#include <stdatomic.h>

enum { PATIENCE_MS = 30000, BOOT_MS = 1500, ANSWER_MS = 500, LOOK_MS = 10 };

struct engine {
    struct fixture fixture;
    struct root root;
    struct priv_client *client;
    struct vmm *vmm;
    size_t fds; /* of the process, before */
    atomic_uint violations, audits_lost, hung_vmms, hung_agents;
    atomic_int last_violation;
    int state_dir;                        /* of the next start, as the next; -1: no catalogue */
    struct vmm_pool_targets pools;        /* none to begin with */
    atomic_uint images[VMM_IMAGE_EVENTS]; /* how often each was told */
    uint32_t image_snapshots;             /* of the next that is opened; first 0 */
    uint32_t memory_mib;                  /* of the VMs to come, as the next two; 0: the least */
    int64_t idle_s;
    enum store_policy on_unresponsive;
    bool cold;
    enum store_purpose purpose;
};
void engine_open(struct engine *engine);
/* Waits until no machine is left, then checks R04: no row, no instance, no descriptor more. */
void engine_close(struct engine *engine);
void engine_empty(struct engine *engine);
/* The front ends and starts again; VMs, rows and the root half's instances stay. */
void engine_stop(struct engine *engine);
struct vmm_recovered engine_restart(struct engine *engine);
/* The first half of that: nothing is recovered yet. */
void engine_resume(struct engine *engine);
/* Another program's connection to the inventory, and SQL through one. */
sqlite3 *engine_connect(const struct engine *engine);
void engine_sql(const struct engine *engine, const char *sql);

/* Six threads that each make 60 calls, one after another, by a seed that is printed. `id`: "a" or
 * "b". */
struct engine_worker {
    struct engine *engine;
    struct random random;
    void (*one_call)(struct engine_worker *worker, const char *id);
    pthread_t thread;
};
void engine_all_at_once(struct engine *engine,
                        void (*one_call)(struct engine_worker *worker, const char *id));

int engine_spawn(struct engine *engine, const char *id, int64_t ttl_s, struct store_vm *ret,
                 struct error *err);
/* Its first half. */
int engine_spawn_begin(struct engine *engine, const char *id, struct vmm_spawning **ret,
                       struct error *err);
/* Of a spec that names `snapshot`; the image of both is the same. */
int engine_restore(struct engine *engine, const char *id, const char *snapshot, const char *owner,
                   struct store_vm *ret, struct error *err);
/* Of the VM `id` of the owner `owner`, without labels. */
int engine_snapshot(struct engine *engine, const char *id, bool ephemeral,
                    struct store_snapshot *ret, struct error *err);
bool engine_intended(struct engine *engine, const char *instance);
int engine_exec(struct engine *engine, const char *id, struct error *err);
/* Each test in an engine of its own; for main(). */
typedef void engine_test(struct engine *engine);
int engine_run(engine_test *const tests[], size_t count);
/* What its certificate says. */
void engine_ended(struct engine *engine, const char *id, enum store_state state,
                  const char *reason);

#endif
