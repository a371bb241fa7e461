/* Which moment of the inventory it is: what an answer is kept by (R02). */
#include "store/internal.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>

static struct fixture f;

static void setup(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
}

static void teardown(void)
{
    fixture_release(&f);
}

TestSuite(store_moment, .init = setup, .fini = teardown, .timeout = 60);

Test(store_moment, R02_stands_while_nothing_changes)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    uint64_t moment = store_moment(f.store);
    cr_assert_neq(moment, 0);
    cr_assert_eq(store_vm_get(f.store, "a", "vm", &back, &err), 0, "%s", err.msg);
    cr_assert_eq(store_moment(f.store), moment);
    fixture_end(f.store, vm.instance);
    cr_assert_neq(store_moment(f.store), moment);
}

struct commit {
    unsigned seen;
    uint64_t moment;
    int result;
};

/* SQLite asks it before readers can see what is new; other than 0 rolls back. */
static int at_commit(void *context)
{
    struct commit *commit = context;
    commit->seen++;
    commit->moment = store_moment(f.store);
    return commit->result;
}

Test(store_moment, R02_there_is_none_while_a_change_is_being_committed)
{
    struct commit commit = {.moment = 1};
    uint64_t before = store_moment(f.store);
    sqlite3_commit_hook(f.store->writer, at_commit, &commit);
    fixture_add(f.store, "a", "vm");
    cr_assert_eq(commit.seen, 1);
    cr_assert_eq(commit.moment, 0);
    cr_assert_neq(store_moment(f.store), 0);
    cr_assert_neq(store_moment(f.store), before);
}

Test(store_moment, R02_a_commit_that_fails_leaves_one)
{
    struct error err = {0};
    struct commit commit = {.result = 1};
    uint64_t before = store_moment(f.store);
    struct store_vm vm = fixture_vm("a", "vm");
    sqlite3_commit_hook(f.store->writer, at_commit, &commit);
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), -1);
    cr_assert_eq(commit.seen, 1);
    cr_assert_neq(store_moment(f.store), 0, "nothing would ever be known again");
    cr_assert_neq(store_moment(f.store), before);
}
