/* UTF-8 as Unicode 15 table 3-7 defines it. */
#include "json/internal.h"

static bool continues(uint8_t byte)
{
    return (byte & 0xc0) == 0x80;
}

/* The second byte decides what is overlong, a surrogate or too large. */
static bool second_fits(uint8_t first, uint8_t second)
{
    switch (first) {
    case 0xe0:
        return second >= 0xa0 && second <= 0xbf;
    case 0xed:
        return second >= 0x80 && second <= 0x9f;
    case 0xf0:
        return second >= 0x90 && second <= 0xbf;
    case 0xf4:
        return second >= 0x80 && second <= 0x8f;
    default:
        return continues(second);
    }
}

static size_t length_of(uint8_t first)
{
    if (first < 0x80)
        return 1;
    if (first >= 0xc2 && first <= 0xdf)
        return 2;
    if (first >= 0xe0 && first <= 0xef)
        return 3;
    if (first >= 0xf0 && first <= 0xf4)
        return 4;
    return 0;
}

size_t json_utf8_char(const uint8_t *text, size_t len)
{
    size_t need = len == 0 ? 0 : length_of(text[0]);
    if (need == 0 || need > len)
        return 0;
    if (need > 1 && !second_fits(text[0], text[1]))
        return 0;
    for (size_t i = 2; i < need; i++)
        if (!continues(text[i]))
            return 0;
    return need;
}

int json_utf8_clip(const char *text, int max)
{
    size_t len = strnlen(text, (size_t)max), at = 0;
    while (at < len) {
        size_t n = json_utf8_char((const uint8_t *)text + at, len - at);
        if (n == 0)
            break;
        at += n;
    }
    return (int)at;
}

bool json_is_utf8(const char *text, size_t len)
{
    size_t n = 1;
    for (size_t at = 0; at < len && n > 0; at += n)
        n = json_utf8_char((const uint8_t *)text + at, len - at);
    return n > 0;
}

size_t json_characters(const char *utf8)
{
    size_t count = 0;
    for (; *utf8 != '\0'; utf8++)
        count += !continues((uint8_t)*utf8);
    return count;
}
