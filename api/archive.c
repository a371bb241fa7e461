/* /vms/{id}/archive?path=…: a directory of a VM as a tar archive. */
#include "api/internal.h"

int api_archive_get(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    struct vmm_file *file = NULL;
    if (api_file_query_parse(request->query, 0, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_file_open(api->vmm, vm.owner, request->id, query.path, NULL, &file, err) < 0)
        return -1;
    return api_download_begin(file, 0, -1, response, err);
}

static cJSON *unpacked_json(const char *path, const struct vsock_unpacked *unpacked)
{
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && (json_add_string(json, "path", path) < 0 ||
                         json_add_number(json, "entries", (double)unpacked->entries) < 0 ||
                         json_add_number(json, "size", (double)unpacked->size) < 0 ||
                         json_add_bool(json, "created", unpacked->created) < 0)) {
        cJSON_Delete(json);
        json = NULL;
    }
    return json;
}

int api_archive_put(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    struct vsock_unpacked unpacked;
    struct api_body body cleanup(api_body_release) = {.request = request, .hash = hash_new()};
    const struct vsock_source source = {api_body_read, &body};
    if (body.hash == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an archive's digest");
    if (api_file_query_parse(request->query, API_FILE_PARENTS, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_archive_put(api->vmm, vm.owner, request->id, query.path, query.parents, &source,
                        &unpacked, err) < 0)
        return -1;
    return api_respond_json(response, 200, unpacked_json(query.path, &unpacked), err);
}
