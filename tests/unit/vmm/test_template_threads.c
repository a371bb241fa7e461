/*
 * Snapshots of images (R04, R21): built once by a template that nobody sees, started from until they are
 * of no use, and no spawn fails or waits for them. A plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/vmm/snapshots.h"

#include <poll.h>

static void wait_for(struct engine *engine, enum vmm_image_event event, unsigned times)
{
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; engine->images[event] < times;) {
        CHECK(clock_mono_ms() < end);
        poll(NULL, 0, LOOK_MS);
    }
}

static void begin(struct engine *engine, uint32_t image_snapshots)
{
    engine_stop(engine);
    engine->image_snapshots = image_snapshots;
    engine_restart(engine);
}

static size_t image_rows(struct engine *engine)
{
    cleanup_free struct store_snapshot *all = NULL;
    struct error err = {0};
    size_t count = 0;
    CHECK(store_image_snapshots(engine->fixture.store, &all, &count, &err) == 0);
    return count;
}

/* What there is of snapshots agrees, and nothing is left of templates. */
static void settled(struct engine *engine, size_t vms, size_t images)
{
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; root_live(&engine->root) != vms;) {
        CHECK(clock_mono_ms() < end);
        poll(NULL, 0, LOOK_MS);
    }
    CHECK(image_rows(engine) == images && root_snapshots(&engine->root) == images);
    CHECK(snapshot_rows(engine) == 0);
}

static struct store_vm spawn(struct engine *engine, const char *id)
{
    struct store_vm vm;
    struct error err = {0};
    if (engine_spawn(engine, id, 600, &vm, &err) < 0) {
        fprintf(stderr, "%s: %s: %s\n", id, error_code_name(err.code), err.msg);
        abort();
    }
    CHECK(vm.snapshot[0] == '\0' && vm.purpose == STORE_FOR_CALLER);
    return vm;
}

static void boots(struct engine *engine, const char *id)
{
    CHECK(spawn(engine, id).source == STORE_FROM_BOOT);
    vm_exec_works(engine, id);
}

static void restores(struct engine *engine, const char *id)
{
    struct store_vm vm = spawn(engine, id);
    CHECK(vm.source == STORE_FROM_SNAPSHOT && strstr(vm.guest, "\"generation\":1") != NULL);
    vm_exec_works(engine, id);
}

/* The first boots, and the next are restored. */
static void prepare(struct engine *engine)
{
    unsigned built = engine->images[VMM_IMAGE_BUILT];
    boots(engine, "first");
    wait_for(engine, VMM_IMAGE_BUILT, built + 1);
    vm_remove(engine, "first");
}

static void the_next_spawn_starts_from_one(struct engine *engine)
{
    struct store_snapshot kept;
    struct error err = {0};
    struct store_vm row;
    begin(engine, 8);
    boots(engine, "first");
    wait_for(engine, VMM_IMAGE_BUILT, 1);
    settled(engine, 1, 1);
    restores(engine, "second");
    CHECK(store_vm_get(engine->fixture.store, "owner", "second", &row, &err) == 0);
    CHECK(row.source == STORE_FROM_SNAPSHOT && row.snapshot[0] == '\0');
    CHECK(engine_snapshot(engine, "second", false, &kept, &err) == 0 && kept.generation == 1);
    vm_remove(engine, "second");
    CHECK(engine_restore(engine, "third", kept.id, "owner", &row, &err) == 0);
    CHECK(strcmp(row.snapshot, kept.id) == 0);
    vm_remove(engine, "third");
    CHECK(vmm_snapshot_delete(engine->vmm, "owner", kept.id, &err) == 0);
    CHECK(engine->images[VMM_IMAGE_MISSING] == 1 && engine->images[VMM_IMAGE_RESTORED] == 1);
    engine->memory_mib = 2 * VMM_MEMORY_MIN_MIB; /* another key */
    boots(engine, "larger");
    wait_for(engine, VMM_IMAGE_BUILT, 2);
    settled(engine, 2, 2);
    vm_remove(engine, "first");
    vm_remove(engine, "larger");
}

