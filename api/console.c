/* GET /vms/{id}/console: what guest and VMM wrote last; with `follow`, what they write. */
#include "api/internal.h"

static cJSON *console_json(const char *id, const struct vmm_console *console)
{
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "id", id) < 0 ||
        json_add_string(json, "instance", console->instance) < 0 ||
        json_add_bytes(json, "console", console->text, console->len) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static int wants_follow(const char *query, bool *ret, struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    const char *cursor = query != NULL ? query : "";
    bool seen = false;
    int more = 0;
    *ret = false;
    while ((more = api_query_next(&cursor, key, value, err)) == 1) {
        if (strcmp(key, "follow") != 0)
            return error_set(err, ERR_QUERY, 0, "this route takes follow only");
        *ret = strcmp(value, "true") == 0;
        if (seen || (!*ret && strcmp(value, "false") != 0))
            return error_set(err, ERR_QUERY, 0, "follow: use true or false, once");
        seen = true;
    }
    return more;
}

static int get(struct api *api, const struct api_request *request, struct api_response *response,
               struct error *err)
{
    struct store_vm vm;
    struct vmm_console console;
    if (api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_console(api->vmm, vm.owner, request->id, &console, err) < 0)
        return -1;
    return api_respond_json(response, 200, console_json(vm.id, &console), err);
}

int api_console_get(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    bool follow = false;
    if (wants_follow(request->query, &follow, err) < 0)
        return -1;
    if ((follow ? api_console_follow : get)(api, request, response, err) == 0)
        return 0;
    if (err->code != ERR_VM_GONE)
        return -1;
    api_vm_gone(api, request, err, response); /* with the certificate, and so the console's end */
    return 0;
}
