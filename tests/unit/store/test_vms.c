/* One VM's life as the inventory sees it. */
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

TestSuite(store_vms, .init = start, .fini = stop);

static enum error_code get(const char *owner, const char *id, struct store_vm *ret, char *message)
{
    struct error err = {0};
    int result = store_vm_get(f.store, owner, id, ret, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    if (message != NULL)
        memcpy(message, err.msg, sizeof(err.msg));
    return err.code;
}

static void assert_same(const struct store_vm *a, const struct store_vm *b)
{
    cr_assert_str_eq(a->instance, b->instance);
    cr_assert_str_eq(a->id, b->id);
    cr_assert_str_eq(a->owner, b->owner);
    cr_assert_eq(a->state, b->state);
    cr_assert_str_eq(a->reason, b->reason);
    cr_assert_str_eq(a->message, b->message);
    cr_assert_str_eq(a->image, b->image);
    cr_assert_arr_eq(a->image_digest, b->image_digest, HASH_SIZE);
    cr_assert_eq(a->vcpus, b->vcpus);
    cr_assert_eq(a->memory_mib, b->memory_mib);
    cr_assert_eq(a->disk_mib, b->disk_mib);
    cr_assert_str_eq(a->seccomp, b->seccomp);
    cr_assert_str_eq(a->hypervisor, b->hypervisor);
    cr_assert_eq(a->emulated, b->emulated);
    cr_assert_eq(a->without, b->without);
    cr_assert_eq(a->uid, b->uid);
    cr_assert_eq(a->layout, b->layout);
    cr_assert_str_eq(a->chain, b->chain);
    cr_assert_eq(a->ttl_s, b->ttl_s);
    cr_assert_eq(a->created_wall_ms, b->created_wall_ms);
    cr_assert_eq(a->state_wall_ms, b->state_wall_ms);
    cr_assert_eq(a->expires_boot_ms, b->expires_boot_ms);
    cr_assert_str_eq(a->boot, b->boot);
    cr_assert_str_eq(a->labels, b->labels);
    cr_assert_str_eq(a->steps, b->steps);
    cr_assert_str_eq(a->guest, b->guest);
}

Test(store_vms, R02_every_member_survives_closing_and_opening)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm("uid:1000", "test_vm"), back;
    memset(vm.labels, 'l', sizeof(vm.labels) - 1);
    memset(vm.steps, '\'', sizeof(vm.steps) - 1);
    strcpy(vm.message, "a \"quoted\" \x01\xff caf\xc3\xa9 %s ? ?1 ;--");
    strcpy(vm.reason, "spawn_guard");
    strcpy(vm.guest, "{}");
    vm.expires_boot_ms = INT64_MIN;
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(get("uid:1000", "test_vm", &back, NULL), ERR_NONE);
    assert_same(&vm, &back);
    cr_assert_eq(store_vm_by_instance(f.store, vm.instance, &back, &err), 0, "%s", err.msg);
    assert_same(&vm, &back);
}

Test(store_vms, R02_running_is_one_commit_with_all_that_came_with_it)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    strcpy(vm.steps, "[{\"name\":\"admit\",\"ms\":1}]");
    strcpy(vm.guest, "{\"agent\":\"1\"}");
    vm.expires_boot_ms = 5;
    vm.state_wall_ms = 6;
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(get("a", "vm", &back, NULL), ERR_NONE);
    vm.state = STORE_RUNNING;
    assert_same(&vm, &back);
}

