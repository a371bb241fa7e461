/*
 * Spawns that are refused, or fail for want of something, and those whose undo fails (R04): nothing
 * is left of them, and the error says why. A plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/base/refuse.h"
#include "tests/unit/vmm/engine.h"

#include <errno.h>

static void spawn_fails(struct engine *engine, const char *id, enum error_code code,
                        const char *words)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(engine_spawn(engine, id, 60, &row, &err) < 0);
    if (err.code != code || strstr(err.msg, words) == NULL) {
        fprintf(stderr, "wanted `%s`, have %s: %s\n", words, error_code_name(err.code), err.msg);
        abort();
    }
}

/* ---- refused before anything was done ---- */

static void what_is_not_admitted_leaves_nothing(struct engine *engine)
{
    struct store_cordon cordon;
    struct error err = {0};
    CHECK(store_cordon_set(engine->fixture.store, "operator", -1, &cordon, &err) == 0);
    spawn_fails(engine, "vm", ERR_CORDONED, "operator cordoned this host");
    CHECK(store_cordon_lift(engine->fixture.store, &err) == 0);
    engine_sql(engine, "ALTER TABLE cordon RENAME TO elsewhere");
    spawn_fails(engine, "vm", ERR_STORE, "cordon");
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO cordon");
    engine_sql(engine, "ALTER TABLE vms RENAME TO elsewhere");
    spawn_fails(engine, "vm", ERR_STORE, "vms");
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO vms");
    engine_sql(engine, "ALTER TABLE vms RENAME COLUMN memory_mib TO elsewhere");
    spawn_fails(engine, "vm", ERR_STORE, "memory_mib");
    engine_sql(engine, "ALTER TABLE vms RENAME COLUMN elsewhere TO memory_mib");
    struct priv_host host;
    vmm_host(engine->vmm, &host);
    engine->memory_mib = host.total_memory_mib + 1;
    spawn_fails(engine, "vm", ERR_CAPACITY, "memory: 0 of");
    engine->memory_mib = 0;
    vmm_drain(engine->vmm);
    spawn_fails(engine, "vm", ERR_SHUTTING_DOWN, "stopping");
    CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &(struct store_vm){0}, &err) < 0);
    CHECK(err.code == ERR_VM_UNKNOWN); /* not even a certificate */
}

static void an_id_is_not_taken_twice(struct engine *engine)
{
    struct store_vm row, still;
    struct error err = {0};
    CHECK(engine_spawn(engine, "vm", 60, &row, &err) == 0);
    spawn_fails(engine, "vm", ERR_ID_TAKEN, "step admit");
    CHECK(root_live(&engine->root) == 1);
    /* Its instance cannot be given back at once: the reaper does it. */
    root_plan(&engine->root, (struct plan){.kill_failures = 1});
    spawn_fails(engine, "vm", ERR_ID_TAKEN, "step admit");
    for (int64_t deadline = clock_mono_ms() + PATIENCE_MS; root_live(&engine->root) > 1;)
        CHECK(clock_mono_ms() < deadline && sched_yield() == 0);
    CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &still, &err) == 0);
    CHECK(strcmp(still.instance, row.instance) == 0 && still.state == STORE_RUNNING);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
}

/* ---- the n-th of these calls fails, for each n that there is ---- */

static void spawn_short_of(struct engine *engine, enum refusable call, unsigned first, int sys)
{
    struct error err = {0};
    for (unsigned n = first, more = 1; more > 0; n++) {
        struct store_vm row;
        err = (struct error){0};
        refuse(call, (struct refusal){.after = n, .times = 1, .sys = sys});
        int result = engine_spawn(engine, "vm", 60, &row, &err);
        more = refused(call);
        refuse_nothing();
        CHECK(result < 0 ? more > 0 && error_is_shortage(&err) : more == 0);
        if (result == 0)
            break;
        engine_empty(engine);
    }
    CHECK(engine_exec(engine, "vm", &err) == 0);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
}

static void every_want_is_undone(struct engine *engine)
{
    enum { OF_THE_TEST = 1 };
    spawn_short_of(engine, REFUSE_CALLOC, OF_THE_TEST, ENOMEM);
    spawn_short_of(engine, REFUSE_EVENTFD, 0, EMFILE);
    spawn_short_of(engine, REFUSE_EPOLL_CREATE1, 0, EMFILE);
    spawn_short_of(engine, REFUSE_EPOLL_CTL, 0, ENOSPC);
}

/* cJSON's memory, of this thread. */
static int *json_left(void)
{
    static _Thread_local int left = -1; /* how many more it gets, but for one; -1: all */
    return &left;
}

static void *json_malloc(size_t size)
{
    int *left = json_left();
    if (*left < 0)
        return malloc(size);
    return (*left)-- == 0 ? NULL : malloc(size);
}

