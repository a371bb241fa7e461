#include "tests/unit/json/unicode.h"

size_t unicode_encode(uint32_t point, uint8_t out[static 4])
{
    if (point < 0x80) {
        out[0] = (uint8_t)point;
        return 1;
    }
    size_t len = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = len - 1; i > 0; i--, point >>= 6)
        out[i] = (uint8_t)(0x80 | (point & 0x3f));
    out[0] = (uint8_t)(lead[len] | point);
    return len;
}

uint32_t unicode_random(struct random *random)
{
    static const uint32_t edges[] = {'"',    '\\',   '/',    0x1,     0x8,     0x9,     0xa,
                                     0xc,    0xd,    0x1f,   0x20,    0x7e,    0x7f,    0x80,
                                     0x9f,   0x7ff,  0x800,  0x2028,  0xd7ff,  0xe000,  0xfeff,
                                     0xfffd, 0xfffe, 0xffff, 0x10000, 0x1f600, 0xfffff, 0x10ffff};
    switch (random_below(random, 4)) {
    case 0:
        return RANDOM_PICK(random, edges);
    case 1:
        return 1 + (uint32_t)random_below(random, 0x7f);
    default:
        for (;;) {
            uint32_t point = 1 + (uint32_t)random_below(random, 0x10ffff);
            if (point < 0xd800 || point > 0xdfff)
                return point;
        }
    }
}

static void spell_short(struct buf *out, uint32_t point)
{
    static const char from[] = "\"\\/\b\f\n\r\t", to[] = "\"\\/bfnrt";
    buf_printf(out, "\\%c", to[strchr(from, (int)point) - from]);
}

void unicode_spell(struct buf *out, uint32_t point, struct random *random)
{
    bool has_short = point < 0x80 && strchr("\"\\/\b\f\n\r\t", (int)point) != NULL;
    bool must_escape = point < 0x20 || point == '"' || point == '\\';
    const char *unit = random_below(random, 2) == 0 ? "\\u%04x" : "\\u%04X";
    uint64_t way = random_below(random, 3);
    if (has_short && way == 0) {
        spell_short(out, point);
    } else if (!must_escape && way == 1) {
        uint8_t bytes[4];
        buf_append(out, bytes, unicode_encode(point, bytes));
    } else {
        char text[16];
        bool pair = point > 0xffff;
        uint32_t first = pair ? 0xd800 + ((point - 0x10000) >> 10) : point;
        int upper = unit[5] == 'X';
        snprintf(text, sizeof(text), upper ? "\\u%04X" : "\\u%04x", (unsigned)first);
        buf_append(out, text, strlen(text));
        if (pair) {
            snprintf(text, sizeof(text), upper ? "\\u%04X" : "\\u%04x",
                     (unsigned)(0xdc00 + ((point - 0x10000) & 0x3ff)));
            buf_append(out, text, strlen(text));
        }
    }
}

size_t unicode_slow_char(const uint8_t *bytes, size_t len)
{
    for (size_t n = 1; n <= 4 && n <= len; n++) {
        static const uint8_t mask[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
        uint32_t point = bytes[0] & mask[n];
        for (size_t i = 1; i < n; i++)
            point = point << 6 | (bytes[i] & 0x3f);
        uint8_t again[4];
        if (point == 0 || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
            continue;
        if (unicode_encode(point, again) == n && memcmp(again, bytes, n) == 0)
            return n;
    }
    return 0;
}