Test(store_vms, R02_only_a_running_vm_is_kept_alive)
{
    struct store_vm vm = fixture_add(f.store, "a", "vm"), kept;
    struct error err = {0};
    cr_assert_eq(store_vm_keepalive(f.store, "a", "vm", 60, 1000, &kept, &err), -1, "creating");
    cr_assert_eq(err.code, ERR_VM_NOT_RUNNING);
    vm.expires_boot_ms = 5000;
    err = (struct error){0};
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_keepalive(f.store, "b", "vm", 60, 1000, &kept, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN, "another's");
    err = (struct error){0};
    cr_assert_eq(store_vm_keepalive(f.store, "a", "vm", 60, 1000, &kept, &err), 0, "%s", err.msg);
    cr_assert_eq(kept.expires_boot_ms, 61000);
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_keepalive(f.store, "a", "vm", 90, 1000, &kept, &err), -1, "deleting");
    cr_assert_eq(err.code, ERR_VM_NOT_RUNNING);
    cr_assert_eq(get("a", "vm", &vm, NULL), ERR_NONE);
    cr_assert_eq(vm.expires_boot_ms, 61000);
}

Test(store_vms, R04_running_fails_as_cancelled_once_a_delete_came)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_running(f.store, &vm, &err), -1);
    cr_assert_eq(err.code, ERR_CANCELLED);
    cr_assert_eq(get("a", "vm", &back, NULL), ERR_NONE);
    cr_assert_eq(back.state, STORE_DELETING);
    fixture_end(f.store, vm.instance);
    err = (struct error){0};
    cr_assert_eq(store_vm_running(f.store, &vm, &err), -1);
    cr_assert_eq(err.code, ERR_CANCELLED, "an ended VM cannot run");
}

Test(store_vms, R11_who_asks_for_anybodys_gets_it_where_there_is_one)
{
    struct error err = {0};
    struct store_vm first = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(get(NULL, "vm", &back, NULL), ERR_NONE);
    cr_assert_str_eq(back.owner, "a");
    struct store_vm second = fixture_add(f.store, "b", "vm");
    cr_assert_eq(get(NULL, "vm", &back, NULL), ERR_VM_AMBIGUOUS);
    cr_assert_eq(store_vm_deleting(f.store, NULL, "vm", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_AMBIGUOUS);
    cr_assert_eq(get("a", "vm", &back, NULL), ERR_NONE);
    cr_assert_eq(back.state, STORE_CREATING, "neither was touched");
    cr_assert_eq(get("b", "vm", &back, NULL), ERR_NONE);
    cr_assert_eq(back.state, STORE_CREATING);
    fixture_end(f.store, first.instance);
    cr_assert_eq(get(NULL, "vm", &back, NULL), ERR_NONE);
    cr_assert_str_eq(back.instance, second.instance);
}

Test(store_vms, an_id_is_taken_per_owner_while_its_vm_lives)
{
    struct error err = {0};
    struct store_vm first = fixture_add(f.store, "a", "vm"), second = fixture_vm("a", "vm"), back;
    cr_assert_eq(store_vm_insert(f.store, &second, &err), -1);
    cr_assert_eq(err.code, ERR_ID_TAKEN);
    cr_assert_not_null(strstr(err.msg, "`vm`"), "%s", err.msg);
    fixture_add(f.store, "b", "vm");
    fixture_add(f.store, "a", "VM");
    err = (struct error){0};
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_insert(f.store, &second, &err), -1);
    cr_assert_eq(err.code, ERR_ID_TAKEN, "not free before the end");
    fixture_end(f.store, first.instance);
    err = (struct error){0};
    cr_assert_eq(store_vm_insert(f.store, &second, &err), 0, "free at once: %s", err.msg);
    cr_assert_eq(get("a", "vm", &back, NULL), ERR_NONE);
    cr_assert_str_eq(back.instance, second.instance);
}

Test(store_vms, R12_one_chain_or_instance_for_two_vms_is_refused)
{
    struct error err = {0};
    struct store_vm first = fixture_add(f.store, "a", "one"), second = fixture_vm("a", "two");
    memcpy(second.chain, first.chain, sizeof(second.chain));
    cr_assert_eq(store_vm_insert(f.store, &second, &err), -1);
    cr_assert_eq(err.code, ERR_STORE, "%s", err.msg);
    err = (struct error){0};
    second = fixture_vm("a", "two");
    memcpy(second.instance, first.instance, sizeof(second.instance));
    cr_assert_eq(store_vm_insert(f.store, &second, &err), -1);
    cr_assert_eq(err.code, ERR_STORE, "%s", err.msg);
    struct store_totals totals;
    err = (struct error){0};
    cr_assert_eq(store_totals(f.store, &totals, &err), 0, "%s", err.msg);
    cr_assert_eq(totals.by_state[STORE_CREATING], 1);
}

