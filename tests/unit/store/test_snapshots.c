/* Snapshots in the inventory: an intent first, then all or nothing, and none goes under its VMs. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>

static struct fixture f;

static void start(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
}

static void stop(void)
{
    fixture_release(&f);
}

TestSuite(store_snapshots, .init = start, .fini = stop);

static struct store_snapshot of(const struct store_vm *vm)
{
    struct error err = {0};
    struct store_snapshot snapshot = {.vcpus = vm->vcpus,
                                      .memory_mib = vm->memory_mib,
                                      .disk_mib = vm->disk_mib,
                                      .seccomp = "basic",
                                      .hypervisor = "firecracker",
                                      .generation = 7,
                                      .bytes = 5000000000,
                                      .created_wall_ms = 1769860800123,
                                      .labels = "{\"a\":\"b\"}"};
    cr_assert_eq(id_instance_make(snapshot.id, &err), 0, "%s", err.msg);
    memcpy(snapshot.owner, vm->owner, sizeof(snapshot.owner));
    memcpy(snapshot.vm, vm->id, sizeof(snapshot.vm));
    memcpy(snapshot.instance, vm->instance, sizeof(snapshot.instance));
    memcpy(snapshot.image, vm->image, sizeof(snapshot.image));
    memcpy(snapshot.image_digest, vm->image_digest, HASH_SIZE);
    return snapshot;
}

static struct store_snapshot add(const char *owner, const char *id)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, owner, id);
    struct store_snapshot snapshot = of(&vm);
    cr_assert_eq(store_snapshot_begin(f.store, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_commit(f.store, &snapshot, &err), 0, "%s", err.msg);
    return snapshot;
}

static enum error_code get(const char *owner, const char *id, struct store_snapshot *ret)
{
    struct error err = {0};
    int result = store_snapshot_get(f.store, owner, id, ret, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    return err.code;
}

static bool intended(const char *instance)
{
    struct error err = {0};
    bool there = false;
    cr_assert_eq(store_snapshot_intended(f.store, instance, &there, &err), 0, "%s", err.msg);
    return there;
}

static bool forking(const char *id)
{
    struct error err = {0};
    bool there = false;
    cr_assert_eq(store_snapshot_forking(f.store, id, &there, &err), 0, "%s", err.msg);
    return there;
}

Test(store_snapshots, R02_an_intent_outlives_the_service_until_it_is_kept_or_given_up)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "alice", "a");
    cr_assert(!intended(vm.instance));
    cr_assert_eq(store_snapshot_begin(f.store, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_begin(f.store, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_BUSY);
    err = (struct error){0};
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert(intended(vm.instance));
    cr_assert_eq(store_snapshot_abandon(f.store, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_abandon(f.store, vm.instance, &err), 0, "none is success");
    cr_assert(!intended(vm.instance));
}

Test(store_snapshots, R02_a_recovery_takes_intents_and_what_was_for_forks)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "alice", "a");
    struct store_snapshot there, kept = add("alice", "b"), passing = of(&vm);
    passing.kind = STORE_EPHEMERAL;
    cr_assert_eq(store_snapshot_commit(f.store, &passing, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_begin(f.store, vm.instance, &err), 0, "%s", err.msg);
    cr_assert(forking(passing.id) && !forking(kept.id));
    cr_assert_eq(store_recover(f.store, &err), 0, "%s", err.msg);
    cr_assert(!forking(passing.id));
    cr_assert_eq(get("alice", kept.id, &there), ERR_NONE);
    cr_assert(intended(vm.instance), "it may still stand, and has to go on first");
    fixture_end(f.store, vm.instance);
    cr_assert_eq(store_recover(f.store, &err), 0, "%s", err.msg);
    cr_assert(!intended(vm.instance));
}

Test(store_snapshots, one_for_forks_is_not_seen_and_goes_before_them)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "alice", "a"), clone = fixture_vm("alice", "clone");
    struct store_snapshot passing = of(&vm), *page = NULL;
    size_t count = 1;
    bool more = true;
    passing.kind = STORE_EPHEMERAL;
    cr_assert_eq(store_snapshot_commit(f.store, &passing, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_list(f.store, &(struct store_filter){.limit = 10}, &page, &count,
                                     &more, &err),
                 0);
    cr_assert(count == 0 && !more);
    free(page);
    cr_assert_eq(get("alice", passing.id, &passing), ERR_SNAPSHOT_UNKNOWN);
    memcpy(clone.snapshot, passing.id, sizeof(clone.snapshot));
    cr_assert_eq(store_vm_insert(f.store, &clone, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_remove(f.store, "alice", passing.id, &err), 0, "%s", err.msg);
}

/* ---- of images ---- */

