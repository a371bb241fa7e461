/* Commands that are watched: begun, read, fed and ended from many threads, and what becomes of them
 * when their VM or the front ends (R27, R31). A plain program, so that ThreadSanitizer can run it. */
#include "tests/unit/vmm/engine.h"
#include "vmm/execs.h"

#include <poll.h>

static void run(struct engine *engine, const char *id, struct plan plan)
{
    struct store_vm row;
    struct error err = {0};
    root_plan(&engine->root, plan);
    CHECK(engine_spawn(engine, id, 60, &row, &err) == 0);
}

static int start(struct engine *engine, const char *vm, struct vmm_exec_record *ret,
                 struct error *err)
{
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cJSON_AddItemToArray(argv, cJSON_CreateString("true"));
    const struct vmm_exec_wish wish = {
        .request = {.argv = argv, .timeout_ms = PATIENCE_MS}, .input = "in", .input_len = 2};
    return vmm_exec_start(engine->vmm, "owner", vm, &wish, ret, err);
}

static struct vmm_exec_key key_of(const struct vmm_exec_record *record)
{
    return (struct vmm_exec_key){.owner = "owner", .vm = record->vm, .id = record->id};
}

struct listener {
    struct waker waker;
    int event;
};

static void wake(struct waker *waker)
{
    struct listener *listener = (struct listener *)(void *)waker; /* its first member */
    CHECK(write(listener->event, "x", 1) == 1);
}

/* Listens to the end; false when it is not kept any more. */
static bool hear(struct engine *engine, const struct vmm_exec_key *key, struct vmm_exec_record *ret)
{
    int ends[2];
    char out[16];
    struct vmm_exec *exec = NULL;
    struct error err = {0};
    uint64_t at = 0;
    size_t len = 0, total = 0;
    if (vmm_exec_listen(engine->vmm, key, &exec, &err) < 0)
        return false;
    CHECK(pipe(ends) == 0);
    struct listener listener = {.waker = {.wake = wake}, .event = ends[1]};
    for (enum vmm_exec_news news = VMM_EXEC_STDOUT; news != VMM_EXEC_END;) {
        news = vmm_exec_read(exec, &at, out, sizeof(out), &len, ret, &listener.waker);
        CHECK(news != VMM_EXEC_GAP && news != VMM_EXEC_STDERR);
        if (news == VMM_EXEC_STDOUT)
            total += len;
        if (news == VMM_EXEC_NOTHING)
            CHECK(read(ends[0], out, 1) == 1);
    }
    vmm_exec_unlisten(exec, &listener.waker);
    close(ends[0]);
    close(ends[1]);
    CHECK(total == at && at == ret->output_to);
    return true;
}

static void begins_is_heard_and_ends(struct engine *engine)
{
    struct vmm_exec_record record, other, list[VMM_EXECS_PER_VM];
    struct error err = {0};
    run(engine, "vm", (struct plan){0});
    CHECK(start(engine, "vm", &record, &err) == 0);
    const struct vmm_exec_key key = key_of(&record);
    CHECK(hear(engine, &key, &other));
    CHECK(other.state == VMM_EXEC_EXITED && other.exit.code == 7 && other.output_to == 3);
    CHECK(vmm_exec_wait(engine->vmm, &key, &other, &err) == 0 && !other.input_open);
    CHECK(vmm_exec_list(engine->vmm, record.instance, list) == 1);
    const struct vmm_exec_key others = {.owner = "other", .vm = "vm", .id = record.id};
    CHECK(vmm_exec_get(engine->vmm, &others, &other, &err) < 0 && err.code == ERR_EXEC_UNKNOWN);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &(struct error){0}) == 0);
}

/* Old ones go for new ones. */
static void only_so_many_are_kept(struct engine *engine)
{
    struct vmm_exec_record first, record, list[VMM_EXECS_PER_VM];
    struct error err = {0};
    run(engine, "vm", (struct plan){0});
    CHECK(start(engine, "vm", &first, &err) == 0);
    struct vmm_exec_key key = key_of(&first);
    CHECK(vmm_exec_wait(engine->vmm, &key, &first, &err) == 0);
    for (int i = 0; i < VMM_EXECS_PER_VM; i++) {
        CHECK(start(engine, "vm", &record, &err) == 0);
        key = key_of(&record);
        CHECK(vmm_exec_wait(engine->vmm, &key, &record, &err) == 0);
    }
    CHECK(vmm_exec_list(engine->vmm, record.instance, list) == VMM_EXECS_PER_VM);
    CHECK(strcmp(list[0].id, record.id) == 0);
    key = key_of(&first);
    CHECK(vmm_exec_get(engine->vmm, &key, &record, &err) < 0 && err.code == ERR_EXEC_UNKNOWN);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &(struct error){0}) == 0);
}

