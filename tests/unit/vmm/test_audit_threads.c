/*
 * What the engine writes into a VM's audit (R24): each life as it went, a violation recognised in
 * every way it can be met, counted once, and not believed from a guest. A plain program, so that
 * ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/engine.h"

#include <signal.h>
#include <sqlite3.h>

enum { BAD_SYSCALL = 148 << 8, SOCKET = 41 };

/* The audit's kinds are exactly these words; `detail` stands in an entry of the kind it is behind. */
static void audited(struct engine *engine, const char *id, const char *words, const char *detail)
{
    const struct store_audit_filter filter = {"owner", id, 0, STORE_AUDIT_VM_MAX};
    struct store_audit *entries = NULL;
    struct error err = {0};
    char kinds[1024] = "";
    size_t count = 0;
    bool more = false, found = detail == NULL;
    CHECK(store_audit_list(engine->fixture.store, &filter, &entries, &count, &more, &err) == 0);
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(kinds);
        snprintf(kinds + len, sizeof(kinds) - len, "%s%s", i == 0 ? "" : " ",
                 store_audit_kind_name(entries[i].kind));
        found = found || strcmp(entries[i].detail, detail) == 0;
    }
    if (strcmp(kinds, words) != 0 || !found) {
        for (size_t i = 0; i < count; i++)
            fprintf(stderr, "%s %s\n", store_audit_kind_name(entries[i].kind), entries[i].detail);
        fprintf(stderr, "%s: wanted `%s` with %s\n", id, words, detail == NULL ? "" : detail);
        abort();
    }
    free(entries);
}

static void run(struct engine *engine, const char *id, struct plan plan, struct store_vm *ret)
{
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, 60, ret, &err) == 0);
}

static void crash(struct engine *engine, const struct store_vm *row)
{
    root_crash(&engine->root, row->instance);
    engine_empty(engine);
}

#define LIFE "created guards_checked running "
#define PROVEN                                                                                     \
    "{\"number\":41,\"syscall\":\"socket\",\"thread\":\"fc_vcpu 0\",\"known_by\":\"exit_status\"}"
#define CLAIMED                                                                                    \
    "{\"number\":41,\"syscall\":\"socket\",\"thread\":\"fc_vcpu 0\",\"known_by\":\"log\"}"
#define UNNAMED "{\"number\":null,\"syscall\":null,\"thread\":null,\"known_by\":\"exit_status\"}"

static void a_violation_is_recognised_and_named(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "named", (struct plan){.blocked = SOCKET, .status = BAD_SYSCALL}, &row);
    crash(engine, &row);
    engine_ended(engine, "named", STORE_EXITED, "seccomp");
    CHECK(store_vm_get(engine->fixture.store, "owner", "named", &row, &err) < 0);
    CHECK(strstr(err.msg, "socket (41), in thread fc_vcpu 0") != NULL);
    audited(engine, "named", LIFE "seccomp_violation vmm_exited ended", PROVEN);
    CHECK(engine->violations == 1 && engine->last_violation == SOCKET);
    run(engine, "unnamed", (struct plan){.status = SIGSYS}, &row);
    crash(engine, &row);
    engine_ended(engine, "unnamed", STORE_EXITED, "seccomp");
    audited(engine, "unnamed", LIFE "seccomp_violation vmm_exited ended", UNNAMED);
    CHECK(engine->violations == 2 && engine->last_violation == -1);
}

/* Its serial port ends where Firecracker's standard output does, and it may write what it likes. */
static void a_guests_word_is_none(struct engine *engine)
{
    char line[256];
    struct store_vm row;
    static const struct {
        struct plan plan;
        const char *reason;
    } ends[] = {{{.status = 1 << 8}, "vmm_exit"}, {{.no_status = true}, "vmm_crash"}};
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        run(engine, "liar", ends[i].plan, &row);
        snprintf(line, sizeof(line),
                 "\n2026-11-26T14:14:29.734500777 [%s:main] Shutting down VM after intercepting a "
                 "bad syscall (41).\n",
                 row.instance);
        root_say(&engine->root, row.instance, line);
        crash(engine, &row);
        engine_ended(engine, "liar", STORE_EXITED, ends[i].reason);
        audited(engine, "liar", LIFE "vmm_exited ended", NULL);
    }
    CHECK(engine->violations == 0);
}

