#include "json.h"

enum { DEPTH_MAX = 16 };

static void space(struct json *json)
{
    while (json->at < json->end &&
           (*json->at == ' ' || *json->at == '\t' || *json->at == '\n' || *json->at == '\r')) {
        json->at++;
    }
}

static bool take(struct json *json, char c)
{
    if (json->at == json->end || *json->at != c) {
        return false;
    }
    json->at++;
    return true;
}

static bool word(struct json *json, const char *text)
{
    while (*text) {
        if (!take(json, *text++)) {
            return false;
        }
    }
    return true;
}

static bool hex4(struct json *json, uint32_t *ret)
{
    uint32_t value = 0;
    for (int i = 0; i < 4; i++, json->at++) {
        unsigned digit = json->at < json->end ? guest_digit(*json->at) : 16;
        if (digit == 16) {
            return false;
        }
        value = value * 16 + digit;
    }
    *ret = value;
    return true;
}

/* Behind "\u". A surrogate counts only in a pair. */
static bool code_point(struct json *json, uint32_t *ret)
{
    uint32_t high, low;
    if (!hex4(json, &high)) {
        return false;
    }
    *ret = high;
    if (high < 0xd800 || high > 0xdfff) {
        return true;
    }
    if (high > 0xdbff || !word(json, "\\u") || !hex4(json, &low) || low < 0xdc00 || low > 0xdfff) {
        return false;
    }
    *ret = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    return true;
}

static unsigned utf8(uint32_t point, uint8_t out[4])
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    unsigned more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    for (unsigned i = more; i; i--, point >>= 6) {
        out[i] = (uint8_t)(0x80 | (point & 0x3f));
    }
    out[0] = (uint8_t)((0xff00u >> (more + 1)) | point);
    return more + 1;
}

/* Behind a backslash. */
static bool escape(struct json *json, uint8_t out[4], unsigned *ret_len)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    if (take(json, 'u')) {
        uint32_t point;
        if (!code_point(json, &point)) {
            return false;
        }
        *ret_len = utf8(point, out);
        return true;
    }
    for (unsigned i = 0; from[i]; i++) {
        if (take(json, from[i])) {
            out[0] = (uint8_t)to[i];
            *ret_len = 1;
            return true;
        }
    }
    return false;
}

bool json_string(struct json *json, char *to, size_t size, size_t *ret_len)
{
    size_t len = 0;
    space(json);
    if (!take(json, '"')) {
        return false;
    }
    while (!take(json, '"')) {
        uint8_t bytes[4];
        unsigned count = 1;
        if (json->at == json->end || (uint8_t)*json->at < 0x20) {
            return false;
        }
        bytes[0] = (uint8_t)*json->at++;
        if (bytes[0] == '\\' && !escape(json, bytes, &count)) {
            return false;
        }
        if (to && len + count >= size) {
            return false;
        }
        for (unsigned i = 0; to && i < count; i++) {
            to[len + i] = (char)bytes[i];
        }
        len += count;
    }
    if (to) {
        to[len] = '\0';
    }
    if (ret_len) {
        *ret_len = len;
    }
    return true;
}

static bool digits(struct json *json)
{
    const char *start = json->at;
    while (json->at < json->end && *json->at >= '0' && *json->at <= '9') {
        json->at++;
    }
    return json->at != start;
}

static bool number(struct json *json)
{
    take(json, '-');
    if (!take(json, '0') && !digits(json)) {
        return false;
    }
    if (take(json, '.') && !digits(json)) {
        return false;
    }
    if (take(json, 'e') || take(json, 'E')) {
        if (!take(json, '+')) {
            take(json, '-');
        }
        return digits(json);
    }
    return true;
}

bool json_unsigned(struct json *json, uint64_t *ret)
{
    space(json);
    uint64_t value = 0;
    const char *start = json->at;
    if (!number(json)) {
        return false;
    }
    for (const char *p = start; p < json->at; p++) {
        if (*p < '0' || *p > '9' || value > (UINT64_C(1) << 53) / 10) {
            return false;
        }
        value = value * 10 + (uint64_t)(*p - '0');
    }
    *ret = value;
    return value < UINT64_C(1) << 53;
}

bool json_bool(struct json *json, bool *ret)
{
    space(json);
    *ret = json->at < json->end && *json->at == 't';
    return word(json, *ret ? "true" : "false");
}

bool json_enter(struct json *json, char open)
{
    space(json);
    return take(json, open);
}

enum json_step json_next(struct json *json, char close, bool *first)
{
    space(json);
    if (take(json, close)) {
        return JSON_END;
    }
    if (!*first && !take(json, ',')) {
        return JSON_BAD;
    }
    *first = false;
    return JSON_ELEMENT;
}

bool json_key(struct json *json, char *to, size_t size)
{
    if (!json_string(json, to, size, NULL)) {
        return false;
    }
    space(json);
    return take(json, ':');
}

static bool skip(struct json *json, int depth);

static bool skip_members(struct json *json, char close, int depth)
{
    bool first = true;
    json->at++;
    for (;;) {
        enum json_step step = json_next(json, close, &first);
        if (step != JSON_ELEMENT) {
            return step == JSON_END;
        }
        if (close == '}' && !json_key(json, NULL, 0)) {
            return false;
        }
        if (!skip(json, depth)) {
            return false;
        }
    }
}

static bool skip(struct json *json, int depth)
{
    space(json);
    if (json->at == json->end || depth == DEPTH_MAX) {
        return false;
    }
    switch (*json->at) {
    case '{':
        return skip_members(json, '}', depth + 1);
    case '[':
        return skip_members(json, ']', depth + 1);
    case '"':
        return json_string(json, NULL, 0, NULL);
    case 't':
        return word(json, "true");
    case 'f':
        return word(json, "false");
    case 'n':
        return word(json, "null");
    default:
        return number(json);
    }
}

bool json_skip(struct json *json)
{
    return skip(json, 0);
}

bool json_done(struct json *json)
{
    space(json);
    return json->at == json->end;
}
