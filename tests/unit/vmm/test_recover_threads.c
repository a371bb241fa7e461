/*
 * What a restart finds (R02, R20): VMs that agree with the inventory are adopted, whatever their
 * adoption lacked goes on, and everything else is undone. A plain program, so that ThreadSanitizer
 * can run it.
 */
#include "tests/unit/base/refuse.h"
#include "tests/unit/vmm/engine.h"

#include <errno.h>

enum { MANY = 9 }; /* with their instances more than recovery has threads */

static void run(struct engine *engine, const char *id, struct store_vm *ret)
{
    struct error err = {0};
    CHECK(engine_spawn(engine, id, 600, ret, &err) == 0);
}

static void remove_vm(struct engine *engine, const char *id)
{
    struct error err = {0};
    CHECK(vmm_delete(engine->vmm, "owner", id, &err) == 0);
}

/* Recovery fails; the front ends of it. */
static void recovery_fails(struct engine *engine, enum error_code code, const char *words)
{
    struct vmm_recovered recovered;
    struct error err = {0};
    engine_resume(engine);
    CHECK(vmm_recover(engine->vmm, &recovered, &err) < 0);
    if (err.code != code || strstr(err.msg, words) == NULL) {
        fprintf(stderr, "wanted `%s`, have %s: %s\n", words, error_code_name(err.code), err.msg);
        abort();
    }
    engine_stop(engine);
}

/* ---- rows ---- */

static void add_row(struct engine *engine, const char *id, const char *boot, const char *instance,
                    bool running)
{
    struct store_vm row = fixture_vm("owner", id);
    struct error err = {0};
    snprintf(row.boot, sizeof(row.boot), "%s", boot);
    if (instance != NULL)
        snprintf(row.instance, sizeof(row.instance), "%s", instance);
    CHECK(store_vm_insert(engine->fixture.store, &row, &err) == 0);
    CHECK(!running || store_vm_running(engine->fixture.store, &row, &err) == 0);
}

static void what_no_longer_runs_is_undone(struct engine *engine)
{
    static const char earlier[] = "01234567-89ab-cdef-0123-456789abcdef";
    const struct priv_shape shape = {.vcpus = 1, .memory_mib = 128};
    char instance[ID_INSTANCE_SIZE], chain[PRIV_CHAIN_SIZE], boot[ID_BOOT_SIZE];
    struct error err = {0};
    uint32_t uid;
    memcpy(boot, engine->vmm->boot, sizeof(boot));
    CHECK(priv_reserve(engine->client, instance, chain, &uid, &err) == 0);
    CHECK(priv_guard(engine->client, instance, &shape, &err) == 0);
    engine_stop(engine);
    CHECK(fixture_reopen(&engine->fixture, &err) == 0);
    add_row(engine, "rebooted", earlier, NULL, true);
    add_row(engine, "half", boot, NULL, false);
    add_row(engine, "vanished", boot, NULL, true);
    add_row(engine, "guarded", boot, instance, true);
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.adopted == 0 && recovered.lost == 3 && recovered.undone == 1);
    engine_ended(engine, "rebooted", STORE_LOST, "host_reboot");
    engine_ended(engine, "half", STORE_FAILED, "daemon_restart");
    engine_ended(engine, "vanished", STORE_LOST, "vmm_exit");
    engine_ended(engine, "guarded", STORE_LOST, "vmm_exit");
    CHECK(root_live(&engine->root) == 0);
}

static void a_command_that_ran_when_the_front_died_is_over(struct engine *engine)
{
    struct store_vm ever, idle, row;
    struct error err = {0};
    run(engine, "ever", &ever);
    engine->idle_s = 60;
    run(engine, "idle", &idle);
    CHECK(store_vm_idle(engine->fixture.store, ever.instance, 0, &err) == 0);
    CHECK(store_vm_idle(engine->fixture.store, idle.instance, 0, &err) == 0);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 2);
    CHECK(store_vm_get(engine->fixture.store, "owner", "idle", &row, &err) == 0);
    CHECK(row.idle_since_boot_ms > 0);
    CHECK(store_vm_get(engine->fixture.store, "owner", "ever", &row, &err) == 0);
    CHECK(row.idle_since_boot_ms == 0); /* nobody needs it */
    remove_vm(engine, "ever");
    remove_vm(engine, "idle");
}

/* ---- inventories ---- */

static void an_inventory_that_knows_nobody_is_not_used(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    struct fixture own = engine->fixture, other;
    run(engine, "known", &row);
    engine_stop(engine);
    store_close(own.store);
    CHECK(fixture_open(&other, &err) == 0);
    engine->fixture = other;
    recovery_fails(engine, ERR_STORE, "knows none of the 1 VMs that run");
    engine_sql(engine, "ALTER TABLE certificates RENAME TO elsewhere");
    recovery_fails(engine, ERR_STORE, "certificates");
    CHECK(root_live(&engine->root) == 1);
    fixture_release(&engine->fixture);
    own.store = NULL;
    engine->fixture = own;
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(engine_exec(engine, "known", &err) == 0);
    remove_vm(engine, "known");
}