static struct store_image_key key_of(const struct store_snapshot *snapshot)
{
    struct store_image_key key = {.vcpus = snapshot->vcpus,
                                  .memory_mib = snapshot->memory_mib,
                                  .disk_mib = snapshot->disk_mib};
    memcpy(key.image_digest, snapshot->image_digest, HASH_SIZE);
    memcpy(key.seccomp, snapshot->seccomp, sizeof(key.seccomp));
    memcpy(key.hypervisor, snapshot->hypervisor, sizeof(key.hypervisor));
    snprintf(key.labels, sizeof(key.labels), "%.90s", snapshot->labels);
    return key;
}

static const char *found(const struct store_image_key *key)
{
    static char id[ID_INSTANCE_SIZE];
    struct error err = {0};
    cr_assert_eq(store_image_snapshot_find(f.store, key, id, &err), 0, "%s", err.msg);
    return id;
}

/* Of one vCPU more than the last, so that each has a key of its own. */
static struct store_snapshot add_image(uint32_t vcpus)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm("nobody", "template");
    struct store_snapshot snapshot = of(&vm);
    snapshot.kind = STORE_OF_IMAGE;
    snapshot.vcpus = vcpus;
    snprintf(snapshot.owner, sizeof(snapshot.owner), "%s", STORE_OWNER_ITSELF);
    cr_assert_eq(store_snapshot_commit(f.store, &snapshot, &err), 0, "%s", err.msg);
    return snapshot;
}

Test(store_snapshots, R21_an_images_is_found_by_all_that_it_is_made_of)
{
    struct store_snapshot snapshot = add_image(2);
    const struct store_image_key right = key_of(&snapshot);
    struct store_image_key keys[7];
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        keys[i] = right;
    keys[0].image_digest[HASH_SIZE - 1] ^= 1;
    keys[1].vcpus++;
    keys[2].memory_mib++;
    keys[3].disk_mib++;
    snprintf(keys[4].seccomp, sizeof(keys[4].seccomp), "minimal");
    snprintf(keys[5].hypervisor, sizeof(keys[5].hypervisor), "qemu");
    snprintf(keys[6].labels, sizeof(keys[6].labels), "{}");
    for (size_t i = 0; i < COUNT_OF(keys); i++)
        cr_assert_str_eq(found(&keys[i]), "", "%zu", i);
    cr_assert_str_eq(found(&right), snapshot.id);
    struct store_snapshot lasting = add("alice", "a");
    const struct store_image_key hers = key_of(&lasting);
    cr_assert_str_eq(found(&hers), "", "a caller's is not for others");
}

