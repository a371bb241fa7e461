/* The request target as it came: refused unless everybody would read it the same way. */
#include "api/internal.h"

/* What RFC 3986 allows in a path or query, less the percent sign. */
static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                            "-._~!$&'()*+,;=:@/";

static int check_path(const char *path, struct error *err)
{
    if (path[0] != '/')
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "the request target must be a path that starts with `/`");
    if (strchr(path, '%') != NULL)
        return error_set(err, ERR_BAD_REQUEST, 0,
                         "percent escapes are not used in paths: ids are of A-Z a-z 0-9 _ -");
    if (strspn(path, plain) != strlen(path))
        return error_set(err, ERR_BAD_REQUEST, 0, "the path has a character that no URL may have");
    for (const char *at = path; at != NULL; at = strchr(at + 1, '/')) {
        size_t len = strcspn(at + 1, "/");
        bool last = at[1 + len] == '\0';
        bool empty = len == 0 && !last;
        bool dots = (len == 1 || len == 2) && strspn(at + 1, ".") >= len;
        if (empty || dots)
            return error_set(err, ERR_BAD_REQUEST, 0, "the path has an empty, `.` or `..` segment");
    }
    return 0;
}

static int check_query(const char *query, struct error *err)
{
    for (const char *at = query; *at != '\0'; at++)
        if (strchr(plain, *at) == NULL && *at != '%' && *at != '?')
            return error_set(err, ERR_BAD_REQUEST, 0,
                             "the query has a character that must be percent-encoded");
    return 0;
}

int api_target_parse(const char *raw, struct api_target *ret, struct error *err)
{
    size_t len = strlen(raw);
    if (len > API_TARGET_MAX)
        return error_set(err, ERR_TARGET_TOO_LONG, 0, "the request target has more than %d bytes",
                         API_TARGET_MAX);
    size_t path_len = strcspn(raw, "?");
    memcpy(ret->path, raw, path_len);
    ret->path[path_len] = '\0';
    const char *query = raw[path_len] == '?' ? raw + path_len + 1 : "";
    memcpy(ret->query, query, strlen(query) + 1);
    if (check_path(ret->path, err) < 0)
        return -1;
    return check_query(ret->query, err);
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Form decoding: %XX and `+`. */
static int decode(const char *from, size_t len, char *out, size_t size, struct error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < len; i++) {
        char c = from[i];
        if (c == '+')
            c = ' ';
        if (c == '%') {
            int high = i + 1 < len ? hex_digit(from[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(from[i + 2]) : -1;
            if (high < 0 || low < 0)
                return error_set(err, ERR_QUERY, 0, "the query has `%%` without two hex digits");
            c = (char)(high * 16 + low);
            i += 2;
            if (c == '\0')
                return error_set(err, ERR_QUERY, 0, "the query has a %%00");
        }
        if (at + 1 >= size)
            return error_set(err, ERR_QUERY, 0,
                             "a name or value in the query is too long (at most %zu bytes)",
                             size - 1);
        out[at++] = c;
    }
    out[at] = '\0';
    return 0;
}

int api_query_next(const char **cursor, char key[static API_QUERY_KEY_SIZE],
                   char value[static API_QUERY_VALUE_SIZE], struct error *err)
{
    const char *at = *cursor + strspn(*cursor, "&");
    if (*at == '\0')
        return 0;
    size_t len = strcspn(at, "&");
    const char *equals = memchr(at, '=', len);
    size_t key_len = equals != NULL ? (size_t)(equals - at) : len;
    const char *text = equals != NULL ? equals + 1 : at + len;
    if (decode(at, key_len, key, API_QUERY_KEY_SIZE, err) < 0 ||
        decode(text, (size_t)(at + len - text), value, API_QUERY_VALUE_SIZE, err) < 0)
        return -1;
    *cursor = at + len;
    return 1;
}

int api_query_none(const char *query, struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    const char *cursor = query != NULL ? query : "";
    int more = api_query_next(&cursor, key, value, err);
    if (more > 0)
        return error_set(err, ERR_QUERY, 0, "this route takes no query parameters");
    return more;
}
