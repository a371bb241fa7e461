/* When VMs end by themselves, and what nobody owns any more (R02): TTL, idleness, orphans, over
 * restarts and whatever the wall clock does. A plain program, so that ThreadSanitizer can run it. */
#include "tests/unit/vmm/engine.h"

#include <poll.h>
#include <sys/syscall.h>
#include <time.h>

enum { YEAR_S = 366 * 86400 };

/* In the place of libc's: the wall clock can be set. */
static atomic_llong wall_offset_s;

int clock_gettime(clockid_t clock, struct timespec *ret)
{
    int result = (int)syscall(SYS_clock_gettime, clock, ret);
    if (clock == CLOCK_REALTIME)
        ret->tv_sec += atomic_load(&wall_offset_s);
    return result;
}

static void run(struct engine *engine, const char *id, int64_t ttl_s, struct plan plan,
                struct store_vm *ret)
{
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, ttl_s, ret, &err) == 0);
}

static bool lives(struct engine *engine, const char *id, struct store_vm *ret)
{
    struct error err = {0};
    return store_vm_get(engine->fixture.store, "owner", id, ret, &err) == 0;
}

/* Returns when it has ended; the milliseconds that took. */
static int64_t await_end(struct engine *engine, const char *id)
{
    struct store_vm row;
    int64_t begin = clock_mono_ms();
    while (lives(engine, id, &row)) {
        CHECK(clock_mono_ms() - begin < PATIENCE_MS);
        poll(NULL, 0, LOOK_MS);
    }
    return clock_mono_ms() - begin;
}

static void remove_vm(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

static void only_a_keepalive_prolongs_a_life(struct engine *engine)
{
    struct store_vm row, kept;
    struct error err = {0};
    run(engine, "kept", 2, (struct plan){0}, &row);
    run(engine, "used", 2, (struct plan){0}, &row);
    CHECK(vmm_keepalive(engine->vmm, "owner", "kept", 60, &kept, &err) == 0);
    CHECK(kept.expires_boot_ms >= clock_boot_ms() + 55000);
    CHECK(kept.expires_boot_ms <= clock_boot_ms() + 60000);
    CHECK(llabs(kept.expires_wall_ms - clock_wall_ms() - 60000) < 5000);
    int64_t end = kept.expires_boot_ms;
    CHECK(vmm_keepalive(engine->vmm, "owner", "kept", 0, &kept, &err) == 0);
    CHECK(kept.expires_boot_ms == end); /* its own two seconds take nothing away */
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (lives(engine, "used", &kept)) {
        CHECK(clock_mono_ms() < deadline);
        CHECK(kept.expires_boot_ms == row.expires_boot_ms);
        err = (struct error){0}; /* the last one meets its end */
        (void)engine_exec(engine, "used", &err);
    }
    engine_ended(engine, "used", STORE_EXITED, "ttl");
    err = (struct error){0};
    CHECK(vmm_keepalive(engine->vmm, "owner", "used", 60, &kept, &err) < 0);
    CHECK(err.code == ERR_VM_GONE);
    /* The longer life is known to the next start. */
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(lives(engine, "kept", &row) && row.expires_boot_ms == end);
    remove_vm(engine, "kept");
}

static void what_no_command_runs_in_is_idle(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "never", 60, (struct plan){0}, &row);
    engine->idle_s = 2;
    run(engine, "idle", 60, (struct plan){0}, &row);
    run(engine, "kept", 60, (struct plan){0}, &row);
    int64_t begin = clock_mono_ms();
    while (lives(engine, "idle", &row)) {
        CHECK(clock_mono_ms() - begin < PATIENCE_MS);
        CHECK(vmm_keepalive(engine->vmm, "owner", "kept", 0, &row, &err) == 0);
    }
    CHECK(clock_mono_ms() - begin > 1500);
    engine_ended(engine, "idle", STORE_EXITED, "idle");
    CHECK(await_end(engine, "kept") > 1000); /* two seconds after the last of them */
    engine_ended(engine, "kept", STORE_EXITED, "idle");
    CHECK(lives(engine, "never", &row));
    remove_vm(engine, "never");
}

struct command {
    struct engine *engine;
    pthread_t thread;
};

static void *exec_main(void *context)
{
    struct command *command = context;
    struct error err = {0};
    CHECK(engine_exec(command->engine, "busy", &err) < 0 && err.code == ERR_VM_GONE);
    return NULL;
}