static void a_cold_one_boots_and_asks_for_nothing(struct engine *engine)
{
    begin(engine, 8);
    engine->cold = true;
    boots(engine, "first");
    vm_remove(engine, "first");
    CHECK(engine->images[VMM_IMAGE_MISSING] == 0);
    engine->cold = false;
    prepare(engine);
    engine->cold = true;
    boots(engine, "cold");
    vm_remove(engine, "cold");
    CHECK(engine->images[VMM_IMAGE_RESTORED] == 0);
}

struct spawner {
    struct engine *engine;
    pthread_t thread;
    char id[8];
};

static void *spawn_main(void *context)
{
    struct spawner *spawner = context;
    spawn(spawner->engine, spawner->id);
    vm_exec_works(spawner->engine, spawner->id);
    vm_remove(spawner->engine, spawner->id);
    return NULL;
}

static void many_who_ask_at_once_get_one_built(struct engine *engine)
{
    enum { SPAWNERS = 8 };
    struct spawner spawners[SPAWNERS];
    begin(engine, 8);
    for (int i = 0; i < SPAWNERS; i++) {
        spawners[i] = (struct spawner){.engine = engine};
        snprintf(spawners[i].id, sizeof(spawners[i].id), "vm%d", i);
        CHECK(pthread_create(&spawners[i].thread, NULL, spawn_main, &spawners[i]) == 0);
    }
    for (int i = 0; i < SPAWNERS; i++)
        CHECK(pthread_join(spawners[i].thread, NULL) == 0);
    wait_for(engine, VMM_IMAGE_BUILT, 1);
    settled(engine, 0, 1);
    restores(engine, "next");
    vm_remove(engine, "next");
    CHECK(engine->images[VMM_IMAGE_BUILT] == 1);
}

static void one_that_is_refused_is_built_anew_and_nobody_notices(struct engine *engine)
{
    static const enum error_code codes[] = {ERR_SNAPSHOT_MISMATCH, ERR_SNAPSHOT_DAMAGED,
                                            ERR_SNAPSHOT_UNKNOWN};
    for (unsigned i = 0; i < COUNT_OF(codes); i++) {
        begin(engine, 8);
        if (i == 0)
            prepare(engine);
        engine->root.no_restore = codes[i];
        boots(engine, "refused");
        engine->root.no_restore = ERR_NONE;
        CHECK(engine->images[VMM_IMAGE_REFUSED] == i + 1);
        wait_for(engine, VMM_IMAGE_BUILT, i + 2);
        settled(engine, 1, 1);
        restores(engine, "next");
        vm_remove(engine, "refused");
        vm_remove(engine, "next");
    }
}

/* Each such moment is of a restore alone, or of the launch's side of both. */
static void one_whose_guest_does_not_come_up_is_not_used_again(struct engine *engine)
{
    static const enum moment moments[] = {AT_LOAD, AT_RESUME, AT_RESTORE};
    for (unsigned i = 0; i < COUNT_OF(moments); i++) {
        begin(engine, 8); /* what failed is forgotten by a restart */
        if (i == 0)
            prepare(engine);
        struct plan plan = {.fail = moments[i]};
        root_choose(&engine->root, root_plan_of_the_first, &plan);
        boots(engine, "in-its-place");
        CHECK(engine->images[VMM_IMAGE_FAILED] == i + 1 && image_rows(engine) <= 1);
        root_choose(&engine->root, NULL, NULL);
        wait_for(engine, VMM_IMAGE_BUILT, i + 2);
        settled(engine, 1, 1);
        restores(engine, "next");
        vm_remove(engine, "in-its-place");
        vm_remove(engine, "next");
    }
}

