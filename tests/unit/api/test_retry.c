/* Requests with an Idempotency-Key: which are worked on, which get an answer again. */
#include "api/internal.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <sqlite3.h>

static struct fixture f;
static struct api api;
static const struct caller alice = {.name = "alice"};
static unsigned worked;
static enum error_code fails; /* what the handler answers; ERR_NONE: 200 */

static int handler(struct api *at, const struct api_request *request, struct api_response *response,
                   struct error *err)
{
    (void)at;
    (void)request;
    worked++;
    if (fails != ERR_NONE)
        return error_set(err, fails, 0, "as the test wants");
    snprintf(response->location, sizeof(response->location), "/made/%u", worked);
    return api_respond_json(response, 200, cJSON_CreateNumber(worked), err);
}

static void setup(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    api.store = f.store;
    worked = 0;
    fails = ERR_NONE;
}

static void teardown(void)
{
    fixture_release(&f);
}

TestSuite(retry, .init = setup, .fini = teardown, .timeout = 60);

struct told {
    unsigned status;
    enum error_code code;
    bool replayed;
    char body[512], location[sizeof((struct api_response){0}.location)];
};

static struct told ask(enum api_retry retry, const char *key, const char *path, const char *id,
                       const char *query, const char *body)
{
    const struct api_route route = {
        .method = "POST", .path = path, .handler = handler, .retry = retry};
    struct api_request request = {.caller = &alice,
                                  .query = query,
                                  .body = body,
                                  .body_len = strlen(body),
                                  .keyed = key != NULL};
    struct api_response response cleanup(api_response_release) = {0};
    struct told told = {0};
    snprintf(request.id, sizeof(request.id), "%s", id);
    if (key != NULL)
        hash_sha256(key, strlen(key), request.key.key);
    api_dispatch(&api, &route, &request, &response);
    told.status = response.status;
    told.code = response.code;
    told.replayed = response.replayed;
    snprintf(told.body, sizeof(told.body), "%.*s", (int)response.body_len, response.body);
    snprintf(told.location, sizeof(told.location), "%s", response.location);
    return told;
}

static struct told again(enum api_retry retry)
{
    return ask(retry, "key", "/vms", "", "", "{}");
}

Test(retry, R02_the_first_answer_is_given_again_as_it_was)
{
    struct told first = again(API_AGAIN), second = again(API_AGAIN);
    cr_assert_eq(worked, 1);
    cr_assert(!first.replayed && second.replayed && second.status == 200);
    cr_assert_str_eq(first.body, second.body);
    cr_assert_str_eq(second.location, "/made/1");
    ask(API_AGAIN, NULL, "/vms", "", "", "{}");
    ask(API_AGAIN, "another", "/vms", "", "", "{}");
    cr_assert_eq(worked, 3);
}

Test(retry, another_request_with_the_key_is_refused)
{
    again(API_AGAIN);
    const struct told others[] = {ask(API_AGAIN, "key", "/vms", "", "", "{} "),
                                  ask(API_AGAIN, "key", "/vms", "", "a", "{}"),
                                  ask(API_AGAIN, "key", "/vms", "a", "", "{}"),
                                  ask(API_AGAIN, "key", "/admin/drain", "", "", "{}")};
    for (size_t i = 0; i < COUNT_OF(others); i++)
        cr_assert(others[i].status == 422 && others[i].code == ERR_KEY_REUSED, "%zu", i);
    cr_assert_eq(worked, 1);
    cr_assert_eq(again(API_AGAIN).status, 200);
}

/* Whatever the route: what was refused, or failed and was undone, is tried anew. */
Test(retry, R04_a_request_that_did_nothing_leaves_its_key_free)
{
    static const struct {
        enum api_retry retry;
        enum error_code code;
    } cases[] = {{API_KEPT, ERR_BOOT_TIMEOUT}, {API_KEPT, ERR_CAPACITY},
                 {API_AGAIN, ERR_HYPERVISOR},  {API_ONCE, ERR_VM_UNKNOWN},
                 {API_ONCE, ERR_BUSY},         {API_ONCE, ERR_VM_PAUSED}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        worked = 0;
        fails = cases[i].code;
        cr_assert_eq(again(cases[i].retry).code, cases[i].code);
        fails = ERR_NONE;
        struct told second = again(cases[i].retry);
        cr_assert(second.status == 200 && !second.replayed && worked == 2, "%zu", i);
        struct error err = {0};
        struct store_key key = {.owner = "alice"};
        hash_sha256("key", 3, key.key);
        cr_assert_eq(store_key_release(f.store, &key, &err), 0, "%s", err.msg);
    }
}

