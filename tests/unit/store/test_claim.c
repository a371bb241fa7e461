/* The pool in the inventory: nobody sees what waits in it, and who claims one has a VM like others. */
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

TestSuite(store_claim, .init = start, .fini = stop);

/* Of what fixture_add_pooled() makes. */
static struct store_vm wish_for(const char *owner, const char *id)
{
    struct store_vm wish = fixture_vm(owner, id);
    wish.memory_mib = 256;
    memset(wish.image_digest, 7, sizeof(wish.image_digest));
    wish.on_unresponsive = STORE_KEEP;
    wish.ttl_s = 77;
    snprintf(wish.labels, sizeof(wish.labels), "{\"job\":\"7\"}");
    return wish;
}

static bool claim(const struct store_vm *wish, struct store_vm *ret)
{
    struct error err = {0};
    bool found = false;
    cr_assert_eq(store_vm_claim(f.store, wish, FIXTURE_POOLED_LABELS, ret, &found, &err), 0, "%s",
                 err.msg);
    return found;
}

static enum error_code get(const char *owner, const char *id, struct store_vm *ret)
{
    struct error err = {0};
    int result = store_vm_get(f.store, owner, id, ret, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    return err.code;
}

static size_t list(const char *owner, const char *after, struct store_vm *ret)
{
    struct error err = {0};
    struct store_vm *rows = NULL;
    size_t count = 0;
    bool more = false;
    const struct store_filter filter = {.owner = owner, .after = after, .limit = 10};
    cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    if (ret != NULL)
        memcpy(ret, rows, count * sizeof(*ret));
    free(rows);
    return count;
}

static struct store_totals totals(void)
{
    struct error err = {0};
    struct store_totals ret;
    cr_assert_eq(store_totals(f.store, &ret, &err), 0, "%s", err.msg);
    return ret;
}

Test(store_claim, R05_nobody_sees_what_waits_and_it_takes_its_room)
{
    static const char *const owners[] = {NULL, STORE_OWNER_ITSELF, "a"};
    struct store_vm pooled = fixture_add_pooled(f.store), back;
    cr_assert_eq(store_vm_by_instance(f.store, pooled.instance, &back, &(struct error){0}), 0);
    cr_assert(back.purpose == STORE_FOR_POOL && strcmp(back.owner, STORE_OWNER_ITSELF) == 0 &&
              strcmp(back.id, back.instance) == 0);
    for (int ended = 0; ended < 2; ended++) {
        for (size_t i = 0; i < COUNT_OF(owners); i++) {
            struct store_audit *entries = NULL;
            struct store_certificate certificate;
            size_t count = 0;
            bool more = false;
            const struct store_audit_filter filter = {owners[i], pooled.instance, 0, 10};
            cr_assert_eq(get(owners[i], pooled.instance, &back), ERR_VM_UNKNOWN, "%zu", i);
            cr_assert_eq(list(owners[i], NULL, NULL), 0, "%zu", i);
            cr_assert_eq(
                store_vm_deleting(f.store, owners[i], pooled.instance, &back, &(struct error){0}),
                -1);
            cr_assert_eq(store_vm_keepalive(f.store, owners[i], pooled.instance, 9, 9, &back,
                                            &(struct error){0}),
                         -1);
            cr_assert_eq(store_certificate_get(f.store, owners[i], pooled.instance, &certificate,
                                               &(struct error){0}),
                         -1);
            cr_assert_eq(
                store_audit_list(f.store, &filter, &entries, &count, &more, &(struct error){0}),
                -1);
        }
        if (ended == 0) {
            cr_assert(totals().memory_mib == 256 && totals().itself == 1 &&
                      totals().by_state[STORE_RUNNING] == 0);
            fixture_end(f.store, pooled.instance);
        }
    }
    cr_assert_eq(totals().itself, 0);
}

Test(store_claim, R02_the_oldest_that_fits_becomes_the_callers)
{
    struct store_vm first = fixture_add_pooled(f.store), second = fixture_add_pooled(f.store);
    struct store_vm wish = wish_for("a", "vm"), vm, back;
    cr_assert(claim(&wish, &vm));
    cr_assert_str_eq(vm.instance, first.instance);
    cr_assert_eq(get("a", "vm", &back), ERR_NONE);
    cr_assert_eq(memcmp(&vm, &back, sizeof(vm)), 0, "what was told is what is there");
    cr_assert(back.state == STORE_RUNNING && back.purpose == STORE_FOR_CALLER &&
              back.source == STORE_FROM_POOL && back.agent == STORE_AGENT_RESPONSIVE);
    cr_assert(back.ttl_s == 77 && back.on_unresponsive == STORE_KEEP &&
              back.idle_s == wish.idle_s && back.expires_boot_ms == wish.expires_boot_ms &&
              back.expires_wall_ms == wish.expires_wall_ms &&
              back.created_wall_ms == wish.created_wall_ms &&
              back.idle_since_boot_ms == wish.idle_since_boot_ms);
    cr_assert_str_eq(back.labels, wish.labels);
    cr_assert_str_eq(back.chain, first.chain);
    cr_assert(totals().itself == 1 && totals().by_state[STORE_RUNNING] == 1);
    wish = wish_for("b", "vm");
    cr_assert(claim(&wish, &vm));
    cr_assert_str_eq(vm.instance, second.instance);
    wish = wish_for("b", "other");
    cr_assert(!claim(&wish, &vm), "no more are there");
    cr_assert_eq(get("b", "other", &back), ERR_VM_UNKNOWN);
}

Test(store_claim, R02_only_what_fits_is_claimed)
{
    struct store_vm pooled = fixture_add_pooled(f.store), vm;
    struct error err = {0};
    for (int i = 0; i < 9; i++) {
        struct store_vm wish = wish_for("a", "vm");
        wish.image_digest[31] ^= i == 0;
        wish.vcpus += i == 1;
        wish.memory_mib += i == 2;
        wish.disk_mib -= i == 3;
        wish.without ^= i == 4;
        wish.layout += i == 5;
        snprintf(wish.seccomp, sizeof(wish.seccomp), "%s", i == 6 ? "basic" : "minimal");
        snprintf(wish.hypervisor, sizeof(wish.hypervisor), "%s", i == 7 ? "qemu" : "firecracker");
        wish.boot[0] = i == 8 ? 'f' : wish.boot[0];
        cr_assert(!claim(&wish, &vm), "%d", i);
    }
    struct store_vm wish = wish_for("a", "vm");
    bool found = true;
    cr_assert_eq(store_vm_claim(f.store, &wish, "{}", &vm, &found, &err), 0, "%s", err.msg);
    cr_assert(!found, "it has another kernel");
    cr_assert_eq(store_vm_agent(f.store, pooled.instance, STORE_AGENT_UNRESPONSIVE, &err), 0);
    cr_assert(!claim(&wish, &vm), "its agent does not answer");
    cr_assert_eq(store_vm_agent(f.store, pooled.instance, STORE_AGENT_RESPONSIVE, &err), 0);
    cr_assert(claim(&wish, &vm));
}

Test(store_claim, R02_a_taken_id_and_a_cordon_refuse_as_for_a_spawn)
{
    struct store_vm pooled = fixture_add_pooled(f.store), vm, back;
    struct store_vm wish = wish_for("a", "vm");
    struct store_cordon cordon;
    struct error err = {0};
    bool found = false;
    fixture_add(f.store, "a", "vm");
    cr_assert_eq(store_vm_claim(f.store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err), -1);
    cr_assert_eq(err.code, ERR_ID_TAKEN);
    err = (struct error){0};
    wish = wish_for("a", "another");
    cr_assert_eq(store_cordon_set(f.store, "admin", -1, &cordon, &err), 0);
    cr_assert_eq(store_vm_claim(f.store, &wish, FIXTURE_POOLED_LABELS, &vm, &found, &err), -1);
    cr_assert_eq(err.code, ERR_CORDONED);
    cr_assert_eq(store_vm_by_instance(f.store, pooled.instance, &back, &err), 0);
    cr_assert(back.purpose == STORE_FOR_POOL && back.state == STORE_RUNNING);
}

Test(store_claim, R12_a_walk_goes_on_before_one_that_was_claimed_meanwhile)
{
    struct store_vm pooled = fixture_add_pooled(f.store), vm, rows[10];
    struct store_vm early = fixture_add(f.store, "a", "early");
    struct store_vm wish = wish_for("a", "claimed");
    cr_assert(claim(&wish, &vm));
    struct store_vm late = fixture_add(f.store, "a", "late");
    cr_assert_eq(list("a", early.instance, rows), 2);
    cr_assert_str_eq(rows[0].instance, pooled.instance);
    cr_assert_str_eq(rows[1].instance, late.instance);
    fixture_end(f.store, pooled.instance);
    cr_assert_eq(list("a", pooled.instance, rows), 1, "its certificate keeps the place");
}

Test(store_claim, R25_the_audit_has_the_claim_behind_what_happened_before)
{
    struct error err = {0};
    struct store_vm pooled = fixture_add_pooled(f.store), vm;
    struct store_vm wish = wish_for("a", "vm");
    struct store_audit *entries = NULL;
    size_t count = 0;
    bool more = false;
    const struct store_audit_filter filter = {"a", "vm", 0, 10};
    cr_assert(claim(&wish, &vm));
    cr_assert_eq(store_audit_list(f.store, &filter, &entries, &count, &more, &err), 0);
    cr_assert_eq(count, 3);
    cr_assert(entries[0].kind == STORE_AUDIT_CREATED && entries[1].kind == STORE_AUDIT_RUNNING &&
              entries[2].kind == STORE_AUDIT_CLAIMED);
    cr_assert_str_eq(entries[0].instance, pooled.instance);
    cr_assert_str_eq(entries[2].id, "vm");
    cr_assert_str_eq(entries[2].owner, "a");
    free(entries);
}

Test(store_claim, R02_what_is_taken_back_is_not_claimed_and_what_is_claimed_not_taken_back)
{
    struct error err = {0};
    struct store_vm first = fixture_add_pooled(f.store), second = fixture_add_pooled(f.store), vm;
    struct store_vm wish = wish_for("a", "vm");
    bool done = false;
    cr_assert_eq(store_vm_retire(f.store, first.instance, &done, &err), 0);
    cr_assert(done);
    cr_assert(claim(&wish, &vm));
    cr_assert_str_eq(vm.instance, second.instance);
    cr_assert_eq(store_vm_retire(f.store, second.instance, &done, &err), 0);
    cr_assert(!done);
    cr_assert_eq(get("a", "vm", &vm), ERR_NONE);
    cr_assert_eq(vm.state, STORE_RUNNING);
    fixture_end(f.store, first.instance);
    cr_assert_eq(store_vm_retire(f.store, first.instance, &done, &err), 0);
    cr_assert(!done);
}