Test(store_snapshots, R11_R21_an_images_is_seen_by_no_request)
{
    struct error err = {0};
    struct store_snapshot there, *page = NULL, snapshot = add_image(1);
    struct store_vm clone = fixture_vm(STORE_OWNER_ITSELF, "clone");
    size_t count = 1;
    bool more = true;
    cr_assert_eq(get(NULL, snapshot.id, &there), ERR_SNAPSHOT_UNKNOWN);
    cr_assert_eq(get(STORE_OWNER_ITSELF, snapshot.id, &there), ERR_SNAPSHOT_UNKNOWN);
    cr_assert_eq(store_snapshot_list(f.store, &(struct store_filter){.limit = 10}, &page, &count,
                                     &more, &err),
                 0);
    free(page);
    cr_assert(count == 0 && !more);
    cr_assert_eq(store_snapshot_list(f.store,
                                     &(struct store_filter){.after = snapshot.id, .limit = 10},
                                     &page, &count, &more, &err),
                 -1, "not even as a place to go on from");
    err = (struct error){0};
    cr_assert_eq(store_snapshot_remove(f.store, NULL, snapshot.id, &err), -1);
    err = (struct error){0};
    cr_assert_eq(store_recover(f.store, &err), 0, "it outlives the service");
    memcpy(clone.snapshot, snapshot.id, sizeof(clone.snapshot));
    err = (struct error){0};
    cr_assert_eq(store_vm_insert(f.store, &clone, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_UNKNOWN);
    const struct store_image_key key = key_of(&snapshot);
    cr_assert_str_eq(found(&key), snapshot.id);
}

Test(store_snapshots, R21_images_are_in_the_order_of_their_use_also_after_a_restart)
{
    struct error err = {0};
    struct store_snapshot made[3], *all = NULL;
    size_t count = 0;
    for (uint32_t i = 0; i < COUNT_OF(made); i++)
        made[i] = add_image(i + 1);
    static const size_t uses[] = {2, 0, 0}; /* the last again: nothing is written for that */
    for (size_t i = 0; i < COUNT_OF(uses); i++) {
        const struct store_image_key key = key_of(&made[uses[i]]);
        cr_assert_str_eq(found(&key), made[uses[i]].id);
    }
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_image_snapshots(f.store, &all, &count, &err), 0, "%s", err.msg);
    cr_assert_eq(count, COUNT_OF(made));
    static const size_t order[] = {0, 2, 1};
    for (size_t i = 0; i < count; i++)
        cr_assert_str_eq(all[i].id, made[order[i]].id, "place %zu", i);
    free(all);
    cr_assert_eq(store_image_snapshot_remove(f.store, made[0].id, &err), 0, "%s", err.msg);
    cr_assert_eq(store_image_snapshot_remove(f.store, made[0].id, &err), 0, "gone is success");
    const struct store_image_key key = key_of(&made[0]);
    cr_assert_str_eq(found(&key), "");
    struct store_snapshot lasting = add("alice", "a"), there;
    cr_assert_eq(store_image_snapshot_remove(f.store, lasting.id, &err), 0, "%s", err.msg);
    cr_assert_eq(get("alice", lasting.id, &there), ERR_NONE, "a caller's stays");
}

Test(store_snapshots, what_was_committed_is_there_after_a_restart)
{
    struct error err = {0};
    struct store_snapshot there, snapshot = add("alice", "a");
    cr_assert(!intended(snapshot.instance), "the intent went with the commit");
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(get("alice", snapshot.id, &there), ERR_NONE);
    cr_assert_eq(memcmp(&there, &snapshot, sizeof(there)), 0, "every member");
    cr_assert_eq(get(NULL, snapshot.id, &there), ERR_NONE);
}

Test(store_snapshots, R11_another_owners_is_not_there)
{
    struct error err = {0};
    struct store_snapshot there, snapshot = add("alice", "a");
    cr_assert_eq(get("bob", snapshot.id, &there), ERR_SNAPSHOT_UNKNOWN);
    cr_assert_eq(store_snapshot_remove(f.store, "bob", snapshot.id, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_UNKNOWN);
    struct store_vm vm = fixture_vm("bob", "b");
    memcpy(vm.snapshot, snapshot.id, sizeof(vm.snapshot));
    err = (struct error){0};
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_UNKNOWN);
    cr_assert_eq(get("alice", snapshot.id, &there), ERR_NONE);
}