static void what_is_none_of_its_guests_doing_is_not_laid_to_it(struct engine *engine)
{
    struct plan plan = {.fail = AT_LAUNCH};
    begin(engine, 8);
    prepare(engine);
    root_choose(&engine->root, root_plan_of_the_first, &plan);
    boots(engine, "in-its-place");
    root_choose(&engine->root, NULL, NULL);
    restores(engine, "next");
    CHECK(engine->images[VMM_IMAGE_FAILED] == 0 && engine->images[VMM_IMAGE_BUILT] == 1);
    vm_remove(engine, "in-its-place");
    vm_remove(engine, "next");
}

/* The row is taken while the guest is told who it is. */
static void take_row(void *context, const char *instance)
{
    struct engine *engine = context;
    struct store_vm row;
    struct error err = {0};
    CHECK(store_vm_deleting(engine->fixture.store, "owner", "unwanted", &row, &err) == 0);
    CHECK(strcmp(row.instance, instance) == 0);
}

static void one_that_nobody_wants_any_more_does_not_boot(struct engine *engine)
{
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    prepare(engine);
    root_plan(&engine->root,
              (struct plan){.call = AT_RESTORE, .action = take_row, .context = engine});
    CHECK(engine_spawn(engine, "unwanted", 600, &vm, &err) < 0 && err.code == ERR_CANCELLED);
    root_plan(&engine->root, (struct plan){0});
    engine_ended(engine, "unwanted", STORE_EXITED, "deleted");
    settled(engine, 0, 1);
    CHECK(engine->images[VMM_IMAGE_FAILED] == 0);
}

static void set_cordon(void *context, const char *instance)
{
    struct engine *engine = context;
    struct store_cordon cordon;
    struct error err = {0};
    (void)instance;
    CHECK(store_cordon_set(engine->fixture.store, "admin", -1, &cordon, &err) == 0);
}

static void where_it_cannot_boot_either_the_first_error_is_told(struct engine *engine)
{
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    prepare(engine);
    root_plan(&engine->root,
              (struct plan){
                  .fail = AT_RESTORE, .call = AT_RESTORE, .action = set_cordon, .context = engine});
    CHECK(engine_spawn(engine, "vm", 600, &vm, &err) < 0 && err.code == ERR_GUEST_PROTOCOL);
    root_plan(&engine->root, (struct plan){0});
    engine_ended(engine, "vm", STORE_FAILED, "spawn_hello");
    err = (struct error){0};
    CHECK(store_cordon_lift(engine->fixture.store, &err) == 0);
}

static void somebody_who_was_told_of_it_gets_the_error(struct engine *engine)
{
    struct vmm_spawning *spawning = NULL;
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    prepare(engine);
    root_plan(&engine->root, (struct plan){.fail = AT_RESTORE});
    CHECK(engine_spawn_begin(engine, "told", &spawning, &err) == 0);
    CHECK(vmm_spawn_finish(spawning, &vm, &err) < 0 && err.code == ERR_GUEST_PROTOCOL);
    engine_ended(engine, "told", STORE_FAILED, "spawn_hello");
    root_plan(&engine->root, (struct plan){0});
    wait_for(engine, VMM_IMAGE_BUILT, 2);
    settled(engine, 0, 1);
}

/* ---- building ---- */

/* Of the first VM nothing is expected; the next, its template, keeps silent until its time is up. */
static void keep_templates_silent(void *context, struct plan *ret)
{
    unsigned *spawns = context;
    *ret = (struct plan){.fail = (*spawns)++ == 0 ? NEVER : AT_HELLO};
}