static void a_vm_that_ends_is_told(struct engine *engine)
{
    struct vmm_exec_record record;
    struct error err = {0};
    run(engine, "vm", (struct plan){.fail = AT_EXEC});
    CHECK(start(engine, "vm", &record, &err) == 0 && record.state == VMM_EXEC_RUNNING);
    const struct vmm_exec_key key = key_of(&record);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
    CHECK(hear(engine, &key, &record));
    CHECK(record.state == VMM_EXEC_LOST && strcmp(record.reason, "vm_ended") == 0);
}

/* A front that stops waits for none that nobody waits for, and the next knows the ids as old ones. */
static void ends_with_the_front(struct engine *engine)
{
    struct vmm_exec_record record;
    struct error err = {0};
    run(engine, "vm", (struct plan){.fail = AT_EXEC});
    CHECK(start(engine, "vm", &record, &err) == 0);
    const struct vmm_exec_key key = key_of(&record);
    int64_t begin = clock_mono_ms();
    vmm_drain(engine->vmm);
    CHECK(hear(engine, &key, &record));
    CHECK(strcmp(record.reason, "service_stopped") == 0);
    CHECK(clock_mono_ms() - begin < PATIENCE_MS / 2);
    engine_stop(engine);
    (void)engine_restart(engine);
    CHECK(vmm_exec_get(engine->vmm, &key, &record, &err) < 0 && err.code == ERR_EXEC_LOST);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &(struct error){0}) == 0);
}

static void no_agent_that_lies_leaves_one(struct engine *engine)
{
    struct vmm_exec_record record, list[VMM_EXECS_PER_VM];
    struct store_vm row;
    struct error err = {0}, ignored = {0};
    run(engine, "vm", (struct plan){.lie = AT_EXEC});
    CHECK(start(engine, "vm", &record, &err) < 0 && err.code == ERR_GUEST_PROTOCOL);
    CHECK(store_vm_get(engine->fixture.store, "owner", "vm", &row, &ignored) == 0);
    CHECK(vmm_exec_list(engine->vmm, row.instance, list) == 0);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &ignored) == 0);
}

static void an_owner_has_a_quota(struct engine *engine)
{
    struct vmm_exec_record record, other;
    struct error err = {0}, refused = {0};
    const struct store_quotas one = {.common = {.execs = 1}}, none = {0};
    store_quotas_set(engine->fixture.store, &one);
    run(engine, "vm", (struct plan){.fail = AT_EXEC});
    CHECK(start(engine, "vm", &record, &err) == 0);
    CHECK(vmm_exec_running(engine->vmm, "owner") == 1);
    CHECK(start(engine, "vm", &other, &refused) < 0 && refused.code == ERR_QUOTA);
    refused = (struct error){0};
    CHECK(engine_exec(engine, "vm", &refused) < 0 && refused.code == ERR_QUOTA);
    CHECK(vmm_delete(engine->vmm, "owner", "vm", &err) == 0);
    run(engine, "next", (struct plan){0});
    const struct vmm_exec_key key = key_of(&record);
    CHECK(vmm_exec_wait(engine->vmm, &key, &record, &err) == 0);
    CHECK(engine_exec(engine, "next", &err) == 0);
    CHECK(vmm_exec_running(engine->vmm, "owner") == 0);
    store_quotas_set(engine->fixture.store, &none);
    CHECK(vmm_delete(engine->vmm, "owner", "next", &err) == 0);
}

/* One that has ended and wrote `len` bytes, in the way of the thread of one. */
static void leave_record(struct engine *engine, const char *owner, int number, size_t len,
                         char id[static ID_INSTANCE_SIZE])
{
    static const uint8_t bytes[128 * 1024];
    char instance[ID_INSTANCE_SIZE];
    struct vmm_exec *exec = NULL;
    struct error err = {0};
    snprintf(instance, sizeof(instance), "%s%d", owner, number / VMM_EXECS_PER_VM);
    CHECK(vmm_exec_new(engine->vmm, owner, "vm", instance, &exec, &err) == 0);
    close(TAKE_FD(exec->wake));
    pthread_mutex_lock(&engine->vmm->execs->lock);
    vmm_exec_keep(exec, WIRE_STDOUT, bytes, len);
    exec->begun = true;
    exec->record.state = VMM_EXEC_EXITED;
    exec->record.ended_boot_ms = number;
    vmm_exec_stopped(exec);
    memcpy(id, exec->record.id, ID_INSTANCE_SIZE);
    vmm_exec_unref(exec);
    pthread_mutex_unlock(&engine->vmm->execs->lock);
}

