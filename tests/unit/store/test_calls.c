/* The audit of calls: kept in order, a ring of each caller inside one of all. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>

static struct fixture f;

static void start(void)
{
    struct error err = {0};
    cr_assert_eq(fixture_open_in(&f, "/dev/shm", &err), 0, "%s", err.msg);
}

static void stop(void)
{
    fixture_release(&f);
}

TestSuite(store_calls, .init = start, .fini = stop, .timeout = 120);

static struct store_call call(const char *caller, unsigned status)
{
    struct store_call call = {.wall_ms = 1769860800123, .status = status};
    snprintf(call.caller, sizeof(call.caller), "%s", caller);
    snprintf(call.method, sizeof(call.method), "POST");
    snprintf(call.path, sizeof(call.path), "/vms");
    return call;
}

static void add_many(const char *caller, size_t count)
{
    enum { CHUNK = 1000 };
    static struct store_call calls[CHUNK];
    struct error err = {0};
    for (size_t i = 0; i < CHUNK; i++)
        calls[i] = call(caller, 401);
    for (size_t at = 0; at < count; at += CHUNK)
        cr_assert_eq(store_calls_add(f.store, calls, count - at < CHUNK ? count - at : CHUNK, &err),
                     0, "%s", err.msg);
}

static struct store_call *list(int64_t after, uint32_t limit, size_t *ret_count, bool *ret_more)
{
    struct error err = {0};
    struct store_call *calls = NULL;
    cr_assert_eq(store_calls_list(f.store, after, limit, &calls, ret_count, ret_more, &err), 0,
                 "%s", err.msg);
    return calls;
}

static uint64_t size(void)
{
    struct error err = {0};
    uint64_t entries = 0;
    cr_assert_eq(store_calls_size(f.store, &entries, &err), 0, "%s", err.msg);
    return entries;
}

Test(store_calls, R25_a_call_is_read_as_it_was_written_also_after_a_restart)
{
    struct error err = {0};
    size_t count = 0;
    bool more = false;
    struct store_call full = {.wall_ms = 1769860800123,
                              .caller = "acme",
                              .token = "ci",
                              .request_id = "0123456789abcdef",
                              .method = "DELETE",
                              .route = "/vms/{id}",
                              .path = "/vms/demo",
                              .vm = "demo",
                              .status = 404,
                              .code = "vm_not_found"};
    cr_assert_eq(store_events_boot(f.store, "boot", &err), 0, "%s", err.msg);
    cr_assert_eq(store_calls_add(f.store, &full, 1, &err), 0, "%s", err.msg);
    add_many("", 2);
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    struct store_call *calls = list(0, 2, &count, &more);
    cr_assert(count == 2 && more);
    full.seq = (INT64_C(1) << 32) + 1;
    cr_assert_arr_eq(&calls[0], &full, sizeof(full));
    int64_t seq = calls[1].seq;
    cr_assert_eq(seq, full.seq + 1);
    free(calls);
    calls = list(seq, 2, &count, &more);
    cr_assert(count == 1 && !more && calls[0].seq == seq + 1);
    free(calls);
    cr_assert_eq(size(), 3);
    cr_assert_eq(store_calls_list(f.store, 0, STORE_PAGE_MAX + 1, &calls, &count, &more, &err), -1);
    cr_assert_eq(err.code, ERR_QUERY);
}

Test(store_calls, R25_who_floods_takes_nothing_from_the_others)
{
    size_t count = 0;
    bool more = false;
    add_many("acme", 1);
    add_many("", STORE_CALLS_CALLER_MAX + 3000);
    cr_assert_eq(size(), STORE_CALLS_CALLER_MAX + 1);
    struct store_call *calls = list(0, 1, &count, &more);
    cr_assert_str_eq(calls[0].caller, "acme");
    free(calls);
    for (char name[] = "a"; name[0] < 'e'; name[0]++)
        add_many(name, STORE_CALLS_CALLER_MAX + 7);
    cr_assert_eq(size(), STORE_CALLS_MAX);
    calls = list(0, 1, &count, &more);
    cr_assert_str_eq(calls[0].caller, "", "the oldest of all went");
    free(calls);
}
