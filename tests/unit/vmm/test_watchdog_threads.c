/* What the watchdog does about a VMM and an agent that do not answer (R31). A plain program, so that
 * ThreadSanitizer can run it. */
#include "tests/unit/vmm/engine.h"

#include <poll.h>

enum { MISSES_AND_ONE = 4 };

static void run(struct engine *engine, const char *id, struct plan plan, struct store_vm *ret)
{
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, 60, ret, &err) == 0);
}

static enum store_agent agent(struct engine *engine, const char *id)
{
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_get(engine->fixture.store, "owner", id, &row, &err) == 0);
    CHECK(row.state == STORE_RUNNING);
    return row.agent;
}

static void await_agent(struct engine *engine, const char *id, enum store_agent wanted)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (agent(engine, id) != wanted) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static void await_met(struct engine *engine, const char *instance, unsigned count)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (root_met(&engine->root, instance) < count) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
}

static void remove_vm(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

static void a_vmm_that_hangs_is_killed(struct engine *engine)
{
    struct store_vm row;
    run(engine, "hangs", (struct plan){.fail = AT_ALIVE}, &row);
    int64_t begin = clock_mono_ms();
    engine_empty(engine);
    CHECK(clock_mono_ms() - begin > vmm_watchdog_period_ms(engine->vmm) + 2 * ANSWER_MS);
    engine_ended(engine, "hangs", STORE_EXITED, "unresponsive");
    CHECK(engine->hung_vmms == 1 && engine->hung_agents == 0);
}

static void a_vmm_that_says_it_is_another_is_killed(struct engine *engine)
{
    struct store_vm row;
    run(engine, "swapped", (struct plan){.lie = AT_ALIVE}, &row);
    engine_empty(engine);
    engine_ended(engine, "swapped", STORE_EXITED, "unresponsive");
    CHECK(engine->hung_vmms == 1);
}

static void a_vmm_that_dies_when_asked_has_crashed(struct engine *engine)
{
    struct store_vm row;
    run(engine, "dies", (struct plan){.die = AT_ALIVE}, &row);
    engine_empty(engine);
    engine_ended(engine, "dies", STORE_EXITED, "vmm_crash");
    CHECK(engine->hung_vmms == 0);
}

static void an_agent_that_hangs_is_told_and_kept(struct engine *engine)
{
    struct store_vm row;
    run(engine, "well", (struct plan){0}, &row);
    run(engine, "wedged", (struct plan){.fail = AT_ASK}, &row);
    CHECK(agent(engine, "wedged") == STORE_AGENT_RESPONSIVE);
    await_agent(engine, "wedged", STORE_AGENT_UNRESPONSIVE);
    await_met(engine, row.instance, root_met(&engine->root, row.instance) + 1); /* it was told */
    CHECK(engine->hung_agents == 1 && engine->hung_vmms == 0);
    CHECK(agent(engine, "well") == STORE_AGENT_RESPONSIVE);
    /* Known after a restart too, and not told again. */
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 2);
    CHECK(agent(engine, "wedged") == STORE_AGENT_UNRESPONSIVE);
    await_met(engine, row.instance, root_met(&engine->root, row.instance) + MISSES_AND_ONE);
    remove_vm(engine, "wedged");
    remove_vm(engine, "well");
    CHECK(engine->hung_agents == 1);
}

static void an_agent_that_hangs_ends_its_vm_where_that_was_asked_for(struct engine *engine)
{
    struct store_vm row;
    engine->on_unresponsive = STORE_DELETE;
    run(engine, "wedged", (struct plan){.fail = AT_ASK}, &row);
    engine_empty(engine);
    engine_ended(engine, "wedged", STORE_EXITED, "unresponsive");
    CHECK(engine->hung_agents == 1 && engine->hung_vmms == 0);
}

/* More of them than there are watchers: each is waited for, and the one behind them is reached. */
static void many_that_hang_do_not_hide_one(struct engine *engine)
{
    enum { MANY = 2 * VMM_WATCHERS };
    struct store_vm row;
    char id[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof(id), "wedged-%d", i);
        run(engine, id, (struct plan){.fail = AT_ASK}, &row);
    }
    run(engine, "hangs", (struct plan){.fail = AT_ALIVE}, &row);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (engine->hung_vmms == 0) {
        CHECK(clock_mono_ms() < deadline);
        poll(NULL, 0, LOOK_MS);
    }
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof(id), "wedged-%d", i);
        remove_vm(engine, id);
    }
    engine_empty(engine);
    engine_ended(engine, "hangs", STORE_EXITED, "unresponsive");
}

/* Two answers of three fail to come, one after the other: never three. */
static void who_answers_now_and_then_does_not_hang(struct engine *engine)
{
    enum { ROUND = 3, ENOUGH = 2 * ROUND };
    struct store_vm vmm, wedged;
    run(engine, "vmm", (struct plan){.fail = AT_ALIVE, .spare = ROUND}, &vmm);
    run(engine, "agent", (struct plan){.fail = AT_ASK, .spare = ROUND}, &wedged);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (root_met(&engine->root, vmm.instance) < ENOUGH ||
           root_met(&engine->root, wedged.instance) < ENOUGH) {
        CHECK(clock_mono_ms() < deadline);
        CHECK(engine->hung_vmms == 0 && engine->hung_agents == 0);
        poll(NULL, 0, LOOK_MS);
    }
    CHECK(agent(engine, "vmm") == STORE_AGENT_RESPONSIVE);
    CHECK(agent(engine, "agent") == STORE_AGENT_RESPONSIVE);
    remove_vm(engine, "vmm");
    remove_vm(engine, "agent");
    CHECK(engine->hung_vmms == 0 && engine->hung_agents == 0);
}

int main(void)
{
    static engine_test *const tests[] = {
        a_vmm_that_hangs_is_killed,
        a_vmm_that_says_it_is_another_is_killed,
        a_vmm_that_dies_when_asked_has_crashed,
        an_agent_that_hangs_is_told_and_kept,
        an_agent_that_hangs_ends_its_vm_where_that_was_asked_for,
        many_that_hang_do_not_hide_one,
        who_answers_now_and_then_does_not_hang,
    };
    return engine_run(tests, COUNT_OF(tests));
}
