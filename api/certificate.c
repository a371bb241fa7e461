/* What GET /vms/{id} says of a VM that has ended. */
#include "api/internal.h"

static cJSON *certificate_json(const struct store_certificate *certificate)
{
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "instance", certificate->instance) < 0 ||
        json_add_string(json, "state", store_state_name(certificate->state)) < 0 ||
        json_add_string(json, "reason", certificate->reason) < 0 ||
        json_add_bytes(json, "message", certificate->message, strlen(certificate->message)) < 0 ||
        api_add_time(json, "created_at", certificate->created_wall_ms) < 0 ||
        api_add_time(json, "ended_at", certificate->ended_wall_ms) < 0 ||
        json_add_bytes(json, "console", certificate->console, certificate->console_len) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

/* As api_vm_find() looks: the caller's own first, for an admin then anybody's. One that has just been
 * forgotten is gone all the same. */
void api_vm_gone(struct api *api, const struct api_request *request, const struct error *gone,
                 struct api_response *response)
{
    const struct caller *caller = request->caller;
    struct store_certificate found;
    struct error ignored = {0};
    bool there =
        store_certificate_get(api->store, caller->name, request->id, &found, &ignored) == 0 ||
        (caller->admin &&
         store_certificate_get(api->store, NULL, request->id, &found, &(struct error){0}) == 0);
    api_problem(gone, request->request_id, there ? certificate_json(&found) : NULL, response);
}
