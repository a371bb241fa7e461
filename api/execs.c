/* /vms/{id}/execs: commands that are begun, read, fed and ended in requests of their own. */
#include "api/internal.h"

int api_exec_key(struct api *api, const struct api_request *request, struct vmm_exec_key *ret,
                 struct error *err)
{
    struct store_vm vm;
    struct error missing = {0};
    if (api_query_none(request->query, err) < 0)
        return -1;
    /* What is known of its commands outlives a VM; and a command's id is one tenant's, whoever else
     * has a VM of that name. */
    if (api_vm_find(api, request->caller, request->id, &vm, &missing) < 0 &&
        missing.code != ERR_VM_GONE && missing.code != ERR_VM_AMBIGUOUS) {
        *err = missing;
        return -1;
    }
    *ret = (struct vmm_exec_key){.owner = request->caller->admin ? NULL : request->caller->name,
                                 .vm = request->id,
                                 .id = request->exec};
    return 0;
}

/* ---- create ---- */

static int start(struct api *api, const struct api_request *request,
                 const struct api_exec_body *body, struct vmm_exec_record *ret, struct error *err)
{
    struct store_vm vm;
    const struct vmm_exec_wish wish = {.request = body->request,
                                       .input = body->input,
                                       .input_len = body->request.input_len,
                                       .input_open = body->input_open};
    return api_vm_find(api, request->caller, request->id, &vm, err) < 0
               ? -1
               : vmm_exec_start(api->vmm, vm.owner, request->id, &wish, ret, err);
}

int api_execs_create(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    struct vmm_exec_record record;
    if (api_query_none(request->query, err) < 0 ||
        api_exec_body_parse(request->body, request->body_len, true, &body, err) < 0 ||
        start(api, request, &body, &record, err) < 0)
        return -1;
    char id[ID_INSTANCE_SIZE];
    memcpy(id, record.id, sizeof(id));
    const struct vmm_exec_key key = {.vm = request->id, .id = id};
    struct error forgotten = {0}; /* it has ended, and others took its place already */
    if (!request->respond_async)
        (void)vmm_exec_wait(api->vmm, &key, &record, &forgotten);
    response->async_applied = request->respond_async;
    snprintf(response->location, sizeof(response->location), "/vms/%s/execs/%s", request->id, id);
    return api_respond_json(response, request->respond_async ? 202 : 201,
                            api_exec_json(api, &key, &record, true), err);
}

/* ---- read ---- */

int api_execs_get(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    struct vmm_exec_key key;
    struct vmm_exec_record record;
    if (api_exec_key(api, request, &key, err) < 0 || vmm_exec_get(api->vmm, &key, &record, err) < 0)
        return -1;
    return api_respond_json(response, 200, api_exec_json(api, &key, &record, true), err);
}

