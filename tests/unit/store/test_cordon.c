/* A cordon: one for all, kept over restarts, and no VM comes in behind it. */
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

TestSuite(store_cordon, .init = start, .fini = stop);

static struct store_cordon set(const char *owner, int64_t drain_ms)
{
    struct error err = {0};
    struct store_cordon cordon;
    cr_assert_eq(store_cordon_set(f.store, owner, drain_ms, &cordon, &err), 0, "%s", err.msg);
    return cordon;
}

static struct store_cordon get(void)
{
    struct error err = {0};
    struct store_cordon cordon;
    cr_assert_eq(store_cordon_get(f.store, &cordon, &err), 0, "%s", err.msg);
    return cordon;
}

Test(store_cordon, R02_it_refuses_vms_until_it_is_lifted_also_after_a_restart)
{
    struct error err = {0};
    cr_assert(!get().set);
    set("admin", -1);
    struct store_vm vm = fixture_vm("a", "vm");
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), -1);
    cr_assert_eq(err.code, ERR_CORDONED);
    cr_assert_not_null(strstr(err.msg, "admin"), "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(fixture_reopen(&f, &err), 0, "%s", err.msg);
    cr_assert(get().set);
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), -1);
    err = (struct error){0};
    cr_assert_eq(store_cordon_lift(f.store, &err), 0, "%s", err.msg);
    cr_assert_eq(store_vm_insert(f.store, &vm, &err), 0, "%s", err.msg);
    cr_assert_eq(store_cordon_lift(f.store, &err), 0, "lifting none is success: %s", err.msg);
}

Test(store_cordon, the_first_owner_and_the_last_deadline_stand)
{
    struct store_cordon first = set("admin", -1);
    cr_assert_eq(first.drain_boot_ms, 0);
    int64_t before = clock_boot_ms();
    struct store_cordon drained = set("root", 60000);
    cr_assert_str_eq(drained.owner, "admin");
    cr_assert_eq(drained.since_wall_ms, first.since_wall_ms);
    cr_assert(drained.drain_boot_ms >= before + 60000);
    cr_assert(drained.drain_boot_ms <= clock_boot_ms() + 60000);
    cr_assert_eq(set("root", -1).drain_boot_ms, drained.drain_boot_ms, "a cordon keeps the drain");
    cr_assert(set("root", 0).drain_boot_ms < drained.drain_boot_ms);
    cr_assert_eq(get().drain_wall_ms, set("root", -1).drain_wall_ms);
}
