/* Of each request that would change something, refused or not, an entry in the audit of calls; but
 * for a command's input and the size of its terminal. */
#include "server/internal.h"

static const char vm_route[] = "/vms/{id}", vm_place[] = "/vms/";

/* What a command is fed with, in pieces: who began it has an entry, and a gigabyte of input would
 * leave nothing else in a caller's ring. */
static bool feeds(const struct api_route *route)
{
    const char *end = route != NULL ? strrchr(route->path, '/') : NULL;
    return end != NULL && (strcmp(end, "/stdin") == 0 || strcmp(end, "/resize") == 0);
}

static bool changes(const char *method)
{
    static const char *const methods[] = {MHD_HTTP_METHOD_POST, MHD_HTTP_METHOD_PUT,
                                          MHD_HTTP_METHOD_PATCH, MHD_HTTP_METHOD_DELETE};
    for (size_t i = 0; i < COUNT_OF(methods); i++)
        if (strcmp(method, methods[i]) == 0)
            return true;
    return false;
}

/* Which it means, or made. */
static const char *vm_of(const struct server_request *request)
{
    const char *route = request->route != NULL ? request->route->path : "";
    const char *location = request->response.location;
    if (strncmp(route, vm_route, strlen(vm_route)) == 0)
        return request->api.id;
    return strcmp(route, "/vms") == 0 && strncmp(location, vm_place, strlen(vm_place)) == 0
               ? location + strlen(vm_place)
               : "";
}

void server_call_record(struct server_request *request)
{
    const struct api_response *response = &request->response;
    if (request->recorded || response->status == 0 || !changes(request->method) ||
        feeds(request->route))
        return;
    request->recorded = true;
    struct store_call call = {.wall_ms = clock_wall_ms(), .status = response->status};
    snprintf(call.caller, sizeof(call.caller), "%s", request->caller.name);
    snprintf(call.token, sizeof(call.token), "%s", request->caller.token);
    snprintf(call.request_id, sizeof(call.request_id), "%s", request->api.request_id);
    snprintf(call.method, sizeof(call.method), "%.7s", request->method);
    snprintf(call.route, sizeof(call.route), "%s",
             request->route != NULL ? request->route->path : "");
    snprintf(call.path, sizeof(call.path), "%.255s", request->target.path);
    snprintf(call.vm, sizeof(call.vm), "%.64s", vm_of(request));
    snprintf(call.code, sizeof(call.code), "%s",
             response->code != ERR_NONE ? error_code_name(response->code) : "");
    api_calls_put(request->listening->server->options.api->calls, &call);
}
