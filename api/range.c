/* `Range: bytes=…` of a GET (RFC 9110, section 14). */
#include "api/internal.h"

/* Digits alone, below 2^53; -1: not so. */
static int64_t number(const char *text, size_t len)
{
    int64_t value = 0;
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9' || value > (INT64_C(1) << 53) / 10)
            return -1;
        value = value * 10 + (text[i] - '0');
    }
    return len > 0 ? value : -1;
}

/* `A-B`, `A-` or `-B`: -1 for what is left out. False: it is not one range. */
static bool parse(const char *text, int64_t *ret_from, int64_t *ret_to)
{
    const char *dash = strchr(text, '-');
    if (dash == NULL)
        return false;
    size_t before = (size_t)(dash - text), after = strlen(dash + 1);
    *ret_from = number(text, before);
    *ret_to = number(dash + 1, after);
    if ((before > 0 && *ret_from < 0) || (after > 0 && *ret_to < 0) || before + after == 0)
        return false;
    return before == 0 || after == 0 || *ret_from <= *ret_to;
}

enum api_range api_range_parse(const char *text, int64_t size, int64_t *ret_offset,
                               int64_t *ret_length)
{
    static const char unit[] = "bytes=";
    int64_t from, to;
    if (strncasecmp(text, unit, strlen(unit)) != 0 || !parse(text + strlen(unit), &from, &to))
        return API_RANGE_ALL;
    if (from < 0) { /* the last so many */
        from = to < size ? size - to : 0;
        to = -1;
    }
    if (from >= size)
        return API_RANGE_NONE;
    *ret_offset = from;
    *ret_length = (to < 0 || to >= size ? size : to + 1) - from;
    return API_RANGE_PART;
}
