/* The headers that decide how a request is read. */
#include "server/internal.h"

static bool is_token(const char *text, size_t len, const char *token)
{
    return len == strlen(token) && strncasecmp(text, token, len) == 0;
}

/* `Prefer: a, respond-async; x=y` */
static bool prefers_async(const char *value)
{
    for (;;) {
        value += strspn(value, " \t,");
        if (*value == '\0')
            return false;
        if (is_token(value, strcspn(value, " \t,;"), "respond-async"))
            return true;
        value += strcspn(value, ",");
    }
}

static enum MHD_Result read_one(void *cls, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    struct server_headers *headers = cls;
    (void)kind;
    if (value == NULL)
        value = "";
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        headers->content_lengths++;
        headers->content_length = strtoull(value, NULL, 10); /* checked by the library */
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        headers->transfer_encodings++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
        headers->hosts++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_AUTHORIZATION) == 0) {
        headers->authorizations++;
        headers->authorization = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_TYPE) == 0) {
        headers->content_types++;
        headers->content_type = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_ENCODING) == 0) {
        headers->content_encoded = true;
    } else if (strcasecmp(name, "Prefer") == 0) {
        headers->respond_async = headers->respond_async || prefers_async(value);
    }
    return MHD_YES;
}

int server_headers_read(struct MHD_Connection *connection, struct server_headers *ret,
                        struct error *err)
{
    *ret = (struct server_headers){0};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, read_one, ret);
    if (ret->content_lengths > 0 && ret->transfer_encodings > 0)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "the request has both Content-Length and Transfer-Encoding");
    if (ret->content_lengths > 1 || ret->hosts > 1 || ret->authorizations > 1 ||
        ret->content_types > 1 || ret->transfer_encodings > 1)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "Content-Length, Content-Type, Transfer-Encoding, Host and Authorization "
                         "may stand in a request once");
    return 0;
}

bool server_headers_json(const struct server_headers *headers)
{
    const char *type = headers->content_type;
    return type != NULL && !headers->content_encoded &&
           is_token(type, strcspn(type, " \t;"), "application/json");
}

bool server_headers_body(const struct server_headers *headers)
{
    return headers->content_length > 0 || headers->transfer_encodings > 0;
}
