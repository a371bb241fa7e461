/* Pages of a list that changes under the walk. */
#include "tests/unit/base/random.h"
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

TestSuite(store_list, .init = start, .fini = stop);

enum { VMS_MAX = 400 };

/* What the test knows to be there: in the order of creation. */
struct model {
    struct {
        char instance[ID_INSTANCE_SIZE];
        bool alive, before; /* the walk; `before`: it began when this one was alive */
        int seen;
    } vm[VMS_MAX];
    int count, made; /* `made` counts the other owner's too */
};

static void model_add(struct model *model, bool before, struct random *random)
{
    static const char *const owners[] = {"a", "a", "a", "b"};
    if (model->count == VMS_MAX)
        return;
    char id[16];
    snprintf(id, sizeof(id), "vm-%d", model->made++);
    const char *owner = RANDOM_PICK(random, owners);
    struct store_vm vm = fixture_add(f.store, owner, id);
    if (owner[0] != 'a')
        return;
    memcpy(model->vm[model->count].instance, vm.instance, sizeof(vm.instance));
    model->vm[model->count].alive = true;
    model->vm[model->count].before = before;
    model->count++;
}

static void model_end(struct model *model, struct random *random)
{
    if (model->count == 0)
        return;
    size_t i = random_below(random, (uint64_t)model->count);
    fixture_end(f.store, model->vm[i].instance);
    model->vm[i].alive = false;
}

static void model_run(const struct model *model, struct random *random)
{
    struct store_vm vm = {0};
    struct error err = {0};
    if (model->count == 0)
        return;
    size_t i = random_below(random, (uint64_t)model->count);
    memcpy(vm.instance, model->vm[i].instance, sizeof(vm.instance));
    if (store_vm_running(f.store, &vm, &err) < 0)
        cr_assert_eq(err.code, ERR_CANCELLED, "%s", err.msg);
}

static int model_find(const struct model *model, const char *instance)
{
    for (int i = 0; i < model->count; i++)
        if (strcmp(model->vm[i].instance, instance) == 0)
            return i;
    return -1;
}

static void churn(struct model *model, struct random *random, const char *cursor)
{
    for (uint64_t i = random_below(random, 8); i > 0; i--) {
        uint64_t what = random_below(random, 3);
        if (what == 0)
            model_add(model, false, random);
        else if (what == 1)
            model_end(model, random);
        else
            model_run(model, random);
    }
    int at = model_find(model, cursor);
    if (at >= 0 && random_below(random, 2) == 0) { /* the one the cursor stands on */
        fixture_end(f.store, cursor);
        model->vm[at].alive = false;
    }
}

static void walk(struct model *model, struct random *random)
{
    char cursor[ID_INSTANCE_SIZE] = "";
    int last = -1;
    for (bool more = true; more;) {
        struct store_filter filter = {.owner = "a",
                                      .after = cursor[0] == '\0' ? NULL : cursor,
                                      .limit = 1 + (uint32_t)random_below(random, 9)};
        struct store_vm *rows = NULL;
        size_t count = 0;
        struct error err = {0};
        cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0,
                     "%s (seed %llu)", err.msg, (unsigned long long)random->seed);
        cr_assert_leq(count, filter.limit);
        cr_assert(!more || count == filter.limit, "a short page says there is more");
        for (size_t i = 0; i < count; i++) {
            int at = model_find(model, rows[i].instance);
            cr_assert_gt(at, last, "out of order, twice, or another's (seed %llu)",
                         (unsigned long long)random->seed);
            model->vm[at].seen++;
            last = at;
            memcpy(cursor, rows[i].instance, sizeof(cursor));
        }
        free(rows);
        churn(model, random, cursor);
    }
}

Test(store_list, R37_a_vm_that_lives_through_the_walk_is_seen_exactly_once, .timeout = 60)
{
    struct random random = random_start();
    for (int round = 0; round < 60; round++) {
        struct model *model = calloc(1, sizeof(*model));
        for (uint64_t i = random_below(&random, 40); i > 0; i--)
            model_add(model, true, &random);
        walk(model, &random);
        for (int i = 0; i < model->count; i++) {
            cr_assert_leq(model->vm[i].seen, 1);
            if (model->vm[i].before && model->vm[i].alive)
                cr_assert_eq(model->vm[i].seen, 1, "round %d missed one (seed %llu)", round,
                             (unsigned long long)random.seed);
        }
        struct store_vm *rows = NULL;
        size_t count = 0;
        struct error err = {0};
        cr_assert_eq(store_vm_all(f.store, &rows, &count, &err), 0, "%s", err.msg);
        for (size_t i = 0; i < count; i++)
            fixture_end(f.store, rows[i].instance);
        free(rows);
        free(model);
    }
}

