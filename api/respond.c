/* From a handler's result to a complete response. */
#include "api/internal.h"

void api_response_release(struct api_response *response)
{
    free(response->body);
    response->body = NULL;
    struct waker nobodys = {0};
    if (response->stream.read != NULL)
        response->stream.close(response->stream.context, &nobodys);
    response->stream = (struct api_stream){0};
}

int api_respond_json(struct api_response *response, unsigned status, cJSON *json, struct error *err)
{
    char *text = json != NULL ? json_print(json) : NULL;
    cJSON_Delete(json);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while writing the answer");
    response->status = status;
    response->content_type = "application/json";
    response->body = text;
    response->body_len = strlen(text);
    return 0;
}

void api_dispatch(struct api *api, const struct api_route *route, const struct api_request *request,
                  struct api_response *ret)
{
    struct error err = {0};
    if (request->keyed) {
        api_dispatch_keyed(api, route, request, ret);
        return;
    }
    if (route->handler(api, request, ret, &err) < 0)
        api_problem(&err, request->request_id, NULL, ret);
}
