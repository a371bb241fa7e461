/* POST /vms/{id}/keepalive: the VM is still needed. Nothing else prolongs its life. */
#include "api/internal.h"

#include <stddef.h>

struct fields {
    int64_t ttl_s;
};

static const struct json_field table[] = {
    {"ttl_s", JSON_I64, offsetof(struct fields, ttl_s), false, 1, VMM_TTL_MAX_S},
};

int api_vm_keepalive(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct fields fields = {0};
    struct store_vm vm;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, table, COUNT_OF(table), &fields, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_keepalive(api->vmm, vm.owner, request->id, fields.ttl_s, &vm, err) < 0)
        return -1;
    return api_respond_json(response, 200, api_vm_json(&vm), err);
}