Test(store_list, a_vm_made_after_the_cursors_own_ended_comes_after_it)
{
    fixture_add(f.store, "a", "one");
    struct store_vm newest = fixture_add(f.store, "a", "two");
    fixture_end(f.store, newest.instance);
    struct store_vm later = fixture_add(f.store, "a", "three"), *rows = NULL;
    struct store_filter filter = {.owner = "a", .after = newest.instance, .limit = 10};
    struct error err = {0};
    size_t count = 0;
    bool more = false;
    cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    cr_assert_eq(count, 1);
    cr_assert_str_eq(rows[0].instance, later.instance);
    free(rows);
}

Test(store_list, filters_by_state_and_owner_together)
{
    struct error err = {0};
    struct store_vm running = fixture_add(f.store, "a", "one"),
                    other = fixture_add(f.store, "b", "two");
    fixture_add(f.store, "a", "three");
    cr_assert_eq(store_vm_running(f.store, &running, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_running(f.store, &other, &err), 0, "%s", err.msg);
    static const struct {
        const char *owner;
        enum store_state state;
        size_t count;
    } cases[] = {{NULL, 0, 3},
                 {"a", 0, 2},
                 {"b", 0, 1},
                 {"c", 0, 0},
                 {NULL, STORE_RUNNING, 2},
                 {"a", STORE_RUNNING, 1},
                 {"a", STORE_CREATING, 1},
                 {"b", STORE_CREATING, 0},
                 {NULL, STORE_FAILED, 0}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct store_filter filter = {
            .owner = cases[i].owner, .state = cases[i].state, .limit = 10};
        struct store_vm *rows = NULL;
        size_t count = 99;
        bool more = true;
        cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
        cr_assert_eq(count, cases[i].count, "case %zu", i);
        cr_assert_not(more);
        free(rows);
    }
}

Test(store_list, a_cursor_must_be_known_and_ones_own_and_a_limit_in_range)
{
    struct store_vm mine = fixture_add(f.store, "a", "one"),
                    theirs = fixture_add(f.store, "b", "two");
    struct store_filter filters[] = {
        {.owner = "a", .after = theirs.instance, .limit = 1},
        {.owner = "a", .after = "aaaaaaaaaaaaaaaaaaaa", .limit = 1},
        {.owner = "a", .after = "", .limit = 1},
        {.owner = "a", .after = mine.instance, .limit = 0},
        {.owner = "a", .after = mine.instance, .limit = STORE_PAGE_MAX + 1},
    };
    for (size_t i = 0; i < COUNT_OF(filters); i++) {
        struct error err = {0};
        struct store_vm *rows = NULL;
        size_t count = 99;
        bool more = true;
        cr_assert_eq(store_vm_list(f.store, &filters[i], &rows, &count, &more, &err), -1, "%zu", i);
        cr_assert_eq(err.code, ERR_QUERY);
        cr_assert_null(rows);
        cr_assert_eq(count, 99, "written on failure");
    }
}

Test(store_list, a_full_page_says_whether_there_is_more)
{
    for (int i = 0; i < STORE_PAGE_MAX + 1; i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        fixture_add(f.store, "a", id);
    }
    struct error err = {0};
    struct store_vm *rows = NULL;
    size_t count = 0;
    bool more = false;
    struct store_filter filter = {.limit = STORE_PAGE_MAX};
    cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    cr_assert_eq(count, STORE_PAGE_MAX);
    cr_assert(more);
    filter.after = rows[0].instance;
    struct store_vm *rest = NULL;
    cr_assert_eq(store_vm_list(f.store, &filter, &rest, &count, &more, &err), 0, "%s", err.msg);
    cr_assert_eq(count, STORE_PAGE_MAX);
    cr_assert_not(more, "exactly a page is left");
    free(rows);
    free(rest);
}
