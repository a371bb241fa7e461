/* GET /vms/{id}/wait: what GET /vms/{id} says, as soon as the VM has come to a state. */
#include "api/internal.h"

enum { WAIT_DEFAULT_S = 30 };

struct wish {
    enum store_state state;
    uint64_t timeout_s;
};

static int take(struct wish *wish, const char *key, char *value, struct error *err)
{
    if (strcmp(key, "state") == 0)
        return api_take_state(value, &wish->state, err);
    if (strcmp(key, "timeout_s") != 0)
        return error_set(err, ERR_QUERY, 0, "this route takes state and timeout_s only");
    if (kv_number("timeout_s", value, 0, API_WAIT_MAX_S, &wish->timeout_s, err) == 0)
        return 0;
    err->code = ERR_QUERY;
    return -1;
}

static int parse(const char *query, struct wish *ret, struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    const char *cursor = query;
    *ret = (struct wish){.state = STORE_RUNNING, .timeout_s = WAIT_DEFAULT_S};
    int more = 0;
    while ((more = api_query_next(&cursor, key, value, err)) == 1)
        if (take(ret, key, value, err) < 0)
            return -1;
    return more;
}

struct waiting {
    const struct api *api;
    const struct caller *caller;
};

static bool is_revoked(void *context)
{
    const struct waiting *waiting = context;
    const struct api *api = waiting->api;
    return api->stands != NULL && !api->stands(api->stands_context, waiting->caller);
}

/* What comes to its end meanwhile comes to no other state. */
static int wait_for(struct api *api, const struct api_request *request, const struct wish *wish,
                    struct store_vm *ret, struct error *err)
{
    struct store_vm vm;
    struct waiting waiting = {.api = api, .caller = request->caller};
    const struct store_wait wait = {.state = wish->state,
                                    .until_ms = clock_mono_ms() + (int64_t)wish->timeout_s * 1000,
                                    .over = is_revoked,
                                    .context = &waiting};
    if (api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        store_vm_wait(api->store, vm.instance, &wait, ret, err) < 0)
        return -1;
    return is_revoked(&waiting) ? error_set(err, ERR_UNAUTHORIZED, 0,
                                            "this token was revoked while the request waited")
                                : 0;
}

int api_vm_wait(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    struct wish wish;
    struct store_vm now;
    if (parse(request->query, &wish, err) < 0)
        return -1;
    if (wait_for(api, request, &wish, &now, err) == 0)
        return api_respond_json(response, 200, api_vm_json(&now), err);
    if (err->code != ERR_VM_GONE)
        return -1;
    api_vm_gone(api, request, err, response);
    return 0;
}