static void an_adopted_vms_log_is_a_claim(struct engine *engine)
{
    struct store_vm row;
    run(engine, "adopted", (struct plan){.blocked = SOCKET, .no_status = true}, &row);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    crash(engine, &row);
    engine_ended(engine, "adopted", STORE_EXITED, "seccomp");
    audited(engine, "adopted", LIFE "adopted seccomp_violation vmm_exited ended", CLAIMED);
    CHECK(engine->violations == 1);
    run(engine, "silent", (struct plan){.no_log = true, .no_status = true}, &row);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    crash(engine, &row);
    engine_ended(engine, "silent", STORE_EXITED, "vmm_exit");
}

static void a_violation_during_a_spawn_is_told(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root,
              (struct plan){.die = AT_HELLO, .blocked = SOCKET, .status = BAD_SYSCALL});
    CHECK(engine_spawn(engine, "early", 60, &row, &err) < 0);
    engine_empty(engine);
    engine_ended(engine, "early", STORE_FAILED, "spawn_hello");
    audited(engine, "early", "created guards_checked seccomp_violation vmm_exited ended", PROVEN);
    CHECK(engine->violations == 1);
}

static void a_delete_has_no_violation(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    run(engine, "deleted", (struct plan){.blocked = SOCKET}, &row);
    CHECK(vmm_delete(engine->vmm, "owner", "deleted", &err) == 0);
    audited(engine, "deleted", LIFE "ended", "{\"state\":\"exited\",\"reason\":\"deleted\"}");
    CHECK(engine->violations == 0);
}

static void an_agent_that_breaks_the_protocol_is_told(struct engine *engine)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root, (struct plan){.lie = AT_HELLO});
    CHECK(engine_spawn(engine, "first", 60, &row, &err) < 0 && err.code == ERR_GUEST_PROTOCOL);
    audited(engine, "first", "created guards_checked guest_protocol ended",
            "{\"during\":\"hello\"}");
    run(engine, "later", (struct plan){.lie = AT_EXEC}, &row);
    err = (struct error){0};
    CHECK(engine_exec(engine, "later", &err) < 0 && err.code == ERR_GUEST_PROTOCOL);
    audited(engine, "later", LIFE "guest_protocol", "{\"during\":\"exec\"}");
    err = (struct error){0};
    CHECK(vmm_delete(engine->vmm, "owner", "later", &err) == 0);
    engine->on_unresponsive = STORE_DELETE;
    run(engine, "last", (struct plan){.lie = AT_ASK}, &row);
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    engine_empty(engine);
    engine_ended(engine, "last", STORE_EXITED, "unresponsive");
    audited(engine, "last", LIFE "adopted guest_protocol unresponsive ended",
            "{\"during\":\"watch\"}");
    engine->on_unresponsive = STORE_KEEP;
}

/* Neither a KILL nor a store that fails makes it two, or none. */
static void a_violation_is_told_once(struct engine *engine)
{
    struct store_vm row;
    sqlite3 *other = NULL;
    char path[64];
    run(engine, "again",
        (struct plan){.blocked = SOCKET, .status = BAD_SYSCALL, .kill_failures = 1}, &row);
    crash(engine, &row);
    audited(engine, "again", LIFE "seccomp_violation vmm_exited ended", PROVEN);
    CHECK(engine->violations == 1);

    run(engine, "locked", (struct plan){.blocked = SOCKET, .status = BAD_SYSCALL}, &row);
    snprintf(path, sizeof(path), "%s/motte.db", engine->fixture.dir);
    CHECK(sqlite3_open(path, &other) == SQLITE_OK);
    CHECK(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL) == SQLITE_OK);
    struct vmm_machine *machine = vmm_machine_find(engine->vmm, row.instance);
    root_crash(&engine->root, row.instance);
    pthread_mutex_lock(&engine->vmm->lock);
    while (!machine->doomed)
        pthread_cond_wait(&engine->vmm->changed, &engine->vmm->lock);
    pthread_mutex_unlock(&engine->vmm->lock);
    vmm_machine_unref(engine->vmm, machine);
    CHECK(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL) == SQLITE_OK);
    sqlite3_close(other);
    engine_empty(engine);
    audited(engine, "locked", LIFE "seccomp_violation vmm_exited ended", PROVEN);
    CHECK(engine->violations == 2 && engine->audits_lost == 0);
}

int main(void)
{
    static engine_test *const tests[] = {
        a_violation_is_recognised_and_named,
        a_guests_word_is_none,
        an_adopted_vms_log_is_a_claim,
        a_violation_during_a_spawn_is_told,
        a_delete_has_no_violation,
        an_agent_that_breaks_the_protocol_is_told,
        a_violation_is_told_once,
    };
    return engine_run(tests, COUNT_OF(tests));
}
