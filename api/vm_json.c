/* A VM's row as clients see it. */
#include "api/internal.h"

static const struct {
    enum priv_guard bit;
    const char *name;
} guards[] = {
    {PRIV_GUARD_FIREWALL, "firewall"},
    {PRIV_GUARD_CGROUP, "cgroup"},
    {PRIV_GUARD_SECCOMP, "seccomp"},
};

cJSON *api_guards_json(uint32_t set)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < COUNT_OF(guards) && array != NULL; i++) {
        if (!(set & guards[i].bit))
            continue;
        cJSON *name = cJSON_CreateString(guards[i].name);
        if (name == NULL || !cJSON_AddItemToArray(array, name)) {
            cJSON_Delete(name);
            cJSON_Delete(array);
            return NULL;
        }
    }
    return array;
}

/* The row holds CLOCK_BOOTTIME, which setting the wall clock does not move; clients read wall time.
 * Two reads of both clocks differ a little each time, so the answer is what was true when the end
 * was set: it stays the same to the millisecond unless the wall clock was really set since. */
int64_t api_expires_wall_ms(int64_t expires_boot_ms, int64_t expires_wall_ms)
{
    enum { SET_MS = 2000 };
    if (expires_boot_ms <= 0)
        return 0;
    int64_t exact = clock_wall_ms() + expires_boot_ms - clock_boot_ms();
    return llabs(expires_wall_ms - exact) <= SET_MS ? expires_wall_ms : exact;
}

int64_t api_vm_expires_wall_ms(const struct store_vm *vm)
{
    return api_expires_wall_ms(vm->expires_boot_ms, vm->expires_wall_ms);
}

int api_add_time(cJSON *json, const char *name, int64_t wall_ms)
{
    char text[25];
    if (wall_ms > 0)
        clock_format(wall_ms, text);
    return json_add_string(json, name, wall_ms > 0 ? text : NULL);
}

/* A member that the store keeps as JSON text; `empty` when there is none. */
static int add_stored(cJSON *json, const char *name, const char *text, cJSON *empty)
{
    cJSON *value = NULL;
    struct error err = {0};
    if (text[0] != '\0' && json_parse(text, strlen(text), &value, &err) == 0)
        cJSON_Delete(empty);
    else
        value = empty;
    if (err.code == ERR_NO_MEMORY) {
        cJSON_Delete(empty);
        return -1;
    }
    return value != NULL ? json_add(json, name, value) : -1;
}

static int add_state(cJSON *json, const struct store_vm *vm)
{
    return json_add_string(json, "state", store_state_name(vm->state)) < 0 ||
                   json_add_string(json, "reason", vm->reason[0] ? vm->reason : NULL) < 0 ||
                   json_add_bytes(json, "message", vm->message, strlen(vm->message)) < 0
               ? -1
               : 0;
}

static int add_shape(cJSON *json, const struct store_vm *vm)
{
    char digest[sizeof("sha256:") - 1 + HASH_HEX_SIZE] = "sha256:";
    hash_to_hex(vm->image_digest, HASH_SIZE, digest + strlen("sha256:"));
    return json_add_string(json, "image", vm->image) < 0 ||
                   json_add_string(json, "image_digest", digest) < 0 ||
                   json_add_number(json, "vcpus", vm->vcpus) < 0 ||
                   json_add_number(json, "memory_mib", vm->memory_mib) < 0 ||
                   json_add_number(json, "disk_mib", vm->disk_mib) < 0 ||
                   json_add_string(json, "seccomp", vm->seccomp) < 0
               ? -1
               : 0;
}

/* How long it lives, and whether its agent does. */
static int add_life(cJSON *json, const struct store_vm *vm)
{
    static const char *const agents[] = {
        [STORE_AGENT_RESPONSIVE] = "responsive", [STORE_AGENT_UNRESPONSIVE] = "unresponsive"};
    cJSON *idle = vm->idle_s > 0 ? cJSON_CreateObject() : cJSON_CreateNull();
    bool failed = vm->idle_s > 0 && (json_add_number(idle, "after_s", (double)vm->idle_s) < 0 ||
                                     json_add_string(idle, "action", "delete") < 0);
    if (json_add(json, "idle", idle) < 0 || failed)
        return -1;
    const char *agent = (unsigned)vm->agent < COUNT_OF(agents) ? agents[vm->agent] : NULL;
    return json_add_number(json, "ttl_s", (double)vm->ttl_s) < 0 ||
                   json_add_string(json, "on_unresponsive",
                                   vm->on_unresponsive == STORE_DELETE ? "delete" : "keep") < 0 ||
                   json_add_string(json, "agent", agent) < 0
               ? -1
               : 0;
}

static int add_isolation(cJSON *json, const struct store_vm *vm)
{
    return json_add_string(json, "hypervisor", vm->hypervisor) < 0 ||
                   json_add_string(json, "isolation", vm->emulated ? "emulated" : "kvm") < 0 ||
                   json_add(json, "without", api_guards_json(vm->without)) < 0
               ? -1
               : 0;
}

static int add_source(cJSON *json, const struct store_vm *vm)
{
    static const char *const sources[] = {
        [STORE_FROM_BOOT] = "boot", [STORE_FROM_SNAPSHOT] = "snapshot", [STORE_FROM_POOL] = "pool"};
    const char *source = (unsigned)vm->source < COUNT_OF(sources) ? sources[vm->source] : NULL;
    return json_add_string(json, "source", source) < 0 ||
                   json_add_string(json, "snapshot", vm->snapshot[0] ? vm->snapshot : NULL) < 0
               ? -1
               : 0;
}

cJSON *api_vm_json(const struct store_vm *vm)
{
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "id", vm->id) < 0 ||
        json_add_string(json, "instance", vm->instance) < 0 ||
        json_add_string(json, "owner", vm->owner) < 0 || add_state(json, vm) < 0 ||
        add_shape(json, vm) < 0 || add_life(json, vm) < 0 ||
        add_stored(json, "labels", vm->labels, cJSON_CreateObject()) < 0 ||
        add_source(json, vm) < 0 || add_isolation(json, vm) < 0 ||
        api_add_time(json, "created_at", vm->created_wall_ms) < 0 ||
        api_add_time(json, "expires_at", api_vm_expires_wall_ms(vm)) < 0 ||
        add_stored(json, "timings", vm->steps, cJSON_CreateArray()) < 0 ||
        add_stored(json, "guest", vm->guest, cJSON_CreateNull()) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}