/* It has a command that does not end, and another VM of the same kind ends beside it. */
static void what_a_command_runs_in_is_not(struct engine *engine)
{
    struct command command = {.engine = engine};
    struct store_vm row;
    engine->idle_s = 1;
    run(engine, "busy", 60, (struct plan){.fail = AT_EXEC}, &row);
    CHECK(pthread_create(&command.thread, NULL, exec_main, &command) == 0);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (lives(engine, "busy", &row) && row.idle_since_boot_ms != 0)
        CHECK(clock_mono_ms() < deadline);
    run(engine, "idle", 60, (struct plan){0}, &row);
    (void)await_end(engine, "idle");
    CHECK(lives(engine, "busy", &row) && row.idle_since_boot_ms == 0);
    remove_vm(engine, "busy");
    CHECK(pthread_join(command.thread, NULL) == 0);
}

/* Nobody watches while the service is away; the time passes all the same. */
static void idleness_outlives_a_restart(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    engine->idle_s = 3;
    run(engine, "idle", 60, (struct plan){0}, &row);
    run(engine, "busy", 60, (struct plan){0}, &row);
    /* As when the service dies while a command runs. */
    CHECK(store_vm_idle(engine->fixture.store, row.instance, 0, &err) == 0);
    engine_stop(engine);
    poll(NULL, 0, 1500);
    CHECK(engine_restart(engine).adopted == 2);
    CHECK(await_end(engine, "idle") < 2800);
    CHECK(await_end(engine, "busy") > 500);
    engine_ended(engine, "idle", STORE_EXITED, "idle");
    engine_ended(engine, "busy", STORE_EXITED, "idle");
}

static void setting_the_wall_clock_ends_and_spares_nobody(struct engine *engine)
{
    struct store_vm row, other;
    engine->idle_s = 2;
    run(engine, "idle", 60, (struct plan){0}, &row);
    engine->idle_s = 0;
    run(engine, "hour", 3600, (struct plan){0}, &row);
    int64_t begin = clock_wall_ms();
    atomic_store(&wall_offset_s, YEAR_S);
    CHECK(clock_wall_ms() - begin >= INT64_C(1000) * YEAR_S);
    run(engine, "brief", 2, (struct plan){0}, &other);
    atomic_store(&wall_offset_s, -YEAR_S);
    CHECK(await_end(engine, "brief") < 6000);
    (void)await_end(engine, "idle");
    atomic_store(&wall_offset_s, YEAR_S);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    run(engine, "after", 1, (struct plan){0}, &other);
    (void)await_end(engine, "after");
    CHECK(lives(engine, "hour", &other) && other.expires_boot_ms == row.expires_boot_ms);
    remove_vm(engine, "hour");
    engine_ended(engine, "brief", STORE_EXITED, "ttl");
    engine_ended(engine, "idle", STORE_EXITED, "idle");
    atomic_store(&wall_offset_s, 0);
}

/* As after a commit that failed and was written all the same. */
static void a_row_without_a_vm_is_let_go(struct engine *engine)
{
    struct store_vm orphan = fixture_vm("owner", "orphan"), row;
    struct error err = {0};
    run(engine, "here", 60, (struct plan){0}, &row);
    CHECK(store_vm_insert(engine->fixture.store, &orphan, &err) == 0);
    (void)await_end(engine, "orphan");
    engine_ended(engine, "orphan", STORE_LOST, "lost");
    CHECK(lives(engine, "here", &row) && row.state == STORE_RUNNING);
    remove_vm(engine, "here");
}

/* The reaper of a front that has not recovered yet leaves the sweep to the test. */
static void a_sweep_that_fails_is_made_again(struct engine *engine)
{
    struct store_vm orphan = fixture_vm("owner", "orphan"), row;
    struct error err = {0};
    engine_stop(engine);
    engine_resume(engine);
    CHECK(store_vm_insert(engine->fixture.store, &orphan, &err) == 0);
    engine_sql(engine, "ALTER TABLE vms RENAME TO elsewhere");
    vmm_sweep(engine->vmm);
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO vms");
    CHECK(lives(engine, "orphan", &row));
    sqlite3 *other = engine_connect(engine);
    CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    vmm_sweep(engine->vmm);
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    CHECK(lives(engine, "orphan", &row));
    vmm_sweep(engine->vmm);
    engine_ended(engine, "orphan", STORE_LOST, "lost");
}

