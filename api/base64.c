/* Bytes as text that JSON and events can carry (RFC 4648). */
#include "api/internal.h"

enum { PADDING = 64 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=";

size_t api_base64_encode(const void *data, size_t len, char *out)
{
    const uint8_t *bytes = data;
    char *to = out;
    for (size_t i = 0; i < len; i += 3) {
        size_t have = len - i < 3 ? len - i : 3;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        if (have > 1)
            bits |= (uint32_t)bytes[i + 1] << 8;
        if (have > 2)
            bits |= bytes[i + 2];
        *to++ = alphabet[bits >> 18];
        *to++ = alphabet[bits >> 12 & 63];
        *to++ = alphabet[have > 1 ? bits >> 6 & 63 : PADDING];
        *to++ = alphabet[have > 2 ? bits & 63 : PADDING];
    }
    return (size_t)(to - out);
}

static int value_of(char digit)
{
    const char *at = digit != '\0' ? strchr(alphabet, digit) : NULL;
    return at != NULL && *at != '=' ? (int)(at - alphabet) : -1;
}

ssize_t api_base64_decode(char *text, size_t len)
{
    size_t padding = 0, made = 0;
    uint32_t bits = 0;
    while (padding < 2 && padding < len && text[len - 1 - padding] == '=')
        padding++;
    if (len % 4 != 0)
        return -1;
    for (size_t i = 0; i < len - padding; i++) {
        int value = value_of(text[i]);
        if (value < 0)
            return -1;
        bits = bits << 6 | (uint32_t)value;
        if (i % 4 > 0)
            text[made++] = (char)(bits >> (6 - i % 4 * 2) & 0xff);
    }
    uint32_t left = padding == 2 ? bits & 0xf : padding == 1 ? bits & 0x3 : 0;
    return left == 0 ? (ssize_t)made : -1; /* two texts must not mean the same bytes */
}