static void one_owners_flood_costs_another_nothing(struct engine *engine)
{
    enum { LEN = 128 * 1024 };
    char modest[ID_INSTANCE_SIZE], greedy[ID_INSTANCE_SIZE], first[ID_INSTANCE_SIZE];
    struct vmm_exec_record record;
    struct error err = {0};
    leave_record(engine, "modest", 0, LEN, modest);
    leave_record(engine, "greedy", 1, LEN, first);
    for (int i = 2; i < VMM_EXECS_MAX + 8; i++)
        leave_record(engine, "greedy", i, LEN, greedy);
    const struct vmm_exec_key kept = {.owner = "modest", .vm = "vm", .id = modest};
    const struct vmm_exec_key gone = {.owner = "greedy", .vm = "vm", .id = first};
    CHECK(vmm_exec_get(engine->vmm, &kept, &record, &err) == 0);
    CHECK(record.output_from == 0 && record.output_to == LEN);
    CHECK(vmm_exec_get(engine->vmm, &gone, &record, &err) < 0 && err.code == ERR_EXEC_UNKNOWN);
    CHECK(engine->vmm->execs->count <= VMM_EXECS_MAX);
    CHECK(engine->vmm->execs->memory <= VMM_EXEC_LOGS_MAX);
}

/* A reader does not keep the output of what is forgotten. */
static void what_is_forgotten_takes_no_memory(struct engine *engine)
{
    char id[ID_INSTANCE_SIZE], out[16];
    struct vmm_exec_record record;
    struct vmm_exec *exec = NULL;
    struct error err = {0};
    uint64_t at = 0;
    size_t len = 0;
    leave_record(engine, "reader", 0, 1000, id);
    const struct vmm_exec_key key = {.owner = "reader", .vm = "vm", .id = id};
    CHECK(vmm_exec_listen(engine->vmm, &key, &exec, &err) == 0);
    for (int i = 0; i < VMM_EXECS_PER_VM; i++)
        leave_record(engine, "reader", i, 0, id);
    CHECK(vmm_exec_read(exec, &at, out, sizeof(out), &len, &record, NULL) == VMM_EXEC_GAP);
    CHECK(at == 1000);
    CHECK(vmm_exec_read(exec, &at, out, sizeof(out), &len, &record, NULL) == VMM_EXEC_END);
    vmm_exec_unlisten(exec, NULL);
}

static void one_call(struct engine_worker *worker, const char *id)
{
    struct engine *engine = worker->engine;
    struct vmm_exec_record record, list[VMM_EXECS_PER_VM];
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_get(engine->fixture.store, "owner", id, &row, &err) == 0);
    size_t count = vmm_exec_list(engine->vmm, row.instance, list);
    CHECK(count <= VMM_EXECS_PER_VM);
    if (count == 0 || random_below(&worker->random, 3) == 0) {
        CHECK(start(engine, id, &record, &err) == 0);
        return;
    }
    const struct vmm_exec_key key = key_of(&list[random_below(&worker->random, count)]);
    switch (random_below(&worker->random, 4)) {
    case 0:
        (void)hear(engine, &key, &record);
        break;
    case 1:
        (void)vmm_exec_kill(engine->vmm, &key, &err);
        break;
    case 2:
        (void)vmm_exec_feed(engine->vmm, &key, 0, "in", 2, true, &record, &err);
        break;
    default:
        (void)vmm_exec_wait(engine->vmm, &key, &record, &err);
    }
    CHECK(err.code == ERR_NONE || err.code == ERR_EXEC_UNKNOWN);
}

static void all_at_once(struct engine *engine)
{
    run(engine, "a", (struct plan){0});
    run(engine, "b", (struct plan){0});
    engine_all_at_once(engine, one_call);
    CHECK(vmm_delete(engine->vmm, "owner", "a", &(struct error){0}) == 0);
    CHECK(vmm_delete(engine->vmm, "owner", "b", &(struct error){0}) == 0);
    engine_empty(engine);
}

int main(void)
{
    static engine_test *const tests[] = {
        begins_is_heard_and_ends,
        only_so_many_are_kept,
        a_vm_that_ends_is_told,
        an_owner_has_a_quota,
        one_owners_flood_costs_another_nothing,
        what_is_forgotten_takes_no_memory,
        ends_with_the_front,
        no_agent_that_lies_leaves_one,
        all_at_once,
    };
    return engine_run(tests, COUNT_OF(tests));
}