static cJSON *list_json(struct api *api, const struct vmm_exec_record *records, size_t count)
{
    cJSON *json = cJSON_CreateObject();
    cJSON *array = json != NULL ? cJSON_AddArrayToObject(json, "execs") : NULL;
    bool failed = array == NULL;
    for (size_t i = 0; i < count && !failed; i++) {
        cJSON *exec = api_exec_json(api, NULL, &records[i], false);
        failed = exec == NULL || !cJSON_AddItemToArray(array, exec);
    }
    if (failed) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

int api_execs_list(struct api *api, const struct api_request *request,
                   struct api_response *response, struct error *err)
{
    struct store_vm vm;
    if (api_query_none(request->query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    cleanup_free struct vmm_exec_record *records = calloc(VMM_EXECS_PER_VM, sizeof(*records));
    if (records == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing commands");
    size_t count = vmm_exec_list(api->vmm, vm.instance, records);
    return api_respond_json(response, 200, list_json(api, records, count), err);
}

/* ---- change ---- */

/* One that has ended, or was lost with an earlier run of the service, is what is asked for. */
int api_execs_delete(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct vmm_exec_key key;
    struct error missing = {0};
    if (api_exec_key(api, request, &key, err) < 0)
        return -1;
    if (vmm_exec_kill(api->vmm, &key, &missing) < 0 && missing.code != ERR_EXEC_LOST) {
        *err = missing;
        return -1;
    }
    response->status = 204;
    return 0;
}

enum { BASE64_MAX = API_BASE64_SIZE(VMM_EXEC_INPUT_MAX) };

struct stdin_fields {
    int64_t offset;
    char *text, *base64; /* owned */
    bool eof;
};

static int read_stdin(const cJSON *body, struct stdin_fields *ret, char **ret_data, size_t *ret_len,
                      struct error *err)
{
    static const struct json_field table[] = {
        {"offset", JSON_I64, offsetof(struct stdin_fields, offset), true, 0, INT64_C(1) << 53},
        {"text", JSON_STRING, offsetof(struct stdin_fields, text), false, 0, VMM_EXEC_INPUT_MAX},
        {"base64", JSON_STRING, offsetof(struct stdin_fields, base64), false, 0, BASE64_MAX},
        {"eof", JSON_BOOL, offsetof(struct stdin_fields, eof), false, 0, 0},
    };
    if (json_decode(body, table, COUNT_OF(table), ret, err) < 0)
        return -1;
    if (ret->text != NULL && ret->base64 != NULL)
        return error_set(err, ERR_FIELD_VALUE, 0, "send text or base64, not both");
    *ret_data = ret->text != NULL ? ret->text : ret->base64;
    *ret_len = *ret_data != NULL ? strlen(*ret_data) : 0;
    if (ret->base64 == NULL)
        return 0;
    ssize_t len = api_base64_decode(ret->base64, *ret_len);
    if (len < 0)
        return error_set(err, ERR_FIELD_VALUE, 0, "base64: this is none, by RFC 4648, section 4");
    *ret_len = (size_t)len;
    return 0;
}

static void stdin_release(struct stdin_fields *fields)
{
    free(fields->text);
    free(fields->base64);
}

static cJSON *stdin_json(const struct vmm_exec_record *record)
{
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && (json_add_number(json, "offset", (double)record->input_bytes) < 0 ||
                         json_add_bool(json, "open", record->input_open) < 0)) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

int api_execs_stdin(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct stdin_fields fields cleanup(stdin_release) = {0};
    struct vmm_exec_key key;
    struct vmm_exec_record record;
    char *data = NULL;
    size_t len = 0;
    if (json_parse(request->body, request->body_len, &body, err) < 0 ||
        read_stdin(body, &fields, &data, &len, err) < 0 ||
        api_exec_key(api, request, &key, err) < 0)
        return -1;
    if (vmm_exec_feed(api->vmm, &key, (uint64_t)fields.offset, data, len, fields.eof, &record,
                      err) == 0)
        return api_respond_json(response, 200, stdin_json(&record), err);
    if (err->code != ERR_EXEC_INPUT)
        return -1;
    api_problem(err, request->request_id, stdin_json(&record), response);
    return 0;
}

struct size_fields {
    uint32_t rows, cols;
};

int api_execs_resize(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    static const struct json_field table[] = {
        {"rows", JSON_U32, offsetof(struct size_fields, rows), true, 1, UINT16_MAX},
        {"cols", JSON_U32, offsetof(struct size_fields, cols), true, 1, UINT16_MAX},
    };
    cleanup_json cJSON *body = NULL;
    struct size_fields size = {0};
    struct vmm_exec_key key;
    if (json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, table, COUNT_OF(table), &size, err) < 0 ||
        api_exec_key(api, request, &key, err) < 0)
        return -1;
    const struct vsock_size wanted = {.rows = (uint16_t)size.rows, .cols = (uint16_t)size.cols};
    if (vmm_exec_resize(api->vmm, &key, wanted, err) < 0)
        return -1;
    response->status = 204;
    return 0;
}
