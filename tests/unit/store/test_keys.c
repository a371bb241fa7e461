/* Keys: what a repeated request finds, whenever the service was killed after the first (R02). */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

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

TestSuite(store_keys, .init = start, .fini = stop, .timeout = 60);

static struct store_key key_of(const char *owner, const char *key, const char *request)
{
    struct store_key made = {0};
    snprintf(made.owner, sizeof(made.owner), "%s", owner);
    hash_sha256(key, strlen(key), made.key);
    hash_sha256(request, strlen(request), made.request);
    return made;
}

static enum store_key_state begin_key(const struct store_key *key, char *body)
{
    struct error err = {0};
    struct store_answer answer cleanup(store_answer_release) = {0};
    enum store_key_state state = STORE_KEY_NEW;
    cr_assert_eq(store_key_begin(f.store, key, &state, &answer, &err), 0, "%s", err.msg);
    cr_assert_eq(answer.body != NULL, state == STORE_KEY_ANSWERED);
    if (body != NULL)
        snprintf(body, 128, "%u %s %s", answer.status, answer.location,
                 answer.body != NULL ? answer.body : "");
    return state;
}

static enum store_key_state begin(const char *owner, const char *key, const char *request)
{
    const struct store_key made = key_of(owner, key, request);
    return begin_key(&made, NULL);
}

static void answer_it(const struct store_key *key, const char *text, const char *instance)
{
    struct error err = {0};
    cleanup_free char *body = strdup(text);
    const struct store_answer answer = {
        .status = 200, .location = "/there", .body = body, .len = strlen(body)};
    cr_assert_eq(store_key_answer(f.store, key, &answer, instance, &err), 0, "%s", err.msg);
}

/* As at the next start after a kill. */
static void restart(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert_eq(store_recover(f.store, &err), 0, "%s", err.msg);
}

/* What api/ makes of a row. */
static int its_id(const void *made, struct store_answer *ret)
{
    const struct store_vm *vm = made;
    *ret = (struct store_answer){.status = 201, .body = strdup(vm->id), .len = strlen(vm->id)};
    snprintf(ret->location, sizeof(ret->location), "/vms/%s", vm->id);
    return 0;
}

static int no_memory(const void *made, struct store_answer *ret)
{
    (void)made;
    (void)ret;
    return -1;
}

