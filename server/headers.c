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

/* The library leaves a space before the colon in the name: that header would then go unseen. */
static bool is_name(const char *name)
{
    static const char token[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                                "!#$%&'*+-.^_`|~";
    return name[0] != '\0' && name[strspn(name, token)] == '\0';
}

/* The library stops at the first character that is no digit: `1` of a `1 0` that came in two lines. */
static bool is_number(const char *value)
{
    return value[0] != '\0' && value[strspn(value, "0123456789")] == '\0';
}

static bool is_value(const char *value)
{
    for (const char *at = value; *at != '\0'; at++)
        if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f)
            return false;
    return true;
}

/*
 * The library ends a line also at a bare LF, and takes a folded line for more of the header's
 * *name*, so that `Conte: 5`, folded with `nt-Length`, becomes a length that nobody else sees. Both
 * show in its buffer only: it cuts that into strings in place, with a NUL for the colon, the CR and
 * the LF, and copies a name that it has folded. A NUL that the client sent shows likewise. (What is
 * read beyond a string lies in the buffer all the same: an empty line follows.)
 */
static bool line_ended(const char *text)
{
    return text[strlen(text) + 1] == '\0';
}

static bool is_line(const char *name, const char *value)
{
    enum { BLANKS_MAX = 1 << 15 };
    const char *after = name + strlen(name) + 1;
    uintptr_t gap = (uintptr_t)value - (uintptr_t)after; /* huge when the value comes first */
    return gap < BLANKS_MAX && strspn(after, " \t") >= gap && line_ended(value);
}

/* What does not decide how the request is read. */
static void read_wish(struct server_headers *headers, const char *name, const char *value)
{
    if (strcasecmp(name, "Prefer") == 0) {
        headers->respond_async = headers->respond_async || prefers_async(value);
    } else if (strcasecmp(name, MHD_HTTP_HEADER_RANGE) == 0) {
        headers->ranges++;
        headers->range = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_IF_RANGE) == 0) {
        headers->if_range = true;
    } else if (strcasecmp(name, "Last-Event-ID") == 0) {
        headers->last_event_ids++;
        headers->last_event_id = value;
    } else if (strcasecmp(name, "Idempotency-Key") == 0) {
        headers->keys++;
        headers->key = value;
    }
}

static enum MHD_Result read_one(void *cls, enum MHD_ValueKind kind, const char *name,
                                const char *value)
{
    struct server_headers *headers = cls;
    (void)kind;
    headers->broken = headers->broken || value == NULL || !is_line(name, value);
    if (headers->broken)
        return MHD_NO;
    headers->malformed = headers->malformed || !is_name(name) || !is_value(value);
    if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_LENGTH) == 0) {
        headers->content_lengths++;
        headers->malformed = headers->malformed || !is_number(value);
        headers->content_length = strtoull(value, NULL, 10);
    } else if (strcasecmp(name, MHD_HTTP_HEADER_TRANSFER_ENCODING) == 0) {
        headers->transfer_encodings++;
        headers->chunked = strcasecmp(value, "chunked") == 0;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_HOST) == 0) {
        headers->hosts++;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_AUTHORIZATION) == 0) {
        headers->authorizations++;
        headers->authorization = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_TYPE) == 0) {
        headers->content_types++;
        headers->content_type = value;
    } else if (strcasecmp(name, "Repr-Digest") == 0 || strcasecmp(name, "Content-Digest") == 0) {
        headers->digests++;
        headers->digest = value;
    } else if (strcasecmp(name, MHD_HTTP_HEADER_CONTENT_ENCODING) == 0) {
        headers->content_encoded = true;
    } else {
        read_wish(headers, name, value);
    }
    return MHD_YES;
}

static int check_event_id(const struct server_headers *headers, struct error *err)
{
    const char *id = headers->last_event_id;
    if (headers->last_event_ids > 1 || (id != NULL && strlen(id) >= API_EVENT_ID_SIZE))
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "Last-Event-ID may stand in a request once, with at most %d bytes",
                         API_EVENT_ID_SIZE - 1);
    return 0;
}

int server_headers_read(struct MHD_Connection *connection, const char *version,
                        struct server_headers *ret, struct error *err)
{
    *ret = (struct server_headers){0};
    MHD_get_connection_values(connection, MHD_HEADER_KIND, read_one, ret);
    if (ret->broken || !line_ended(version))
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "a line of the request does not end in CR LF, or is folded");
    if (ret->malformed)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "a header has a character that none may have, or Content-Length is no "
                         "number");
    if (ret->transfer_encodings > 0 &&
        (!ret->chunked || strcasecmp(version, MHD_HTTP_VERSION_1_1) != 0))
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "the one Transfer-Encoding there may be is `chunked`, in HTTP/1.1");
    if (ret->content_lengths > 0 && ret->transfer_encodings > 0)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "the request has both Content-Length and Transfer-Encoding");
    if (ret->content_lengths > 1 || ret->hosts > 1 || ret->authorizations > 1 ||
        ret->content_types > 1 || ret->transfer_encodings > 1 || ret->digests > 1)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "Content-Length, Content-Type, Transfer-Encoding, Host, Authorization and "
                         "one of Repr-Digest and Content-Digest may stand in a request once");
    return check_event_id(ret, err);
}

bool server_headers_json(const struct server_headers *headers)
{
    const char *type = headers->content_type;
    return type != NULL && !headers->content_encoded &&
           is_token(type, strcspn(type, " \t;"), "application/json");
}

bool server_headers_octets(const struct server_headers *headers)
{
    const char *type = headers->content_type;
    size_t len = type != NULL ? strcspn(type, " \t;") : 0;
    return !headers->content_encoded &&
           (type == NULL || is_token(type, len, "application/octet-stream") ||
            is_token(type, len, "application/x-tar"));
}

bool server_headers_body(const struct server_headers *headers)
{
    return headers->content_length > 0 || headers->transfer_encodings > 0;
}