Test(retry, a_command_that_may_have_begun_is_not_begun_again)
{
    static const enum error_code codes[] = {ERR_EXEC_TIMEOUT, ERR_GUEST_CLOSED, ERR_GUEST_PROTOCOL};
    for (size_t i = 0; i < COUNT_OF(codes); i++) {
        char key[16];
        snprintf(key, sizeof(key), "%zu", i);
        worked = 0;
        fails = codes[i];
        struct told first = ask(API_ONCE, key, "/exec", "vm", "", "{}");
        fails = ERR_NONE;
        struct told second = ask(API_ONCE, key, "/exec", "vm", "", "{}");
        cr_assert(worked == 1 && second.replayed && second.status == first.status);
        cr_assert_str_eq(second.body, first.body);
    }
}

static int asks_again(struct api *at, const struct api_request *request,
                      struct api_response *response, struct error *err)
{
    (void)at;
    (void)request;
    struct told twin = again(API_AGAIN);
    cr_assert(twin.status == 409 && twin.code == ERR_KEY_BUSY);
    return api_respond_json(response, 200, cJSON_CreateNumber(1), err);
}

static void run_sql(const char *sql)
{
    char path[64];
    sqlite3 *db = NULL;
    snprintf(path, sizeof(path), "%s/motte.db", f.dir);
    cr_assert_eq(sqlite3_open(path, &db), SQLITE_OK);
    cr_assert_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

Test(retry, an_answer_that_cannot_be_kept_is_said_to_be_lost)
{
    run_sql("CREATE UNIQUE INDEX room_for_one ON keys (status) WHERE status > 0");
    cr_assert_eq(ask(API_AGAIN, "before", "/vms", "", "", "{}").status, 200);
    cr_assert_eq(again(API_AGAIN).status, 200);
    struct told second = again(API_AGAIN);
    cr_assert(second.status == 409 && second.code == ERR_KEY_LOST, "%s", second.body);
    cr_assert_eq(worked, 2);
}

Test(retry, R04_a_twin_while_the_first_is_worked_on_does_nothing)
{
    const struct api_route route = {
        .method = "POST", .path = "/vms", .handler = asks_again, .retry = API_AGAIN};
    struct api_request request = {
        .caller = &alice, .query = "", .body = "{}", .body_len = 2, .keyed = true};
    struct api_response response cleanup(api_response_release) = {0};
    hash_sha256("key", 3, request.key.key);
    api_dispatch(&api, &route, &request, &response);
    cr_assert_eq(response.status, 200);
    cr_assert_eq(worked, 0);
    cr_assert(again(API_AGAIN).replayed);
}

Test(retry, R02_of_what_was_cut_off_only_commands_are_lost)
{
    struct error err = {0};
    fails = ERR_NONE;
    struct told lost = {0};
    for (int retry = API_ONCE; retry <= API_KEPT; retry++) {
        struct store_key key = {.owner = "alice", .once = retry == API_ONCE};
        struct store_answer answer cleanup(store_answer_release) = {0};
        enum store_key_state state;
        char name[16], text[128], hex[HASH_HEX_SIZE];
        uint8_t body[HASH_SIZE];
        snprintf(name, sizeof(name), "%d", retry);
        hash_sha256(name, strlen(name), key.key);
        hash_sha256("{}", 2, body);
        hash_to_hex(body, HASH_SIZE, hex);
        snprintf(text, sizeof(text), "POST\n/x\n\n\n\n%s\n0", hex);
        hash_sha256(text, strlen(text), key.request);
        cr_assert_eq(store_key_begin(f.store, &key, &state, &answer, &err), 0, "%s", err.msg);
        cr_assert_eq(store_recover(f.store, &err), 0, "%s", err.msg);
        lost = ask((enum api_retry)retry, name, "/x", "", "", "{}");
        cr_assert_eq(lost.code, retry == API_ONCE ? ERR_KEY_LOST : ERR_NONE, "%d", retry);
    }
    cr_assert_eq(worked, 2);
}