/* Its end was written, and its VMM was not killed. */
static void one_with_a_certificate_alone_is_undone(struct engine *engine)
{
    struct store_vm row;
    run(engine, "certified", &row);
    engine_stop(engine);
    struct error err = {0};
    CHECK(fixture_reopen(&engine->fixture, &err) == 0);
    fixture_end(engine->fixture.store, row.instance);
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.undone == 1 && recovered.adopted == 0);
    CHECK(root_live(&engine->root) == 0);
    engine_ended(engine, "certified", STORE_EXITED, "deleted");
}

static void nothing_is_concluded_from_what_cannot_be_read(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "spared", &row);
    engine_stop(engine);
    engine_sql(engine, "ALTER TABLE vms RENAME TO elsewhere");
    recovery_fails(engine, ERR_STORE, "vms");
    engine_sql(engine, "ALTER TABLE elsewhere RENAME TO vms");
    engine_sql(engine, "ALTER TABLE audit_size RENAME COLUMN boot TO elsewhere");
    recovery_fails(engine, ERR_STORE, "boot");
    engine_sql(engine, "ALTER TABLE audit_size RENAME COLUMN elsewhere TO boot");
    engine->root.no_list = true;
    recovery_fails(engine, ERR_INTERNAL, "scripted refusal");
    engine->root.no_list = false;
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(engine_exec(engine, "spared", &err) == 0);
    remove_vm(engine, "spared");
}

/* ---- adoption ---- */

static const enum moment looks[] = {AT_OPEN_PIDFD, AT_OPEN_CONSOLE, AT_OPEN_LOG,
                                    AT_CHECK,      AT_OPEN_API,     AT_OPEN_VSOCK};

/* Two, because one of them is what the error tells. */
static void a_vm_is_not_given_up_for_our_want(struct engine *engine)
{
    struct store_vm rows[2];
    struct error err = {0};
    run(engine, "a", &rows[0]);
    run(engine, "b", &rows[1]);
    engine_stop(engine);
    for (size_t i = 0; i < COUNT_OF(looks); i++) {
        const struct plan lacking = {.fail = looks[i], .code = ERR_SYSTEM, .sys = EMFILE};
        root_replan(&engine->root, rows[0].instance, lacking);
        root_replan(&engine->root, rows[1].instance, lacking);
        recovery_fails(engine, ERR_SYSTEM, "runs, and cannot be adopted now");
        CHECK(root_live(&engine->root) == 2);
    }
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        root_replan(&engine->root, rows[i].instance, (struct plan){0});
    CHECK(engine_restart(engine).adopted == 2);
    CHECK(engine_exec(engine, "a", &err) == 0 && engine_exec(engine, "b", &err) == 0);
    remove_vm(engine, "a");
    remove_vm(engine, "b");
}

static void what_hindered_may_pass(struct engine *engine)
{
    static const int passing[] = {EMFILE, EIO};
    struct store_vm row;
    struct error err = {0};
    run(engine, "spared", &row);
    for (size_t i = 0; i < COUNT_OF(passing); i++) {
        engine_stop(engine);
        root_replan(&engine->root, row.instance,
                    (struct plan){
                        .fail = AT_OPEN_PIDFD, .code = ERR_SYSTEM, .sys = passing[i], .times = 2});
        CHECK(engine_restart(engine).adopted == 1);
        CHECK(engine_exec(engine, "spared", &err) == 0);
    }
    remove_vm(engine, "spared");
}

