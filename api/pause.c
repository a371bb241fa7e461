/* POST /vms/{id}/pause and /resume. */
#include "api/internal.h"

typedef int vm_change(struct vmm *vmm, const char *owner, const char *id, struct store_vm *ret,
                      struct error *err);

static int change(vm_change *to, struct api *api, const struct api_request *request,
                  struct api_response *response, struct error *err)
{
    struct store_vm vm;
    if (api_query_none(request->query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        to(api->vmm, vm.owner, request->id, &vm, err) < 0)
        return -1;
    return api_respond_json(response, 200, api_vm_json(&vm), err);
}

int api_vm_pause(struct api *api, const struct api_request *request, struct api_response *response,
                 struct error *err)
{
    return change(vmm_pause, api, request, response, err);
}

int api_vm_resume(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    return change(vmm_resume, api, request, response, err);
}