/* As if the host had been up for another 31 days, and the last look were an hour ago. */
static void old_certificates_are_let_go(struct engine *engine)
{
    enum { HOUR_MS = 3600 * 1000 };
    const int64_t month_ms = INT64_C(31) * 24 * HOUR_MS;
    struct error err = {0};
    engine_stop(engine);
    engine_resume(engine);
    struct store *store = engine->fixture.store;
    fixture_end(store, fixture_add(store, "owner", "old").instance);
    CHECK(store_age(store, engine->vmm->boot, clock_boot_ms() - month_ms, 2 * month_ms, &err) == 0);
    engine->vmm->aged_ms = clock_mono_ms() - HOUR_MS + PATIENCE_MS;
    vmm_sweep(engine->vmm);
    engine_ended(engine, "old", STORE_EXITED, "deleted");
    engine->vmm->aged_ms = clock_mono_ms() - HOUR_MS;
    vmm_sweep(engine->vmm);
    struct store_vm row;
    CHECK(store_vm_get(store, "owner", "old", &row, &err) < 0 && err.code == ERR_VM_UNKNOWN);
    CHECK(clock_mono_ms() - engine->vmm->aged_ms < HOUR_MS / 2);
}

static bool doomed(struct engine *engine, const char *instance)
{
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, instance);
    CHECK(machine != NULL);
    pthread_mutex_lock(&engine->vmm->lock);
    bool result = machine->doomed;
    pthread_mutex_unlock(&engine->vmm->lock);
    vmm_machine_unref(engine->vmm, machine);
    return result;
}

/* Its time is over, and the root half cannot end it: no caller is told that it lives on. */
static void what_ends_already_is_not_kept_alive(struct engine *engine)
{
    enum { FAILURES = 3 };
    struct store_vm row, kept;
    struct error err = {0};
    run(engine, "over", 1, (struct plan){.kill_failures = FAILURES}, &row);
    int64_t begin = clock_mono_ms();
    while (!doomed(engine, row.instance)) {
        CHECK(clock_mono_ms() - begin < PATIENCE_MS);
        poll(NULL, 0, LOOK_MS);
    }
    CHECK(vmm_keepalive(engine->vmm, "owner", "over", 60, &kept, &err) < 0);
    CHECK(err.code == ERR_VM_NOT_RUNNING);
    (void)await_end(engine, "over");
    CHECK(clock_mono_ms() - begin > FAILURES * 1000); /* a rest before each try */
    engine_ended(engine, "over", STORE_EXITED, "ttl");
}

/* Until the root half has said what runs, no row is without a VM. */
static void before_recovery_no_row_is_let_go(struct engine *engine)
{
    struct vmm_recovered recovered;
    struct store_vm row;
    struct error err = {0};
    run(engine, "here", 60, (struct plan){0}, &row);
    engine_stop(engine);
    engine_resume(engine);
    poll(NULL, 0, 1500); /* the reaper looks at once, and each second */
    CHECK(lives(engine, "here", &row));
    CHECK(vmm_recover(engine->vmm, &recovered, &err) == 0 && recovered.adopted == 1);
    remove_vm(engine, "here");
}

/* The reaper knows of a drain that was lifted a moment ago. */
static void a_drain_that_is_no_more_ends_nobody(struct engine *engine)
{
    struct store_vm row, kept;
    struct error err = {0};
    run(engine, "stays", 60, (struct plan){0}, &row);
    pthread_mutex_lock(&engine->vmm->lock);
    engine->vmm->evict_boot_ms = 1;
    pthread_cond_broadcast(&engine->vmm->changed);
    pthread_mutex_unlock(&engine->vmm->lock);
    int64_t begin = clock_mono_ms();
    for (int64_t known = 1; known != 0; poll(NULL, 0, LOOK_MS)) {
        CHECK(clock_mono_ms() - begin < PATIENCE_MS);
        pthread_mutex_lock(&engine->vmm->lock);
        known = engine->vmm->evict_boot_ms;
        pthread_mutex_unlock(&engine->vmm->lock);
    }
    CHECK(lives(engine, "stays", &row) && row.state == STORE_RUNNING);
    CHECK(vmm_keepalive(engine->vmm, "owner", "stays", 60, &kept, &err) == 0);
    remove_vm(engine, "stays");
}

int main(void)
{
    static engine_test *const tests[] = {
        only_a_keepalive_prolongs_a_life,
        what_no_command_runs_in_is_idle,
        what_a_command_runs_in_is_not,
        idleness_outlives_a_restart,
        setting_the_wall_clock_ends_and_spares_nobody,
        a_row_without_a_vm_is_let_go,
        a_sweep_that_fails_is_made_again,
        old_certificates_are_let_go,
        what_ends_already_is_not_kept_alive,
        before_recovery_no_row_is_let_go,
        a_drain_that_is_no_more_ends_nobody,
    };
    return engine_run(tests, COUNT_OF(tests));
}
