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

cJSON *api_list_json(const struct api_list *list)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *array = json != NULL ? cJSON_AddArrayToObject(json, list->name) : NULL;
    for (size_t i = 0; i < list->count && array != NULL; i++) {
        cJSON *one = list->write((const char *)list->items + i * list->size);
        if (one == NULL || !cJSON_AddItemToArray(array, one)) {
            cJSON_Delete(one);
            return NULL;
        }
    }
    return array != NULL ? TAKE_PTR(json) : NULL;
}

cJSON *api_page_json(const struct api_list *list, const char *next)
{
    cleanup_json cJSON *json = api_list_json(list);
    return json == NULL || json_add_string(json, "next_cursor", next) < 0 ? NULL : TAKE_PTR(json);
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
