/* A row as clients see it. */
#include "api/internal.h"

#include <criterion/criterion.h>

static struct store_vm running(void)
{
    struct store_vm vm = {
        .instance = "abcdefghij234567abcd",
        .id = "vm-1",
        .owner = "uid:1000",
        .state = STORE_RUNNING,
        .image = "debian",
        .vcpus = 2,
        .memory_mib = 512,
        .disk_mib = 0,
        .seccomp = "minimal",
        .hypervisor = "firecracker",
        .ttl_s = 60,
        .labels = "{\"a\":\"b\"}",
        .steps = "[{\"name\":\"guard\",\"ms\":1.5}]",
        .guest = "{\"agent\":\"0.1.0\",\"kernel\":\"6.1\",\"boot_ms\":400}",
    };
    vm.created_wall_ms = vm.state_wall_ms = clock_wall_ms();
    vm.expires_boot_ms = clock_boot_ms() + 60000;
    vm.expires_wall_ms = vm.state_wall_ms + 60000;
    return vm;
}

static char *printed;

static const char *print(const struct store_vm *vm)
{
    cleanup_json cJSON *json = api_vm_json(vm);
    free(printed);
    printed = json_print(json);
    cr_assert_not_null(printed);
    return printed;
}

Test(api_vm_json, has_every_member)
{
    struct store_vm vm = running();
    vm.without = PRIV_GUARD_FIREWALL | PRIV_GUARD_SECCOMP;
    vm.idle_s = 30;
    vm.agent = STORE_AGENT_UNRESPONSIVE;
    vm.on_unresponsive = STORE_DELETE;
    const char *text = print(&vm);
    static const char *const parts[] = {
        "\"id\":\"vm-1\"",
        "\"instance\":\"abcdefghij234567abcd\"",
        "\"owner\":\"uid:1000\"",
        "\"state\":\"running\"",
        "\"reason\":null",
        "\"message\":\"\"",
        "\"image\":\"debian\"",
        "\"image_digest\":\"sha256:"
        "0000000000000000000000000000000000000000000000000000000000000000\"",
        "\"vcpus\":2",
        "\"memory_mib\":512",
        "\"disk_mib\":0",
        "\"seccomp\":\"minimal\"",
        "\"ttl_s\":60",
        "\"idle\":{\"after_s\":30,\"action\":\"delete\"}",
        "\"on_unresponsive\":\"delete\"",
        "\"agent\":\"unresponsive\"",
        "\"labels\":{\"a\":\"b\"}",
        "\"hypervisor\":\"firecracker\"",
        "\"isolation\":\"kvm\"",
        "\"without\":[\"firewall\",\"seccomp\"]",
        "\"created_at\":\"20",
        "\"expires_at\":\"20",
        "\"timings\":[{\"name\":\"guard\",\"ms\":1.5}]",
        "\"guest\":{\"agent\":\"0.1.0\",\"kernel\":\"6.1\",\"boot_ms\":400}",
    };
    for (size_t i = 0; i < COUNT_OF(parts); i++)
        cr_assert(strstr(text, parts[i]) != NULL, "%s not in %s", parts[i], text);
}

Test(api_vm_json, a_vm_being_created_knows_less)
{
    struct store_vm vm = running();
    vm.state = STORE_CREATING;
    vm.expires_boot_ms = 0;
    vm.emulated = true;
    vm.labels[0] = vm.steps[0] = vm.guest[0] = '\0';
    const char *text = print(&vm);
    cr_assert(strstr(text, "\"expires_at\":null") != NULL);
    cr_assert(strstr(text, "\"labels\":{}") != NULL);
    cr_assert(strstr(text, "\"idle\":null,") != NULL);
    cr_assert(strstr(text, "\"on_unresponsive\":\"keep\"") != NULL);
    cr_assert(strstr(text, "\"agent\":null") != NULL);
    cr_assert(strstr(text, "\"timings\":[]") != NULL);
    cr_assert(strstr(text, "\"guest\":null") != NULL);
    cr_assert(strstr(text, "\"isolation\":\"emulated\"") != NULL);
}

Test(api_vm_json, R06_labels_come_back_as_they_were_stored)
{
    struct store_vm vm = running();
    const char *labels = "{\"q\":\"\\\"\\\\\\n\\u0001\xe2\x82\xac\xf0\x9f\x98\x80\"}";
    snprintf(vm.labels, sizeof(vm.labels), "%s", labels);
    cr_assert(strstr(print(&vm), labels) != NULL, "%s", printed);
}

/* Reads must not seem to move the end of a VM's life. */
Test(api_vm_json, expiry_is_the_same_at_each_read)
{
    struct store_vm vm = running();
    int64_t first = api_vm_expires_wall_ms(&vm);
    cr_assert_eq(first, vm.state_wall_ms + 60000);
    int64_t until = clock_mono_ms() + 50;
    while (clock_mono_ms() < until)
        cr_assert_eq(api_vm_expires_wall_ms(&vm), first);
}

Test(api_vm_json, expiry_follows_the_clock_that_was_set)
{
    struct store_vm vm = running();
    vm.created_wall_ms -= 3600000; /* as if the wall clock had been put forward since */
    vm.state_wall_ms -= 3600000;
    vm.expires_wall_ms -= 3600000;
    int64_t left = api_vm_expires_wall_ms(&vm) - clock_wall_ms();
    cr_assert(left > 50000 && left <= 60000, "%lld", (long long)left);
}
