/* GET /vms/{id} from memory: only what is still true, only to the caller it was for (R02). */
#include "api/internal.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>

static struct fixture f;
static struct api api;
static const struct caller alice = {.name = "alice"};
static int64_t clock_set_ms; /* how far the wall clock was put forward */

int64_t __real_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void);
int64_t __wrap_clock_wall_ms(void)
{
    return __real_clock_wall_ms() + clock_set_ms;
}

static void setup(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    api.store = f.store;
    api.known = api_known_new();
    cr_assert_not_null(api.known);
}

static void teardown(void)
{
    api_known_free(api.known);
    fixture_release(&f);
}

static struct api_request request_of(const struct caller *caller, const char *id)
{
    struct api_request request = {.caller = caller, .query = ""};
    snprintf(request.id, sizeof(request.id), "%s", id);
    return request;
}

/* What a worker does. */
static unsigned ask(const struct caller *caller, const char *id, char text[static 4096])
{
    struct error err = {0};
    struct api_response response cleanup(api_response_release) = {0};
    const struct api_request request = request_of(caller, id);
    if (api_vm_get(&api, &request, &response, &err) < 0)
        return 0;
    snprintf(text, 4096, "%.*s", (int)response.body_len, response.body);
    return response.status;
}

static bool known(const struct caller *caller, const char *id, char text[static 4096])
{
    struct api_response response cleanup(api_response_release) = {0};
    const struct api_request request = request_of(caller, id);
    bool found = api_vm_known(&api, &request, &response);
    snprintf(text, 4096, "%.*s", (int)response.body_len, found ? response.body : "");
    cr_assert(!found || (response.status == 200 && response.content_type != NULL));
    return found;
}

static struct store_vm running_vm(const char *owner, const char *id)
{
    struct error err = {0};
    struct store_vm vm = fixture_add(f.store, owner, id);
    vm.expires_boot_ms = clock_boot_ms() + 60000;
    vm.expires_wall_ms = clock_wall_ms() + 60000;
    cr_assert_eq(store_vm_running(f.store, &vm, &err), 0, "%s", err.msg);
    return vm;
}

TestSuite(known, .init = setup, .fini = teardown, .timeout = 60);

Test(known, R02_an_answer_is_given_again_as_it_was)
{
    char first[4096], second[4096];
    running_vm("alice", "vm");
    cr_assert_not(known(&alice, "vm", first), "before anybody asked");
    cr_assert_eq(ask(&alice, "vm", first), 200);
    for (int i = 0; i < 3; i++) {
        cr_assert(known(&alice, "vm", second));
        cr_assert_str_eq(first, second);
    }
    const struct api_request odd = {.caller = &alice, .id = "vm", .query = "x=1"};
    struct api_response response = {0};
    cr_assert_not(api_vm_known(&api, &odd, &response), "a query is the handler's to refuse");
}

static void expect_change(const char *what, int result, const struct error *err)
{
    char text[4096];
    cr_assert_eq(result, 0, "%s: %s", what, err->msg);
    cr_assert_not(known(&alice, "vm", text), "%s, and the answer from before is given", what);
    cr_assert_eq(ask(&alice, "vm", text), 200);
    cr_assert(known(&alice, "vm", text), "%s", what);
}

Test(known, R02_any_change_of_the_inventory_ends_it)
{
    struct error err = {0};
    char text[4096];
    struct store_vm vm = running_vm("alice", "vm"), back;
    cr_assert_eq(ask(&alice, "vm", text), 200);
    expect_change("kept alive", store_vm_keepalive(f.store, "alice", "vm", 7200, 1, &back, &err),
                  &err);
    expect_change("paused", store_vm_paused(f.store, vm.instance, true, 1, &back, &err), &err);
    expect_change("resumed", store_vm_paused(f.store, vm.instance, false, 2, &back, &err), &err);
    expect_change("its agent hangs",
                  store_vm_agent(f.store, vm.instance, STORE_AGENT_UNRESPONSIVE, &err), &err);
    expect_change("is deleted", store_vm_deleting(f.store, "alice", "vm", &back, &err), &err);
    fixture_end(f.store, vm.instance);
    cr_assert_not(known(&alice, "vm", text), "it has ended");
    cr_assert_eq(ask(&alice, "vm", text), 404);
    cr_assert_not(known(&alice, "vm", text), "that it is gone is asked each time");
}

/* So many callers that many share a place with alice's answer. */
Test(known, R41_another_callers_answer_never_leaves)
{
    enum { OTHERS = 20000 };
    char text[4096];
    running_vm("alice", "vm");
    cr_assert_eq(ask(&alice, "vm", text), 200);
    for (unsigned i = 0; i < OTHERS; i++) {
        char name[32];
        struct caller other = {.admin = i % 2 == 1};
        snprintf(other.name, sizeof(other.name), "uid:%u", i);
        cr_assert_not(known(&other, "vm", text), "%s got %s", other.name, text);
        snprintf(name, sizeof(name), "vm-%u", i);
        cr_assert_not(known(&alice, name, text), "%s got %s", name, text);
    }
    const struct caller administrator = {.name = "alice", .admin = true};
    cr_assert_not(known(&administrator, "vm", text), "he might mean another's");
    cr_assert(known(&alice, "vm", text));
}

Test(known, R02_an_end_is_told_by_the_clock_as_it_is_set_now)
{
    char text[4096], before[4096];
    running_vm("alice", "vm");
    cr_assert_eq(ask(&alice, "vm", before), 200);
    cr_assert(known(&alice, "vm", text));
    clock_set_ms = 3600000;
    cr_assert_not(known(&alice, "vm", text), "it would tell an hour too early");
    cr_assert_eq(ask(&alice, "vm", text), 200);
    cr_assert_str_neq(text, before);
    clock_set_ms = 0;
    cr_assert_eq(ask(&alice, "vm", text), 200);
    cr_assert_str_eq(text, before);
}

Test(known, R02_what_takes_too_much_room_is_asked_each_time)
{
    struct error err = {0};
    char text[4096];
    struct store_vm vm = fixture_vm("alice", "vm");
    vm.expires_boot_ms = clock_boot_ms() + 60000;
    vm.labels[0] = '"';
    memset(vm.labels + 1, 'l', sizeof(vm.labels) - 3);
    vm.labels[sizeof(vm.labels) - 2] = '"';
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(ask(&alice, "vm", text), 200);
    cr_assert_not(known(&alice, "vm", text));
}