/* One that boots (snapshot NULL), or is restored; the last lives. */
static struct store_vm spawn_short_of_json(struct engine *engine, const char *snapshot)
{
    cJSON_InitHooks(&(cJSON_Hooks){.malloc_fn = json_malloc, .free_fn = free});
    const size_t others = root_live(&engine->root);
    struct store_vm row;
    struct error err = {0};
    unsigned commits = 0, lost = 0, before = engine->audits_lost;
    for (int n = 0;; n++) {
        err = (struct error){0};
        *json_left() = n;
        int result = snapshot == NULL ? engine_spawn(engine, "vm", 60, &row, &err)
                                      : engine_restore(engine, "vm", snapshot, "owner", &row, &err);
        bool wanted = *json_left() < 0;
        *json_left() = -1;
        if (result == 0 && !wanted)
            break;
        lost += result == 0; /* an entry of the audit stops nothing */
        CHECK(result == 0 ? engine->audits_lost == before + lost : err.code == ERR_NO_MEMORY);
        commits += strstr(err.msg, "step commit") != NULL;
        CHECK(result < 0 || vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
        CHECK(root_live(&engine->root) == others);
    }
    cJSON_InitHooks(NULL);
    CHECK(commits > 0 && engine->audits_lost == before + lost);
    return row;
}

static void every_want_of_memory_for_json_is_undone(struct engine *engine)
{
    struct store_vm row = spawn_short_of_json(engine, NULL);
    struct store_snapshot snapshot;
    struct error err = {0};
    CHECK(strstr(row.steps, "\"name\":\"hello\"") != NULL);
    CHECK(strcmp(row.guest, "{\"agent\":\"script\",\"kernel\":\"script\",\"boot_ms\":1,"
                            "\"generation\":0}") == 0);
    CHECK(engine_snapshot(engine, "vm", false, &snapshot, &err) == 0);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
    row = spawn_short_of_json(engine, snapshot.id);
    CHECK(strstr(row.guest, "\"generation\":1,\"clock_skew_ms\":1}") != NULL);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
}

/* Each of its quotation marks takes two bytes. */
static void an_agent_cannot_say_more_than_there_is_room_for(struct engine *engine)
{
    char agent[2 * 63 + 1] = "";
    for (size_t i = 0; i < sizeof(agent) - 1; i += 2)
        memcpy(agent + i, "\\\"", 3);
    root_plan(&engine->root, (struct plan){.agent = agent});
    spawn_fails(engine, "vm", ERR_NO_MEMORY, "no room for a VM's details");
    engine_empty(engine);
    engine_ended(engine, "vm", STORE_FAILED, "spawn_commit");
}

/* ---- what is known of its end ---- */

static void a_vmm_that_ran_out_of_memory_says_so(struct engine *engine)
{
    root_plan(&engine->root, (struct plan){.die = AT_START, .oom_kills = 1});
    spawn_fails(engine, "vm", ERR_VMM_EXITED, "cgroup ran out of memory");
    engine_empty(engine);
    engine_ended(engine, "vm", STORE_FAILED, "spawn_start");
}

static void the_last_words_of_a_vmm_are_told(struct engine *engine)
{
    root_plan(&engine->root, (struct plan){.die = AT_START});
    spawn_fails(engine, "vm", ERR_VMM_EXITED, "it last wrote: first words");
    root_plan(&engine->root, (struct plan){.die = AT_START, .speechless = true});
    spawn_fails(engine, "vm", ERR_VMM_EXITED, "it last wrote: nothing");
    engine_empty(engine);
}

/* Once: the report behind a CHECK that failed asks again. */
static void lock_inventory(void *context, const char *instance)
{
    (void)instance;
    if (sqlite3_get_autocommit(context))
        CHECK(sqlite3_exec(context, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
}

/* The VMM is gone, and its certificate cannot be written: the reaper writes it. */
static void an_undo_that_fails_is_gone_on_with(struct engine *engine)
{
    sqlite3 *other = engine_connect(engine);
    root_plan(&engine->root,
              (struct plan){
                  .fail = AT_CHECK, .call = AT_CHECK, .action = lock_inventory, .context = other});
    spawn_fails(engine, "vm", ERR_GUARD, "step start");
    CHECK(root_live(&engine->root) == 0);
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &row, &err) == 0);
    CHECK(row.state == STORE_CREATING);
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    engine_empty(engine);
    engine_ended(engine, "vm", STORE_FAILED, "spawn_start");
}

int main(void)
{
    static engine_test *const tests[] = {
        what_is_not_admitted_leaves_nothing,
        an_id_is_not_taken_twice,
        every_want_is_undone,
        every_want_of_memory_for_json_is_undone,
        an_agent_cannot_say_more_than_there_is_room_for,
        a_vmm_that_ran_out_of_memory_says_so,
        the_last_words_of_a_vmm_are_told,
        an_undo_that_fails_is_gone_on_with,
    };
    return engine_run(tests, COUNT_OF(tests));
}