static void what_fails_while_it_is_built_leaves_nothing(struct engine *engine)
{
    static const enum moment moments[] = {AT_PAUSE, AT_SAVE, AT_RESUME};
    begin(engine, 8);
    unsigned failures = 0;
    for (unsigned i = 0; i < COUNT_OF(moments); i++) {
        begin(engine, 8);
        root_plan(&engine->root, (struct plan){.fail = moments[i]});
        boots(engine, "vm");
        wait_for(engine, VMM_IMAGE_NOT_BUILT, ++failures);
        settled(engine, 1, 0);
        vm_remove(engine, "vm");
    }
    root_plan(&engine->root, (struct plan){.fail = AT_STAGE}); /* the disk is full */
    boots(engine, "vm");
    wait_for(engine, VMM_IMAGE_PUT_OFF, 1);
    settled(engine, 1, 0);
    vm_remove(engine, "vm");
    root_plan(&engine->root, (struct plan){0});
    CHECK(engine->images[VMM_IMAGE_BUILT] == 0);
}

static void it_is_not_tried_all_the_time(struct engine *engine)
{
    begin(engine, 8);
    root_plan(&engine->root, (struct plan){.fail = AT_SAVE});
    for (unsigned i = 0; i < 2; i++) { /* the second at once, the third after a second */
        boots(engine, "vm");
        wait_for(engine, VMM_IMAGE_NOT_BUILT, i + 1);
        vm_remove(engine, "vm");
    }
    root_plan(&engine->root, (struct plan){0});
    const int64_t failed = clock_mono_ms();
    do {
        (void)spawn(engine, "vm");
        vm_remove(engine, "vm");
        poll(NULL, 0, LOOK_MS);
    } while (engine->images[VMM_IMAGE_BUILT] == 0 && clock_mono_ms() < failed + PATIENCE_MS);
    CHECK(engine->images[VMM_IMAGE_BUILT] == 1 && engine->images[VMM_IMAGE_NOT_BUILT] == 2);
    CHECK(clock_mono_ms() >= failed + 900);
}

/* It takes room from when its row is there. */
static void wait_for_template(struct engine *engine)
{
    struct store_totals totals = {0};
    struct error err = {0};
    for (int64_t end = clock_mono_ms() + PATIENCE_MS; totals.itself == 0;) {
        CHECK(clock_mono_ms() < end);
        poll(NULL, 0, LOOK_MS);
        CHECK(store_totals(engine->fixture.store, &totals, &err) == 0);
    }
}

static void a_template_makes_room_for_a_caller(struct engine *engine)
{
    unsigned spawns = 0;
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    root_choose(&engine->root, keep_templates_silent, &spawns);
    boots(engine, "first");
    wait_for_template(engine);
    root_choose(&engine->root, NULL, NULL);
    engine->memory_mib = ROOT_MEMORY_MIB - VMM_MEMORY_MIN_MIB;
    const int64_t began = clock_mono_ms();
    boots(engine, "large");
    CHECK(clock_mono_ms() - began < BOOT_MS); /* it did not wait for the template's end */
    wait_for(engine, VMM_IMAGE_PUT_OFF, 1);
    CHECK(engine_spawn(engine, "more", 600, &vm, &err) < 0 && err.code == ERR_CAPACITY);
    vm_remove(engine, "large");
    vm_remove(engine, "first");
}

/* From when it is asked for; the spawn that asks is under way until it has answered. */
static void under_a_cordon_none_is_built(struct engine *engine)
{
    struct vmm_spawning *spawning = NULL;
    struct store_vm vm;
    struct store_cordon cordon;
    struct error err = {0};
    begin(engine, 8);
    CHECK(engine_spawn_begin(engine, "vm", &spawning, &err) == 0);
    CHECK(store_cordon_set(engine->fixture.store, "admin", -1, &cordon, &err) == 0);
    CHECK(vmm_spawn_finish(spawning, &vm, &err) == 0);
    wait_for(engine, VMM_IMAGE_PUT_OFF, 1);
    settled(engine, 1, 0);
    CHECK(store_cordon_lift(engine->fixture.store, &err) == 0);
    vm_remove(engine, "vm");
    prepare(engine);
}

