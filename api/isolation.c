/* GET /vms/{id}/isolation: every guard of a VM as the kernel tells it now. */
#include "api/internal.h"

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {
        [PRIV_LINE_OK] = "ok",
        [PRIV_LINE_WRONG] = "wrong",
        [PRIV_LINE_ABSENT] = "absent",
        [PRIV_LINE_NOT_APPLICABLE] = "not_applicable",
    };
    return state >= PRIV_LINE_OK && state < COUNT_OF(names) ? names[state] : "wrong";
}

static cJSON *line_json(const struct priv_line *line)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *value = line->has_value ? cJSON_CreateNumber((double)line->value) : cJSON_CreateNull();
    if (json == NULL || value == NULL) {
        cJSON_Delete(json);
        cJSON_Delete(value);
        return NULL;
    }
    bool failed = json_add(json, "value", value) < 0;
    if (failed || json_add_string(json, "name", line->name) < 0 ||
        json_add_string(json, "state", state_name(line->state)) < 0 ||
        json_add_bytes(json, "detail", line->detail, strlen(line->detail)) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static cJSON *lines_json(const struct vmm_isolation *report)
{
    cJSON *array = cJSON_CreateArray();
    for (size_t i = 0; i < report->count && array != NULL; i++) {
        cJSON *line = line_json(&report->lines[i]);
        if (line == NULL || !cJSON_AddItemToArray(array, line)) {
            cJSON_Delete(line);
            cJSON_Delete(array);
            return NULL;
        }
    }
    return array;
}

static cJSON *report_json(const char *id, const struct vmm_isolation *report)
{
    char at[25];
    clock_format(report->wall_ms, at);
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "id", id) < 0 ||
        json_add_string(json, "instance", report->instance) < 0 ||
        json_add_string(json, "at", at) < 0 || json_add_bool(json, "ok", report->ok) < 0 ||
        json_add(json, "lines", lines_json(report)) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

int api_isolation_get(struct api *api, const struct api_request *request,
                      struct api_response *response, struct error *err)
{
    struct store_vm vm;
    struct vmm_isolation report;
    if (api_query_none(request->query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_isolation(api->vmm, vm.owner, request->id, &report, err) < 0)
        return -1;
    return api_respond_json(response, 200, report_json(vm.id, &report), err);
}