/* Why it is lost: it was there, and was not as it should be; or it was just ending. */
static void one_that_cannot_be_adopted_is_lost(struct engine *engine)
{
    static const struct {
        struct plan plan;
        const char *reason;
    } cases[] = {
        {{.fail = AT_OPEN_PIDFD}, "daemon_restart"},
        {{.fail = AT_OPEN_CONSOLE}, "daemon_restart"},
        {{.fail = AT_CHECK}, "daemon_restart"},
        {{.fail = AT_OPEN_API}, "daemon_restart"},
        {{.fail = AT_OPEN_PIDFD, .code = ERR_SYSTEM, .sys = EIO}, "daemon_restart"},
        {{.die = AT_CHECK}, "vmm_crash"},
        {{.die = AT_CHECK, .fail = AT_CHECK, .code = ERR_SYSTEM, .sys = ESRCH}, "vmm_crash"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct store_vm row;
        run(engine, "doomed", &row);
        engine_stop(engine);
        root_replan(&engine->root, row.instance, cases[i].plan);
        struct vmm_recovered recovered = engine_restart(engine);
        CHECK(recovered.lost == 1 && recovered.adopted == 0);
        engine_ended(engine, "doomed", STORE_LOST, cases[i].reason);
        CHECK(root_live(&engine->root) == 0);
    }
}

/* With as many threads as recovery has at most, and with none but its own. */
static void many_are_adopted_at_once_or_one_by_one(struct engine *engine)
{
    struct store_vm row;
    char id[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof(id), "vm-%d", i);
        run(engine, id, &row);
    }
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == MANY);
    engine_stop(engine);
    struct vmm_recovered recovered;
    struct error err = {0};
    engine_resume(engine);
    refuse(REFUSE_PTHREAD_CREATE, (struct refusal){.times = MANY, .sys = EAGAIN});
    CHECK(vmm_recover(engine->vmm, &recovered, &err) == 0);
    CHECK(recovered.adopted == MANY && refused(REFUSE_PTHREAD_CREATE) == 1);
    refuse_nothing();
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof(id), "vm-%d", i);
        remove_vm(engine, id);
    }
}

/* ---- our own wants, and the end of it ---- */

/* The n-th of these calls fails, for each n that there is. */
static void recover_short_of(struct engine *engine, enum refusable call)
{
    for (unsigned n = 0, more = 1; more > 0; n++) {
        struct vmm_recovered recovered;
        struct error err = {0};
        engine_resume(engine);
        refuse(REFUSE_PTHREAD_CREATE, (struct refusal){.times = 1, .sys = EAGAIN});
        refuse(call, (struct refusal){.after = n, .times = 1, .sys = ENOMEM});
        int result = vmm_recover(engine->vmm, &recovered, &err);
        more = refused(call);
        refuse_nothing();
        CHECK(result < 0 ? more > 0 && error_is_shortage(&err) : recovered.adopted == 1);
        CHECK(root_live(&engine->root) == 1);
        engine_stop(engine);
    }
}

static void recovery_survives_every_want_of_memory(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "spared", &row);
    engine_stop(engine);
    recover_short_of(engine, REFUSE_CALLOC);
    recover_short_of(engine, REFUSE_REALLOC);
    CHECK(engine_restart(engine).adopted == 1);
    CHECK(engine_exec(engine, "spared", &err) == 0);
    remove_vm(engine, "spared");
}

/* A row, and an instance without one. */
static void what_could_not_be_undone_is_told_and_tried_again(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    char instance[ID_INSTANCE_SIZE], chain[PRIV_CHAIN_SIZE];
    uint32_t uid;
    run(engine, "leaving", &row);
    CHECK(priv_reserve(engine->client, instance, chain, &uid, &err) == 0);
    CHECK(store_vm_deleting(engine->fixture.store, "owner", "leaving", &row, &err) == 0);
    root_kill_failures(&engine->root, row.instance, 1);
    root_kill_failures(&engine->root, instance, 1);
    engine_stop(engine);
    recovery_fails(engine, ERR_INTERNAL, "2 VMs could not be cleaned up");
    CHECK(engine_restart(engine).undone == 2);
    engine_ended(engine, "leaving", STORE_EXITED, "deleted");
    CHECK(root_live(&engine->root) == 0);
}

/* QEMU has no log to open, and its exit statuses stand for no signal. */
static void a_host_with_qemu_recovers_likewise(struct engine *engine)
{
    struct store_vm row;
    run(engine, "kept", &row);
    root_plan(&engine->root, (struct plan){.status = 157 << 8}); /* SIGILL, if Firecracker's */
    run(engine, "crashed", &row);
    engine_stop(engine);
    root_crash(&engine->root, row.instance);
    engine->root.hypervisor = PRIV_QEMU;
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.adopted == 1 && recovered.lost == 1);
    engine_ended(engine, "crashed", STORE_LOST, "vmm_exit");
    remove_vm(engine, "kept");
}

int main(void)
{
    static engine_test *const tests[] = {
        what_no_longer_runs_is_undone,
        a_command_that_ran_when_the_front_died_is_over,
        an_inventory_that_knows_nobody_is_not_used,
        one_with_a_certificate_alone_is_undone,
        nothing_is_concluded_from_what_cannot_be_read,
        a_vm_is_not_given_up_for_our_want,
        what_hindered_may_pass,
        one_that_cannot_be_adopted_is_lost,
        many_are_adopted_at_once_or_one_by_one,
        recovery_survives_every_want_of_memory,
        what_could_not_be_undone_is_told_and_tried_again,
        a_host_with_qemu_recovers_likewise,
    };
    return engine_run(tests, COUNT_OF(tests));
}
