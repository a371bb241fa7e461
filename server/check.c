/* What can be refused before the body is taken: target, headers, route, caller, size, type. */
#include "server/internal.h"

static bool visible(const struct server_request *request)
{
    return request->listening->kind != SERVER_METRICS || request->route->monitoring;
}

/* A caller without a name learns nothing, not even which routes there are. */
static int match(struct server_request *request, const char *method,
                 const struct server_headers *headers, struct error *err)
{
    const struct server_options *options = &request->listening->server->options;
    struct error unmatched = {0};
    struct api_ids ids;
    request->route =
        api_route_match(options->routes, options->route_count, method, request->target.path, &ids,
                        request->response.allow, &unmatched);
    memcpy(request->api.id, ids.id, sizeof(ids.id));
    memcpy(request->api.exec, ids.exec, sizeof(ids.exec));
    if (request->route != NULL && !visible(request)) {
        request->route = NULL;
        error_set(&unmatched, ERR_ROUTE_UNKNOWN, 0, "this listener serves metrics and health only");
    }
    if (request->route == NULL || request->route->role != API_ROLE_ANYBODY) {
        if (server_caller(request->listening, request->connection, headers->authorization,
                          &request->caller, err) < 0)
            return -1;
        request->api.caller = &request->caller;
    }
    if (request->route != NULL || unmatched.code != ERR_METHOD)
        request->response.allow[0] = '\0';
    if (request->route == NULL) {
        *err = unmatched;
        return -1;
    }
    return api_role_check(request->route, &request->caller, err);
}

static int check_body(const struct server_request *request, const struct server_headers *headers,
                      struct error *err)
{
    size_t max = request->route->body_max;
    if (!server_headers_body(headers))
        return 0;
    if (max == 0)
        return error_set(err, ERR_BAD_REQUEST, 0, "this route takes no body");
    if (headers->content_length > max)
        return error_set(err, ERR_BODY_TOO_LARGE, 0, "the body has %llu bytes; at most %zu",
                         (unsigned long long)headers->content_length, max);
    bool upload = api_route_uploads(request->route);
    if (upload ? !server_headers_octets(headers) : !server_headers_json(headers))
        return error_set(err, ERR_MEDIA_TYPE, 0, "the body must be %s, as it is",
                         upload ? "application/octet-stream" : "application/json");
    return 0;
}

/* What cannot be done twice has none to know it by: other methods leave it unread. */
static int take_key(struct server_request *request, const char *method,
                    const struct server_headers *headers, struct error *err)
{
    if (headers->keys == 0 || strcmp(method, MHD_HTTP_METHOD_POST) != 0)
        return 0;
    size_t len = strlen(headers->key);
    bool visible_only = true;
    for (size_t i = 0; i < len; i++)
        visible_only = visible_only && headers->key[i] > ' ' && headers->key[i] < 0x7f;
    if (headers->keys > 1 || len == 0 || len > API_KEY_MAX || !visible_only)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "Idempotency-Key: send it once, with 1 to %d visible ASCII characters",
                         API_KEY_MAX);
    hash_sha256(headers->key, len, request->api.key.key);
    request->api.keyed = request->api.caller != NULL;
    return 0;
}

int server_request_check(struct server_request *request, const char *method, const char *version,
                         struct error *err)
{
    struct server_headers headers;
    request->response.close = true; /* how to read on is in doubt until both have passed */
    if (api_target_parse(request->raw, &request->target, err) < 0 ||
        server_headers_read(request->connection, version, &headers, err) < 0)
        return -1;
    request->response.close = server_headers_body(&headers);
    if (match(request, method, &headers, err) < 0 || check_body(request, &headers, err) < 0 ||
        take_key(request, method, &headers, err) < 0)
        return -1;
    request->response.close = false;
    request->api.respond_async = headers.respond_async;
    if (headers.last_event_id != NULL)
        snprintf(request->api.last_event_id, sizeof(request->api.last_event_id), "%s",
                 headers.last_event_id);
    request->api.query = request->target.query;
    if (headers.ranges == 1 && !headers.if_range && strlen(headers.range) < API_RANGE_SIZE)
        snprintf(request->api.range, sizeof(request->api.range), "%s", headers.range);
    request->api.has_digest = headers.digest != NULL;
    if (headers.digest != NULL && api_digest_parse(headers.digest, request->api.digest, err) < 0) {
        request->response.close = server_headers_body(&headers);
        return -1;
    }
    request->body.max = request->route->body_max;
    return 0;
}