Test(store_keys, R02_the_next_request_gets_the_answer_after_a_restart_too)
{
    char body[128];
    const struct store_key key = key_of("a", "one", "POST");
    cr_assert_eq(begin_key(&key, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin_key(&key, NULL), STORE_KEY_UNDERWAY);
    answer_it(&key, "text", "");
    for (int turn = 0; turn < 2; turn++) {
        cr_assert_eq(begin_key(&key, body), STORE_KEY_ANSWERED);
        cr_assert_str_eq(body, "200 /there text");
        restart();
    }
}

Test(store_keys, another_request_or_owner_does_not_get_it)
{
    const struct store_key key = key_of("a", "one", "POST");
    cr_assert_eq(begin_key(&key, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin("a", "one", "other"), STORE_KEY_OTHER, "also while it is underway");
    answer_it(&key, "text", "");
    cr_assert_eq(begin("a", "one", "other"), STORE_KEY_OTHER);
    cr_assert_eq(begin("b", "one", "POST"), STORE_KEY_NEW);
    cr_assert_eq(begin("a", "two", "POST"), STORE_KEY_NEW);
}

Test(store_keys, a_released_key_is_as_new)
{
    struct error err = {0};
    const struct store_key key = key_of("a", "one", "POST");
    cr_assert_eq(begin_key(&key, NULL), STORE_KEY_NEW);
    cr_assert_eq(store_key_release(f.store, &key, &err), 0, "%s", err.msg);
    cr_assert_eq(begin("a", "one", "other"), STORE_KEY_NEW);
}

Test(store_keys, R02_what_was_not_answered_before_a_kill_is_free_or_lost)
{
    struct store_key twice = key_of("a", "twice", "POST"), once = key_of("a", "once", "POST");
    once.once = true;
    cr_assert_eq(begin_key(&twice, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin_key(&once, NULL), STORE_KEY_NEW);
    restart();
    cr_assert_eq(begin_key(&twice, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin_key(&once, NULL), STORE_KEY_LOST);
}

Test(store_keys, an_answer_that_is_too_long_is_not_kept)
{
    cleanup_free char *longest = calloc(1, STORE_ANSWER_MAX + 2);
    memset(longest, 'x', STORE_ANSWER_MAX);
    const struct store_key fits = key_of("a", "fits", "POST"), large = key_of("a", "large", "POST");
    begin_key(&fits, NULL);
    begin_key(&large, NULL);
    answer_it(&fits, longest, "");
    longest[STORE_ANSWER_MAX] = 'x';
    answer_it(&large, longest, "");
    cr_assert_eq(begin_key(&fits, NULL), STORE_KEY_ANSWERED);
    cr_assert_eq(begin_key(&large, NULL), STORE_KEY_LOST);
}

/* ---- with what they tell of ---- */

Test(store_keys, R02_a_vm_and_its_answer_are_one_change)
{
    char body[128];
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, "a", "vm"), back;
    struct store_keep keep = {.key = key_of("a", "one", "POST"), .answer = no_memory};
    cr_assert_eq(begin_key(&keep.key, NULL), STORE_KEY_NEW);
    vm.keep = &keep;
    cr_assert_eq(store_vm_running(f.store, &vm, &err), -1);
    cr_assert_eq(err.code, ERR_NO_MEMORY);
    cr_assert_eq(store_vm_by_instance(f.store, vm.instance, &back, &err), 0);
    cr_assert_eq(back.state, STORE_CREATING, "neither without the other");
    err = (struct error){0};
    keep.answer = its_id;
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    restart();
    cr_assert_eq(begin_key(&keep.key, body), STORE_KEY_ANSWERED);
    cr_assert_str_eq(body, "201 /vms/vm vm");
    fixture_end(f.store, vm.instance);
    cr_assert_eq(begin_key(&keep.key, body), STORE_KEY_ANSWERED, "also after its end");
}

Test(store_keys, R02_a_claim_and_its_answer_are_one_change)
{
    char body[128];
    struct error err = {0};
    bool found = false;
    struct store_vm wish = fixture_add_pooled(f.store), vm;
    const struct store_keep keep = {.key = key_of("a", "one", "POST"), .answer = its_id};
    cr_assert_eq(begin_key(&keep.key, NULL), STORE_KEY_NEW);
    snprintf(wish.id, sizeof(wish.id), "mine");
    snprintf(wish.owner, sizeof(wish.owner), "a");
    wish.keep = &keep;
    for (int turn = 0; turn < 2; turn++) { /* the second finds none, and keeps nothing */
        cr_assert_eq(store_vm_claim(f.store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err), 0,
                     "%s", err.msg);
        cr_assert_eq(found, turn == 0);
        restart();
        cr_assert_eq(begin_key(&keep.key, body), turn == 0 ? STORE_KEY_ANSWERED : STORE_KEY_NEW);
        cr_assert_str_eq(body, turn == 0 ? "201 /vms/mine mine" : "0  ");
        cr_assert_eq(store_key_release(f.store, &keep.key, &err), 0, "%s", err.msg);
        fixture_end(f.store, vm.instance);
        cr_assert_eq(begin_key(&keep.key, NULL), STORE_KEY_NEW);
    }
}

/* Was told of while it was made: 202. */
Test(store_keys, R04_a_vm_that_never_ran_releases_the_key_of_its_answer)
{
    struct error err = {0};
    struct store_vm fails = fixture_add(f.store, "a", "fails");
    struct store_vm runs = fixture_add(f.store, "a", "runs");
    const struct store_key one = key_of("a", "one", "POST"), two = key_of("a", "two", "POST");
    begin_key(&one, NULL);
    begin_key(&two, NULL);
    answer_it(&one, "fails", fails.instance);
    answer_it(&two, "runs", runs.instance);
    cr_assert_eq(store_vm_running(f.store, &runs, &err), 0, "%s", err.msg);
    cr_assert_eq(begin_key(&one, NULL), STORE_KEY_ANSWERED);
    fixture_end(f.store, fails.instance);
    fixture_end(f.store, runs.instance);
    cr_assert_eq(begin_key(&one, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin_key(&two, NULL), STORE_KEY_ANSWERED);
}

/* ---- bounds ---- */

static int64_t count(const char *owner)
{
    char path[64], sql[96];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
    snprintf(sql, sizeof(sql), "SELECT count(*) FROM keys WHERE owner = '%s'", owner);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_prepare_v2(db, sql, -1, &statement, NULL), SQLITE_OK);
    cr_assert_eq(sqlite3_step(statement), SQLITE_ROW);
    int64_t number = sqlite3_column_int64(statement, 0);
    sqlite3_finalize(statement);
    sqlite3_close(db);
    return number;
}

Test(store_keys, an_owners_oldest_make_room_for_his_newest_and_for_nobody_elses)
{
    const struct store_key first = key_of("a", "first", "POST"), other = key_of("b", "first", "");
    const struct store_key worked_on = key_of("a", "worked on", "POST");
    begin_key(&worked_on, NULL);
    begin_key(&first, NULL);
    answer_it(&first, "x", "");
    begin_key(&other, NULL);
    answer_it(&other, "x", "");
    for (int i = 0; i < STORE_KEYS_MAX; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        const struct store_key key = key_of("a", name, "POST");
        cr_assert_eq(begin_key(&key, NULL), STORE_KEY_NEW);
        answer_it(&key, "x", "");
    }
    cr_assert_eq(count("a"), STORE_KEYS_MAX + 1, "and the one that is worked on");
    cr_assert_eq(begin_key(&worked_on, NULL), STORE_KEY_UNDERWAY);
    cr_assert_eq(begin_key(&other, NULL), STORE_KEY_ANSWERED);
    cr_assert_eq(begin_key(&first, NULL), STORE_KEY_NEW);
}

Test(store_keys, R25_the_bytes_of_an_owners_answers_are_bounded)
{
    enum { MOST = STORE_KEYS_BYTES_MAX / STORE_ANSWER_MAX };
    cleanup_free char *longest = calloc(1, STORE_ANSWER_MAX + 1);
    const struct store_key first = key_of("a", "first", "POST"), other = key_of("b", "first", "");
    memset(longest, 'x', STORE_ANSWER_MAX);
    begin_key(&first, NULL);
    answer_it(&first, longest, "");
    begin_key(&other, NULL);
    answer_it(&other, longest, "");
    for (int i = 0; i < MOST + 1; i++) {
        char name[16];
        snprintf(name, sizeof(name), "%d", i);
        const struct store_key key = key_of("a", name, "POST");
        cr_assert_eq(begin_key(&key, NULL), STORE_KEY_NEW);
        answer_it(&key, longest, "");
        cr_assert_eq(begin_key(&key, NULL), STORE_KEY_ANSWERED);
    }
    cr_assert_leq(count("a"), MOST + 1);
    cr_assert_geq(count("a"), MOST - MOST / 8);
    cr_assert_eq(begin_key(&first, NULL), STORE_KEY_NEW);
    cr_assert_eq(begin_key(&other, NULL), STORE_KEY_ANSWERED);
}

Test(store_keys, they_age_with_the_host)
{
    enum { HOUR_MS = 3600 * 1000 };
    struct error err = {0};
    const struct store_key old = key_of("a", "old", "POST"), late = key_of("a", "late", "POST");
    cr_assert_eq(store_age(f.store, "boot", 1, INT64_MAX / 2, &err), 0, "%s", err.msg);
    begin_key(&old, NULL);
    answer_it(&old, "x", "");
    begin_key(&late, NULL); /* worked on: stays */
    cr_assert_eq(store_age(f.store, "boot", INT64_C(24) * HOUR_MS, INT64_MAX / 2, &err), 0);
    cr_assert_eq(begin_key(&old, NULL), STORE_KEY_ANSWERED);
    cr_assert_eq(store_age(f.store, "boot", INT64_C(24) * HOUR_MS + 2, INT64_MAX / 2, &err), 0);
    cr_assert_eq(begin_key(&late, NULL), STORE_KEY_UNDERWAY);
    cr_assert_eq(begin_key(&old, NULL), STORE_KEY_NEW);
}
