/*
 * The strict reader in front of cJSON. cJSON 1.7.15 cuts strings at \u0000, takes invalid UTF-8,
 * lone surrogates, raw controls, numbers like 01 and any byte up to 0x20 as a space; what passes
 * here is RFC 8259 and means the same to everybody who reads it.
 */
#include "json/internal.h"

#include <ctype.h>

struct scan {
    const uint8_t *text;
    size_t len, at;
    struct error *err;
};

static int fail(struct scan *scan, const char *what)
{
    return error_set(scan->err, ERR_JSON, 0, "%s at byte %zu of the JSON text", what, scan->at);
}

/* The byte at the cursor; 0, which no token takes, at the end. */
static uint8_t peek(const struct scan *scan)
{
    return scan->at < scan->len ? scan->text[scan->at] : 0;
}

static bool take(struct scan *scan, char c)
{
    if (scan->at >= scan->len || scan->text[scan->at] != (uint8_t)c)
        return false;
    scan->at++;
    return true;
}

static void skip_spaces(struct scan *scan)
{
    while (take(scan, ' ') || take(scan, '\t') || take(scan, '\n') || take(scan, '\r'))
        ;
}

static int hex4(struct scan *scan, unsigned *ret)
{
    unsigned value = 0;
    for (int i = 0; i < 4; i++, scan->at++) {
        uint8_t c = peek(scan);
        if (!isxdigit(c))
            return fail(scan, "\\u without four hex digits");
        value = value << 4 | (unsigned)(isdigit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    *ret = value;
    return 0;
}

/* After "\u". */
static int scan_unicode(struct scan *scan)
{
    unsigned high = 0, low = 0;
    if (hex4(scan, &high) < 0)
        return -1;
    if (high == 0)
        return fail(scan, "U+0000 in a string");
    if (high < 0xd800 || high > 0xdfff)
        return 0;
    if (high > 0xdbff || !take(scan, '\\') || !take(scan, 'u'))
        return fail(scan, "half a surrogate pair");
    if (hex4(scan, &low) < 0)
        return -1;
    if (low < 0xdc00 || low > 0xdfff)
        return fail(scan, "half a surrogate pair");
    return 0;
}

static int scan_string(struct scan *scan)
{
    if (!take(scan, '"'))
        return fail(scan, "expected a string in double quotes");
    while (!take(scan, '"')) {
        if (scan->at >= scan->len)
            return fail(scan, "unfinished string");
        if (take(scan, '\\')) {
            if (take(scan, 'u')) {
                if (scan_unicode(scan) < 0)
                    return -1;
            } else if (peek(scan) == 0 || strchr("\"\\/bfnrt", peek(scan)) == NULL) {
                return fail(scan, "unknown escape in a string");
            } else {
                scan->at++;
            }
            continue;
        }
        size_t n = json_utf8_char(scan->text + scan->at, scan->len - scan->at);
        if (n == 0)
            return fail(scan, "invalid UTF-8 in a string");
        if (scan->text[scan->at] < 0x20)
            return fail(scan, "unescaped control character in a string");
        scan->at += n;
    }
    return 0;
}

static int scan_digits(struct scan *scan)
{
    if (!isdigit(peek(scan)))
        return fail(scan, "expected a digit");
    while (isdigit(peek(scan)))
        scan->at++;
    return 0;
}

static int scan_number_parts(struct scan *scan)
{
    take(scan, '-');
    if (!take(scan, '0') && scan_digits(scan) < 0)
        return -1;
    if (take(scan, '.') && scan_digits(scan) < 0)
        return -1;
    if (take(scan, 'e') || take(scan, 'E')) {
        if (!take(scan, '+'))
            take(scan, '-');
        return scan_digits(scan);
    }
    return 0;
}

static int scan_number(struct scan *scan)
{
    enum { LEN_MAX = 63 }; /* what cJSON reads of a number: the rest would be another value */
    size_t start = scan->at;
    if (scan_number_parts(scan) < 0)
        return -1;
    return scan->at - start <= LEN_MAX ? 0 : fail(scan, "a number of more than 63 characters");
}

static int scan_word(struct scan *scan, const char *word)
{
    for (; *word != '\0'; word++)
        if (!take(scan, *word))
            return fail(scan, "unknown word");
    return 0;
}

static int scan_value(struct scan *scan, int depth);

/* After "{" or "[": members up to the closing bracket. */
static int scan_members(struct scan *scan, bool named, char close, int depth)
{
    if (depth == 0)
        return fail(scan, "nesting too deep");
    skip_spaces(scan);
    if (take(scan, close))
        return 0;
    do {
        skip_spaces(scan);
        if (named) {
            if (scan_string(scan) < 0)
                return -1;
            skip_spaces(scan);
            if (!take(scan, ':'))
                return fail(scan, "expected a colon");
        }
        if (scan_value(scan, depth - 1) < 0)
            return -1;
        skip_spaces(scan);
    } while (take(scan, ','));
    return take(scan, close) ? 0 : fail(scan, "expected a comma or a closing bracket");
}

/* `depth`: how many levels may still open here. */
static int scan_value(struct scan *scan, int depth)
{
    skip_spaces(scan);
    switch (peek(scan)) {
    case '{':
        scan->at++;
        return scan_members(scan, true, '}', depth);
    case '[':
        scan->at++;
        return scan_members(scan, false, ']', depth);
    case '"':
        return scan_string(scan);
    case 't':
        return scan_word(scan, "true");
    case 'f':
        return scan_word(scan, "false");
    case 'n':
        return scan_word(scan, "null");
    default:
        if (peek(scan) != '-' && !isdigit(peek(scan)))
            return fail(scan, scan->at < scan->len ? "expected a value" : "the text ends early");
        return scan_number(scan);
    }
}

int json_scan(const char *text, size_t len, struct error *err)
{
    struct scan scan = {.text = (const uint8_t *)text, .len = len, .err = err};
    if (scan_value(&scan, JSON_DEPTH_MAX) < 0)
        return -1;
    skip_spaces(&scan);
    return scan.at == len ? 0 : fail(&scan, "something after the end");
}
