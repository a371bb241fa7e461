#include "tests/unit/store/fixture.h"

#include <fcntl.h>
#include <stdatomic.h>

int fixture_open(struct fixture *fixture, struct error *err)
{
    return fixture_open_in(fixture, "/tmp", err);
}

int fixture_open_in(struct fixture *fixture, const char *parent, struct error *err)
{
    snprintf(fixture->dir, sizeof(fixture->dir), "%s/motte-store-XXXXXX", parent);
    fixture->store = NULL;
    if (mkdtemp(fixture->dir) == NULL)
        return error_set(err, ERR_SYSTEM, 0, "mkdtemp");
    return store_open(fixture->dir, &fixture->store, err);
}

void fixture_release(struct fixture *fixture)
{
    store_close(fixture->store);
    fixture->store = NULL;
    fs_remove_tree(AT_FDCWD, fixture->dir);
}

int fixture_reopen(struct fixture *fixture, struct error *err)
{
    store_close(fixture->store);
    fixture->store = NULL;
    return store_open(fixture->dir, &fixture->store, err);
}

struct store_vm fixture_vm(const char *owner, const char *id)
{
    static atomic_uint made;
    unsigned number = atomic_fetch_add(&made, 1);
    struct error err = {0};
    struct store_vm vm = {
        .state = STORE_CREATING,
        .image = "python",
        .vcpus = 2,
        .memory_mib = 256 + number % 100,
        .disk_mib = 4294967295,
        .seccomp = "minimal",
        .hypervisor = "firecracker",
        .emulated = number % 2 == 1,
        .without = 0x80000001,
        .uid = 1879048192 + number,
        .layout = STORE_LAYOUT,
        .ttl_s = 3600,
        .created_wall_ms = 1769860800123 + number,
        .state_wall_ms = 1769860800124 + number,
        .expires_boot_ms = INT64_MAX,
        .expires_wall_ms = 1769864400124 + number,
        .idle_s = 600 + number,
        .idle_since_boot_ms = 5000 + number,
        .agent = STORE_AGENT_UNRESPONSIVE,
        .on_unresponsive = STORE_DELETE,
        .boot = "01234567-89ab-cdef-0123-456789abcdef",
        .labels = "{\"team\":\"a\"}",
    };
    if (id_instance_make(vm.instance, &err) < 0)
        abort();
    snprintf(vm.chain, sizeof(vm.chain), "MOTTE_%s", vm.instance);
    snprintf(vm.owner, sizeof(vm.owner), "%s", owner);
    snprintf(vm.id, sizeof(vm.id), "%s", id);
    for (size_t i = 0; i < HASH_SIZE; i++)
        vm.image_digest[i] = (uint8_t)(number + i * 7);
    return vm;
}

struct store_vm fixture_add(struct store *store, const char *owner, const char *id)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm(owner, id);
    if (store_vm_insert(store, &vm, &err) < 0) {
        fprintf(stderr, "insert: %s\n", err.msg);
        abort();
    }
    return vm;
}

/* All of one kind, so that each fits the same wish. */
struct store_vm fixture_add_pooled(struct store *store)
{
    struct error err = {0};
    struct store_vm vm = fixture_vm(STORE_OWNER_ITSELF, "unused");
    vm.purpose = STORE_FOR_POOL;
    vm.memory_mib = 256;
    vm.agent = STORE_AGENT_RESPONSIVE;
    memset(vm.image_digest, 7, sizeof(vm.image_digest));
    snprintf(vm.labels, sizeof(vm.labels), "%s", FIXTURE_POOLED_LABELS);
    if (store_vm_insert(store, &vm, &err) < 0 || store_vm_running(store, &vm, &err) < 0) {
        fprintf(stderr, "pooled: %s\n", err.msg);
        abort();
    }
    return vm;
}

void fixture_end(struct store *store, const char *instance)
{
    struct error err = {0};
    if (store_vm_end(store, instance, STORE_EXITED, "deleted", "", "", &err) < 0) {
        fprintf(stderr, "end: %s\n", err.msg);
        abort();
    }
}