Test(store_snapshots, R20_one_goes_only_when_no_vm_of_it_is_left)
{
    struct error err = {0};
    struct store_snapshot there, snapshot = add("alice", "a");
    struct store_vm clone = fixture_vm("alice", "clone");
    memcpy(clone.snapshot, snapshot.id, sizeof(clone.snapshot));
    cr_assert_eq(store_vm_insert(f.store, &clone, &err), 0, "%s", err.msg);
    cr_assert_eq(store_snapshot_remove(f.store, "alice", snapshot.id, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_IN_USE);
    cr_assert_not_null(strstr(err.msg, "1 VMs"), "%s", err.msg);
    cr_assert_not_null(strstr(err.msg, "`clone`"), "%s", err.msg);
    fixture_end(f.store, clone.instance);
    err = (struct error){0};
    cr_assert_eq(store_snapshot_remove(f.store, "alice", snapshot.id, &err), 0, "%s", err.msg);
    cr_assert_eq(get("alice", snapshot.id, &there), ERR_SNAPSHOT_UNKNOWN);
    cr_assert_eq(store_vm_insert(f.store, &clone, &err), -1, "nothing is restored from it now");
    cr_assert_eq(err.code, ERR_SNAPSHOT_UNKNOWN);
}

Test(store_snapshots, pages_follow_each_other_and_show_an_owners_alone)
{
    struct error err = {0};
    enum { EACH = 5, LIMIT = 2 };
    char id[8], after[ID_INSTANCE_SIZE] = "";
    for (int i = 0; i < EACH; i++) {
        snprintf(id, sizeof(id), "vm%d", i);
        add("alice", id);
        add("bob", id);
    }
    size_t seen = 0;
    for (bool more = true; more;) {
        cleanup_free struct store_snapshot *page = NULL;
        size_t count = 0;
        cr_assert_eq(store_snapshot_list(f.store,
                                         &(struct store_filter){.owner = "alice",
                                                                .after = after[0] ? after : NULL,
                                                                .limit = LIMIT},
                                         &page, &count, &more, &err),
                     0, "%s", err.msg);
        for (size_t i = 0; i < count; i++) {
            snprintf(id, sizeof(id), "vm%zu", seen++);
            cr_assert_str_eq(page[i].vm, id);
            cr_assert_str_eq(page[i].owner, "alice");
            memcpy(after, page[i].id, sizeof(after));
        }
    }
    cr_assert_eq(seen, EACH);
}

Test(store_snapshots, a_page_holds_those_with_a_label)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "alice", "a");
    static const char *const labels[] = {"{}", "{\"k\":\"1\"}", "{\"k\":\"2\"}",
                                         "{\"other\":\"1\"}"};
    for (size_t i = 0; i < COUNT_OF(labels); i++) {
        struct store_snapshot snapshot = of(&vm);
        snprintf(snapshot.labels, sizeof(snapshot.labels), "%s", labels[i]);
        cr_assert_eq(store_snapshot_commit(f.store, &snapshot, &err), 0, "%s", err.msg);
    }
    const struct {
        const char *key, *value;
        size_t count;
    } cases[] = {{NULL, NULL, 4}, {"k", NULL, 2}, {"k", "2", 1}, {"k", "3", 0}, {"no", NULL, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cleanup_free struct store_snapshot *page = NULL;
        size_t count = 0;
        bool more = true;
        const struct store_filter filter = {
            .label_key = cases[i].key, .label_value = cases[i].value, .limit = 10};
        cr_assert_eq(store_snapshot_list(f.store, &filter, &page, &count, &more, &err), 0);
        cr_assert(count == cases[i].count && !more, "%zu: %zu", i, count);
    }
}

Test(store_snapshots, a_cursor_or_limit_that_cannot_be_is_refused)
{
    struct store_snapshot *page = NULL, snapshot = add("alice", "a");
    size_t count = 0;
    bool more = false;
    const struct {
        const char *after;
        uint32_t limit;
    } wrong[] = {{"aaaaaaaaaaaaaaaaaaaa", 1}, {snapshot.id, 1}, {NULL, 0}, {NULL, 501}};
    for (size_t i = 0; i < COUNT_OF(wrong); i++) {
        struct error err = {0};
        cr_assert_eq(store_snapshot_list(f.store,
                                         &(struct store_filter){.owner = "bob",
                                                                .after = wrong[i].after,
                                                                .limit = wrong[i].limit},
                                         &page, &count, &more, &err),
                     -1);
        cr_assert_eq(err.code, ERR_QUERY);
    }
}
