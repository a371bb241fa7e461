/* POST /vms/{id}/exec: one command, until it ends or its time is up. */
#include "api/internal.h"

static int add_outputs(cJSON *json, const struct vsock_exec_result *result)
{
    return json_add_bytes(json, "stdout", result->out.data != NULL ? result->out.data : "",
                          result->out.len) < 0 ||
                   json_add_bytes(json, "stderr",
                                  result->err_out.data != NULL ? result->err_out.data : "",
                                  result->err_out.len) < 0 ||
                   json_add_bool(json, "stdout_truncated", result->out_truncated) < 0 ||
                   json_add_bool(json, "stderr_truncated", result->err_truncated) < 0 ||
                   json_add_number(json, "duration_ms", (double)result->duration_ms) < 0
               ? -1
               : 0;
}

/* A command ends by an exit code or by a signal: the other one is null. */
static cJSON *result_json(const struct vsock_exec_result *result)
{
    cJSON *json = cJSON_CreateObject();
    bool signalled = result->exit_signal != 0;
    cJSON *code = signalled ? cJSON_CreateNull() : cJSON_CreateNumber(result->exit_code);
    cJSON *number = signalled ? cJSON_CreateNumber(result->exit_signal) : cJSON_CreateNull();
    bool failed = json == NULL || code == NULL || number == NULL;
    if (failed) {
        cJSON_Delete(code);
        cJSON_Delete(number);
    } else {
        failed = json_add(json, "exit_code", code) < 0;
        failed = json_add(json, "signal", number) < 0 || failed;
        failed = failed || json_add_bool(json, "oom_killed", result->oom_killed) < 0 ||
                 add_outputs(json, result) < 0;
    }
    if (failed) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

/* What the command wrote before its time was up is often what the caller needs to see. */
static cJSON *partial_json(const struct vsock_exec_result *result)
{
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && add_outputs(json, result) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static int run(struct api *api, const struct api_request *request, const char *owner,
               const struct vsock_exec_request *command, struct api_response *response,
               struct error *err)
{
    struct vsock_exec_result result cleanup(vsock_exec_result_release) = {0};
    if (vmm_exec(api->vmm, owner, request->id, command, &result, err) == 0)
        return api_respond_json(response, 200, result_json(&result), err);
    if (err->code != ERR_EXEC_TIMEOUT)
        return -1;
    api_problem(err, request->request_id, partial_json(&result), response);
    return 0;
}

int api_exec_create(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    struct store_vm vm;
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    if (api_query_none(request->query, err) < 0 ||
        api_exec_body_parse(request->body, request->body_len, false, &body, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    return run(api, request, vm.owner, &body.request, response, err);
}
