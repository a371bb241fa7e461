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
    request->route =
        api_route_match(options->routes, options->route_count, method, request->target.path,
                        request->api.id, request->response.allow, &unmatched);
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
    if (request->route->role == API_ROLE_ADMIN && !request->caller.admin)
        return error_set(err, ERR_FORBIDDEN, 0,
                         "this route is for administrators: root, or `admin`");
    return 0;
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
    if (!server_headers_json(headers))
        return error_set(err, ERR_MEDIA_TYPE, 0, "the body must be application/json, as it is");
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
    if (match(request, method, &headers, err) < 0 || check_body(request, &headers, err) < 0)
        return -1;
    request->response.close = false;
    request->api.respond_async = headers.respond_async;
    request->api.query = request->target.query;
    request->body.max = request->route->body_max;
    return 0;
}