Test(store_vms, deleting_is_idempotent_and_returns_the_row)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), first, second;
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &first, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_deleting(f.store, NULL, "vm", &second, &err), 0, "%s", err.msg);
    cr_assert_eq(first.state, STORE_DELETING);
    cr_assert_gt(first.state_wall_ms, vm.state_wall_ms);
    assert_same(&first, &second);
}

Test(store_vms, another_owners_vm_is_unknown_in_life_and_after)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(get("b", "vm", &back, NULL), ERR_VM_UNKNOWN);
    cr_assert_eq(get(NULL, "vm", &back, NULL), ERR_NONE, "the administrator sees all");
    cr_assert_eq(store_vm_deleting(f.store, "b", "vm", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN);
    fixture_end(f.store, vm.instance);
    cr_assert_eq(get("b", "vm", &back, NULL), ERR_VM_UNKNOWN);
    cr_assert_eq(get("a", "vm", &back, NULL), ERR_VM_GONE);
    cr_assert_eq(get(NULL, "vm", &back, NULL), ERR_VM_GONE);
    cr_assert_eq(get("a", "never", &back, NULL), ERR_VM_UNKNOWN);
    err = (struct error){0};
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE, "so that a second DELETE can be told from a wrong one");
}

Test(store_vms, an_ended_vm_says_how_it_ended_last)
{
    struct error err = {0};
    char message[ERROR_MESSAGE_MAX];
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    fixture_end(f.store, vm.instance);
    vm = fixture_add(f.store, "a", "vm");
    cr_assert_eq(store_vm_end(f.store, vm.instance, STORE_FAILED, "guest_panic", "it went wrong",
                              "console", &err),
                 0, "%s", err.msg);
    cr_assert_eq(get("a", "vm", &back, message), ERR_VM_GONE);
    cr_assert_not_null(strstr(message, "failed (guest_panic): it went wrong"), "%s", message);
    cr_assert_eq(store_vm_by_instance(f.store, vm.instance, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE);
    err = (struct error){0};
    cr_assert_eq(store_vm_by_instance(f.store, "aaaaaaaaaaaaaaaaaaaa", &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_UNKNOWN);
}

Test(store_vms, totals_count_what_lives)
{
    struct error err = {0};
    struct store_totals totals;
    cr_assert_eq(store_totals(f.store, &totals, &err), 0, "%s", err.msg);
    cr_assert_eq(totals.memory_mib, 0);
    struct store_vm one = fixture_add(f.store, "a", "one"), two = fixture_add(f.store, "a", "two"),
                    three = fixture_add(f.store, "b", "three"), back;
    cr_assert_eq(store_vm_running(f.store, &two, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_deleting(f.store, "b", "three", &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_totals(f.store, &totals, &err), 0, "%s", err.msg);
    cr_assert_eq(totals.by_state[STORE_CREATING], 1);
    cr_assert_eq(totals.by_state[STORE_RUNNING], 1);
    cr_assert_eq(totals.by_state[STORE_DELETING], 1);
    cr_assert_eq(totals.vcpus, 6);
    cr_assert_eq(totals.memory_mib, (uint64_t)one.memory_mib + two.memory_mib + three.memory_mib);
    fixture_end(f.store, one.instance);
    cr_assert_eq(store_totals(f.store, &totals, &err), 0, "%s", err.msg);
    cr_assert_eq(totals.by_state[STORE_CREATING] + totals.by_state[STORE_EXITED], 0);
    cr_assert_eq(totals.vcpus, 4);
}

Test(store_vms, R02_only_what_is_up_is_paused_and_once)
{
    struct error err = {0};
    struct store_totals totals;
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(store_vm_paused(f.store, vm.instance, true, 5, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_NOT_RUNNING);
    vm.idle_since_boot_ms = 1;
    err = (struct error){0};
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    for (int64_t at = 5; at < 7; at++) {
        cr_assert_eq(store_vm_paused(f.store, vm.instance, true, at, &back, &err), 0);
        cr_assert_eq(back.state, STORE_PAUSED);
        cr_assert_eq(back.idle_since_boot_ms, 1);
    }
    cr_assert_eq(store_totals(f.store, &totals, &err), 0, "%s", err.msg);
    cr_assert_eq(totals.by_state[STORE_PAUSED], 1);
    for (int64_t at = 7; at < 9; at++) {
        cr_assert_eq(store_vm_paused(f.store, vm.instance, false, at, &back, &err), 0);
        cr_assert_eq(back.state, STORE_RUNNING);
        cr_assert_eq(back.idle_since_boot_ms, 7, "from when it went on");
    }
    cr_assert_eq(get("a", "vm", &vm, NULL), ERR_NONE);
    assert_same(&vm, &back);
    cr_assert_eq(store_vm_deleting(f.store, "a", "vm", &back, &err), 0);
    cr_assert_eq(store_vm_paused(f.store, vm.instance, true, 9, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_NOT_RUNNING);
    fixture_end(f.store, vm.instance);
    err = (struct error){0};
    cr_assert_eq(store_vm_paused(f.store, vm.instance, true, 9, &back, &err), -1);
    cr_assert_eq(err.code, ERR_VM_GONE);
}

/* A command that runs keeps it busy over a pause. */
Test(store_vms, R02_a_pause_ends_no_command)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_idle(f.store, vm.instance, 0, &err), 0);
    cr_assert_eq(store_vm_paused(f.store, vm.instance, true, 5, &back, &err), 0);
    cr_assert_eq(store_vm_paused(f.store, vm.instance, false, 6, &back, &err), 0);
    cr_assert_eq(back.idle_since_boot_ms, 0);
}

Test(store_vms, state_names_read_back)
{
    for (int i = STORE_CREATING; i <= STORE_LOST; i++) {
        enum store_state state = 0;
        cr_assert_eq(store_state_parse(store_state_name((enum store_state)i), &state), 0);
        cr_assert_eq((int)state, i);
    }
    enum store_state state = STORE_PAUSED;
    cr_assert_eq(store_state_parse("gone", &state), -1);
    cr_assert_eq(store_state_parse("", &state), -1);
    cr_assert_eq(state, STORE_PAUSED);
    cr_assert_str_eq(store_state_name(STORE_RUNNING), "running");
    cr_assert_str_eq(store_state_name((enum store_state)99), "unknown");
}

/* A connection keeps the statement that looks for one; what it was told about the last is gone. */
Test(store_vms, each_is_found_as_it_is_now_by_a_statement_that_was_kept)
{
    struct store_vm row;
    for (int round = 0; round < 3; round++) {
        struct store_vm mine = fixture_add(f.store, "ann", "mine");
        struct store_vm other = fixture_add(f.store, "bob", "other");
        for (int i = 0; i < 8; i++) { /* each reading connection */
            cr_assert_eq(get("ann", "mine", &row, NULL), ERR_NONE);
            cr_assert_str_eq(row.instance, mine.instance);
            cr_assert_eq(get("bob", "other", &row, NULL), ERR_NONE);
            cr_assert_str_eq(row.instance, other.instance);
            cr_assert_eq(get("ann", "other", &row, NULL), ERR_VM_UNKNOWN);
        }
        fixture_end(f.store, mine.instance);
        fixture_end(f.store, other.instance);
        cr_assert_eq(get("ann", "mine", &row, NULL), ERR_VM_GONE);
    }
}
