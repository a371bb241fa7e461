/* GET /vms/{id}/stats: what a VM takes of its host now. */
#include "api/internal.h"

/* Null: there is no cgroup to say it. */
static int add(cJSON *json, const char *name, bool known, uint64_t value)
{
    return known ? json_add_number(json, name, (double)value)
                 : json_add(json, name, cJSON_CreateNull());
}

static cJSON *stats_json(const struct store_vm *vm, const struct priv_usage *usage, int64_t wall_ms)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    bool group = (vm->without & PRIV_GUARD_CGROUP) == 0;
    if (json_add_string(json, "id", vm->id) < 0 ||
        json_add_string(json, "instance", vm->instance) < 0 ||
        api_add_time(json, "at", wall_ms) < 0 ||
        json_add_number(json, "cpu_us", (double)usage->cpu_us) < 0 ||
        add(json, "memory_bytes", group, usage->memory_bytes) < 0 ||
        add(json, "pids", group, usage->pids) < 0 ||
        add(json, "oom_kills", group, usage->oom_kills) < 0 ||
        json_add_number(json, "disk_bytes", (double)usage->disk_bytes) < 0 ||
        add(json, "io_read_bytes", usage->has_io != 0, usage->read_bytes) < 0 ||
        add(json, "io_write_bytes", usage->has_io != 0, usage->wrote_bytes) < 0)
        return NULL;
    return TAKE_PTR(json);
}

int api_vm_stats(struct api *api, const struct api_request *request, struct api_response *response,
                 struct error *err)
{
    struct store_vm vm;
    struct priv_usage usage;
    if (api_query_none(request->query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_usage(api->vmm, vm.owner, request->id, &usage, err) < 0)
        return -1;
    return api_respond_json(response, 200, stats_json(&vm, &usage, clock_wall_ms()), err);
}
