/* PATCH /vms/{id}: labels, and how long it lives (a JSON merge patch, RFC 7396). */
#include "api/internal.h"

#include <stddef.h>

struct fields {
    const cJSON *labels;
    int64_t ttl_s;
};

static const struct json_field table[] = {
    {"labels", JSON_OBJECT, offsetof(struct fields, labels), false, 0, INT64_C(2) * VMM_LABELS_MAX},
    {"ttl_s", JSON_I64, offsetof(struct fields, ttl_s), false, 1, VMM_TTL_MAX_S},
};

static int put(cJSON *labels, const cJSON *change, struct error *err)
{
    cJSON_DeleteItemFromObjectCaseSensitive(labels, change->string);
    if (cJSON_IsNull(change))
        return 0;
    cJSON *copy = cJSON_Duplicate(change, true);
    if (copy != NULL && json_add(labels, change->string, copy) == 0)
        return 0;
    return error_set(err, ERR_NO_MEMORY, 0, "out of memory for labels");
}

/* Inside the transaction: what somebody else changes at the same time is not undone. */
static int merge(const void *context, char labels[static STORE_LABELS_MAX], struct error *err)
{
    const struct fields *fields = context;
    cleanup_json cJSON *merged = NULL;
    const cJSON *change = NULL;
    if (fields->labels == NULL)
        return 0;
    if (json_parse(labels, strlen(labels), &merged, err) < 0)
        return -1;
    cJSON_ArrayForEach(change, fields->labels)
    {
        if (put(merged, change, err) < 0)
            return -1;
    }
    return vmm_labels(merged, labels, err);
}

int api_vm_patch(struct api *api, const struct api_request *request, struct api_response *response,
                 struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct fields fields = {0};
    struct store_vm vm;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, table, COUNT_OF(table), &fields, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    const struct store_patch patch = {.ttl_s = fields.ttl_s, .labels = merge, .context = &fields};
    if (vmm_patch(api->vmm, vm.owner, request->id, &patch, &vm, err) < 0)
        return -1;
    return api_respond_json(response, 200, api_vm_json(&vm), err);
}
