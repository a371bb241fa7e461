/* /vms: create, list, get, delete. Decode, authorise, call, encode. */
#include "api/internal.h"

int api_vm_find(struct api *api, const struct caller *caller, const char *id, struct store_vm *ret,
                struct error *err)
{
    struct error own = {0};
    if (store_vm_get(api->store, caller->name, id, ret, &own) == 0)
        return 0;
    struct error any = {0};
    /* One of his own that has ended is still what he means: else a DELETE that is sent again would
     * end another's VM. */
    if (own.code == ERR_VM_UNKNOWN && caller->admin) {
        if (store_vm_get(api->store, NULL, id, ret, &any) == 0)
            return 0;
        own = any;
    }
    *err = own;
    return -1;
}

/* ---- create ---- */

static int answer_created(const void *made, struct store_answer *ret)
{
    const struct store_vm *vm = made;
    snprintf(ret->location, sizeof(ret->location), "/vms/%s", vm->id);
    return api_answer_json(ret, 201, api_vm_json(vm));
}

static int respond_created(const struct store_vm *vm, struct api_response *response,
                           struct error *err)
{
    struct store_answer answer cleanup(store_answer_release) = {0};
    if (answer_created(vm, &answer) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while writing the answer");
    api_respond_answer(response, &answer);
    response->kept = true;
    return 0;
}

static int create_now(struct api *api, const struct api_request *request, struct vmm_spec *spec,
                      struct api_response *response, struct error *err)
{
    struct store_vm vm;
    if (vmm_spawn(api->vmm, spec, request->caller->name, &vm, err) < 0)
        return -1;
    return respond_created(&vm, response, err);
}

/* The caller has his answer; the VM's row and the observer have what became of it. */
static void finish_spawn(void *context)
{
    struct store_vm vm;
    struct error err = {0};
    (void)vmm_spawn_finish(context, &vm, &err);
}

static int create_later(struct api *api, const struct api_request *request, struct vmm_spec *spec,
                        struct api_response *response, struct error *err)
{
    struct store_vm vm;
    struct vmm_spawning *spawning = NULL;
    vmm_spec_keep(spec, NULL); /* the answer is that it is being made */
    if (vmm_spawn_begin(api->vmm, spec, request->caller->name, &spawning, &vm, err) < 0)
        return -1;
    response->later = finish_spawn;
    response->later_context = spawning;
    response->async_applied = true;
    memcpy(response->making, vm.instance, sizeof(response->making));
    snprintf(response->location, sizeof(response->location), "/vms/%s", vm.id);
    return api_respond_json(response, 202, api_vm_json(&vm), err);
}

static int read_spec(struct api *api, const struct caller *caller, const cJSON *body,
                     struct vmm_spec **ret, struct error *err)
{
    struct priv_host host;
    struct vmm_defaults defaults;
    struct store_snapshot snapshot;
    const cJSON *from = cJSON_GetObjectItemCaseSensitive(body, "snapshot");
    if (cJSON_IsString(from)) /* only its owner restores one */
        return store_snapshot_get(api->store, caller->name, from->valuestring, &snapshot, err) < 0
                   ? -1
                   : vmm_spec_new_restored(body, &snapshot, api->state_dir, ret, err);
    vmm_host(api->vmm, &host);
    vmm_defaults(api->vmm, &defaults);
    return vmm_spec_new(body, &host, api->state_dir, defaults.image, ret, err);
}

int api_vm_create(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct vmm_spec *spec = NULL;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        read_spec(api, request->caller, body, &spec, err) < 0)
        return -1;
    struct store_vm vm;
    bool claimed = false;
    const struct store_keep keep = api_keep(request, answer_created, NULL);
    vmm_spec_keep(spec, &keep);
    int result = vmm_claim(api->vmm, spec, request->caller->name, &vm, &claimed, err);
    if (result < 0 || claimed) { /* who would wait for no answer need not wait for this one */
        vmm_spec_free(spec);
        return result < 0 ? -1 : respond_created(&vm, response, err);
    }
    return request->respond_async ? create_later(api, request, spec, response, err)
                                  : create_now(api, request, spec, response, err);
}

/* ---- read ---- */

int api_vm_get(struct api *api, const struct api_request *request, struct api_response *response,
               struct error *err)
{
    struct store_vm vm;
    if (api_query_none(request->query, err) < 0)
        return -1;
    uint64_t moment = store_moment(api->store);
    if (api_vm_find(api, request->caller, request->id, &vm, err) == 0) {
        if (api_respond_json(response, 200, api_vm_json(&vm), err) < 0)
            return -1;
        api_known_keep(api->known, moment, request, &vm, response);
        return 0;
    }
    if (err->code != ERR_VM_GONE)
        return -1;
    api_vm_gone(api, request, err, response);
    return 0;
}

static cJSON *item_json(const void *vm)
{
    return api_vm_json(vm);
}

int api_vm_list(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    struct api_list_query query;
    if (api_list_query_parse(request->query, &query, err) < 0)
        return -1;
    const struct store_filter filter = {
        .owner = request->caller->admin ? NULL : request->caller->name,
        .state = query.state,
        .label_key = query.label_key,
        .label_value = query.label_value,
        .after = query.cursor[0] ? query.cursor : NULL,
        .limit = query.limit,
    };
    cleanup_free struct store_vm *vms = NULL;
    size_t count = 0;
    bool more = false;
    if (store_vm_list(api->store, &filter, &vms, &count, &more, err) < 0)
        return -1;
    const char *next = more && count > 0 ? vms[count - 1].instance : NULL;
    const struct api_list list = {"vms", vms, count, sizeof(*vms), item_json};
    if (api_respond_json(response, 200, api_page_json(&list, next), err) < 0)
        return -1;
    if (next != NULL)
        snprintf(response->link, sizeof(response->link), "</vms?%scursor=%s>; rel=\"next\"",
                 query.kept, next);
    return 0;
}

/* ---- delete ---- */

/* Gone already is success: a client that lost the first answer may ask again. */
int api_vm_delete(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    struct store_vm vm;
    struct error gone = {0};
    if (api_query_none(request->query, err) < 0)
        return -1;
    int result = api_vm_find(api, request->caller, request->id, &vm, &gone);
    if (result == 0)
        result = vmm_delete(api->vmm, vm.owner, request->id, &gone);
    if (result < 0 && gone.code != ERR_VM_GONE) {
        *err = gone;
        return -1;
    }
    response->status = 204;
    return 0;
}
