/* A struct api_response becomes the library's. */
#include "server/internal.h"

static bool add_header(struct MHD_Response *response, const char *name, const char *value)
{
    return value == NULL || value[0] == '\0' ||
           MHD_add_response_header(response, name, value) == MHD_YES;
}

static bool add_headers(struct MHD_Response *answer, const char *request_id,
                        const struct api_response *response)
{
    char retry[16] = "";
    if (response->retry_after_s > 0)
        snprintf(retry, sizeof(retry), "%u", response->retry_after_s);
    const struct {
        const char *name, *value;
    } headers[] = {
        {"X-Request-Id", request_id},
        {MHD_HTTP_HEADER_CACHE_CONTROL, "no-store"},
        {"X-Content-Type-Options", "nosniff"},
        {MHD_HTTP_HEADER_CONTENT_TYPE, response->content_type},
        {MHD_HTTP_HEADER_LOCATION, response->location},
        {MHD_HTTP_HEADER_LINK, response->link},
        {MHD_HTTP_HEADER_ALLOW, response->allow},
        {MHD_HTTP_HEADER_CONTENT_RANGE, response->content_range},
        {"Repr-Digest", response->digest},
        {MHD_HTTP_HEADER_RETRY_AFTER, retry},
        {MHD_HTTP_HEADER_WWW_AUTHENTICATE, response->challenge ? "Bearer realm=\"motte\"" : NULL},
        {"Idempotent-Replayed", response->replayed ? "true" : NULL},
        {"Preference-Applied", response->async_applied ? "respond-async" : NULL},
        {MHD_HTTP_HEADER_CONNECTION, response->close ? "close" : NULL},
    };
    for (size_t i = 0; i < COUNT_OF(headers); i++)
        if (!add_header(answer, headers[i].name, headers[i].value))
            return false;
    return true;
}

/* The library takes a non-const pointer also to what it only reads. */
static struct MHD_Response *from_static(const char *text, size_t len)
{
    union {
        const char *read_only;
        void *any;
    } pointer = {.read_only = text};
    return MHD_create_response_from_buffer(len, pointer.any, MHD_RESPMEM_PERSISTENT);
}

static struct MHD_Response *make(struct server_request *request)
{
    struct api_response *response = &request->response;
    if (request->stream != NULL)
        return server_stream_answer(TAKE_PTR(request->stream));
    if (response->body == NULL) {
        const char *text = response->body_static;
        return from_static(text != NULL ? text : "", text != NULL ? response->body_len : 0);
    }
    struct MHD_Response *answer =
        MHD_create_response_from_buffer(response->body_len, response->body, MHD_RESPMEM_MUST_FREE);
    if (answer != NULL)
        response->body = NULL;
    return answer;
}

enum MHD_Result server_answer(struct server_request *request)
{
    struct MHD_Response *answer = make(request);
    if (answer == NULL)
        return MHD_NO;
    enum MHD_Result result = MHD_NO; /* out of memory: the library closes the connection */
    if (add_headers(answer, request->api.request_id, &request->response))
        result = MHD_queue_response(request->connection, request->response.status, answer);
    MHD_destroy_response(answer);
    return result;
}
