/* What an owner may have at once: looked at where a VM is admitted, whichever way it comes. */
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>

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

TestSuite(store_quota, .init = start, .fini = stop);

static void allow(uint32_t vms, uint32_t vcpus, uint32_t memory_mib)
{
    const struct store_quotas quotas = {
        .common = {.vms = vms, .vcpus = vcpus, .memory_mib = memory_mib}};
    store_quotas_set(f.store, &quotas);
}

static enum error_code add(const char *owner, const char *id, uint32_t vcpus, uint32_t memory_mib)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm(owner, id);
    vm.vcpus = vcpus;
    vm.memory_mib = memory_mib;
    return store_vm_insert(f.store, &vm, &err) == 0 ? ERR_NONE : err.code;
}

Test(store_quota, R09_each_owner_has_so_many_and_an_end_makes_room)
{
    allow(2, 0, 0);
    const struct store_vm first = fixture_add(f.store, "a", "one");
    cr_assert_eq(add("a", "two", 1, 128), ERR_NONE);
    cr_assert_eq(add("a", "three", 1, 128), ERR_QUOTA);
    cr_assert_eq(add("b", "three", 1, 128), ERR_NONE, "another's are no concern");
    fixture_end(f.store, first.instance);
    cr_assert_eq(add("a", "three", 1, 128), ERR_NONE);
    cr_assert_eq(add("a", "four", 1, 128), ERR_QUOTA);
    allow(0, 0, 0);
    cr_assert_eq(add("a", "four", 1, 128), ERR_NONE);
}

Test(store_quota, R09_vcpus_and_memory_are_counted_to_the_last)
{
    allow(0, 4, 1024);
    cr_assert_eq(add("a", "one", 2, 512), ERR_NONE);
    cr_assert_eq(add("a", "two", 4, 128), ERR_QUOTA);
    cr_assert_eq(add("a", "two", 2, 513), ERR_QUOTA);
    cr_assert_eq(add("a", "two", 2, 512), ERR_NONE);
    cr_assert_eq(add("a", "three", 1, 128), ERR_QUOTA);
}

Test(store_quota, R09_one_owner_has_his_own_and_what_that_leaves_out_is_as_for_all)
{
    const struct store_quotas quotas = {
        .common = {.vms = 1, .memory_mib = 300, .execs = 5},
        .count = 2,
        .of = {{.owner = "a", .quota = {2, STORE_QUOTA_COMMON, STORE_QUOTA_COMMON, 7}},
               {.owner = "free", .quota = {0}}}};
    struct store_quota used = {0};
    struct error err = {0};
    store_quotas_set(f.store, &quotas);
    cr_assert_eq(add("a", "one", 2, 128), ERR_NONE);
    cr_assert_eq(add("a", "two", 2, 173), ERR_QUOTA, "the memory of all");
    cr_assert_eq(add("a", "two", 2, 172), ERR_NONE);
    cr_assert_eq(add("a", "three", 1, 128), ERR_QUOTA);
    cr_assert_eq(add("b", "one", 1, 128), ERR_NONE);
    cr_assert_eq(add("b", "two", 1, 128), ERR_QUOTA);
    for (char id[] = "a"; id[0] < 'f'; id[0]++)
        cr_assert_eq(add("free", id, 4, 512), ERR_NONE, "0 is no limit");
    struct store_quota most = store_quota_of(f.store, "a");
    cr_assert(most.vms == 2 && most.vcpus == 0 && most.memory_mib == 300 && most.execs == 7);
    cr_assert_eq(store_quota_of(f.store, "b").execs, 5);
    cr_assert_eq(store_quota_used(f.store, "a", &used, &err), 0, "%s", err.msg);
    cr_assert(used.vms == 2 && used.vcpus == 4 && used.memory_mib == 300);
}

Test(store_quota, R09_one_from_the_pool_counts_and_those_that_wait_do_not)
{
    struct error err = {0};
    struct store_vm vm = {0};
    bool found = false;
    allow(1, 0, 0);
    for (int i = 0; i < 3; i++)
        fixture_add_pooled(f.store);
    struct store_vm wish = fixture_vm("a", "one");
    wish.memory_mib = 256;
    memset(wish.image_digest, 7, sizeof(wish.image_digest));
    cr_assert_eq(store_vm_claim(f.store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err), 0, "%s",
                 err.msg);
    cr_assert(found);
    snprintf(wish.id, sizeof(wish.id), "two");
    cr_assert_eq(store_vm_claim(f.store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err), -1);
    cr_assert_eq(err.code, ERR_QUOTA);
}

static void *add_some(void *context)
{
    char id[32];
    for (unsigned i = 0; i < 8; i++) {
        snprintf(id, sizeof(id), "vm-%u-%u", *(const unsigned *)context, i);
        (void)add("a", id, 1, 128);
    }
    return NULL;
}

Test(store_quota, R09_many_at_once_have_no_more_than_one_after_the_other)
{
    pthread_t threads[4];
    unsigned numbers[COUNT_OF(threads)];
    struct store_vm *rows = NULL;
    size_t count = 0;
    bool more = false;
    struct error err = {0};
    allow(5, 0, 0);
    for (unsigned i = 0; i < COUNT_OF(threads); i++) {
        numbers[i] = i;
        cr_assert_eq(pthread_create(&threads[i], NULL, add_some, &numbers[i]), 0);
    }
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    const struct store_filter filter = {.owner = "a", .limit = 100};
    cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    cr_assert_eq(count, 5);
    free(rows);
}