static void spawns_without_end_do_not_starve_it(struct engine *engine)
{
    struct vmm_spawning *spawning = NULL;
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    CHECK(engine_spawn_begin(engine, "slow", &spawning, &err) == 0);
    const int64_t asked = clock_mono_ms();
    prepare(engine);
    CHECK(clock_mono_ms() >= asked + 1900);
    CHECK(vmm_spawn_finish(spawning, &vm, &err) == 0);
    vm_remove(engine, "slow");
}

static void a_stop_ends_the_template(struct engine *engine)
{
    unsigned spawns = 0;
    begin(engine, 8);
    root_choose(&engine->root, keep_templates_silent, &spawns);
    boots(engine, "first");
    wait_for_template(engine);
    root_choose(&engine->root, NULL, NULL);
    const int64_t began = clock_mono_ms();
    begin(engine, 8);
    CHECK(clock_mono_ms() - began < BOOT_MS);
    settled(engine, 1, 0);
    vm_remove(engine, "first");
}

/* ---- how many, and after a restart ---- */

static void the_one_that_was_used_least_goes(struct engine *engine)
{
    begin(engine, 2);
    for (uint32_t i = 1; i <= 3; i++) {
        engine->memory_mib = i * VMM_MEMORY_MIN_MIB;
        prepare(engine);
        settled(engine, 0, i < 2 ? i : 2);
        engine->memory_mib = VMM_MEMORY_MIN_MIB;
        if (i == 2) {
            restores(engine, "used");
            vm_remove(engine, "used");
        }
    }
    restores(engine, "vm");
    vm_remove(engine, "vm");
    engine->memory_mib = 2 * VMM_MEMORY_MIN_MIB;
    boots(engine, "vm");
    wait_for(engine, VMM_IMAGE_BUILT, 4);
    vm_remove(engine, "vm");
    begin(engine, 1);
    settled(engine, 0, 1);
    restores(engine, "vm");
    vm_remove(engine, "vm");
    begin(engine, 0);
    settled(engine, 0, 0);
    boots(engine, "vm");
    vm_remove(engine, "vm");
}

static void they_outlive_the_service_and_templates_do_not(struct engine *engine)
{
    struct store_vm vm;
    struct error err = {0};
    begin(engine, 8);
    prepare(engine);
    engine->purpose = STORE_FOR_TEMPLATE; /* as a crash leaves one */
    CHECK(engine_spawn(engine, "template", 600, &vm, &err) == 0);
    CHECK(store_vm_get(engine->fixture.store, NULL, vm.instance, &vm, &err) < 0);
    engine->purpose = STORE_FOR_CALLER;
    engine_stop(engine);
    struct vmm_recovered recovered = engine_restart(engine);
    CHECK(recovered.adopted == 0 && recovered.undone == 1);
    settled(engine, 0, 1);
    restores(engine, "vm");
    engine_stop(engine);
    CHECK(engine_restart(engine).adopted == 1);
    vm_exec_works(engine, "vm");
    vm_remove(engine, "vm");
}

int main(void)
{
    static engine_test *const tests[] = {
        the_next_spawn_starts_from_one,
        a_cold_one_boots_and_asks_for_nothing,
        many_who_ask_at_once_get_one_built,
        one_that_is_refused_is_built_anew_and_nobody_notices,
        one_whose_guest_does_not_come_up_is_not_used_again,
        what_is_none_of_its_guests_doing_is_not_laid_to_it,
        one_that_nobody_wants_any_more_does_not_boot,
        where_it_cannot_boot_either_the_first_error_is_told,
        somebody_who_was_told_of_it_gets_the_error,
        what_fails_while_it_is_built_leaves_nothing,
        it_is_not_tried_all_the_time,
        a_template_makes_room_for_a_caller,
        under_a_cordon_none_is_built,
        spawns_without_end_do_not_starve_it,
        a_stop_ends_the_template,
        the_one_that_was_used_least_goes,
        they_outlive_the_service_and_templates_do_not,
    };
    return engine_run(tests, COUNT_OF(tests));
}
