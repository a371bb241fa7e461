#include "guest/tar.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    EXTENDED_MAX = 32 * 1024, /* of a pax header: a name, a target and what others put there */
    SUM_AT = 148,
    SUM_SIZE = 8,
    OCTAL_BITS = 3,
};

#define SIZE_MAX_READ ((INT64_C(1) << 53) - 1)

struct header { /* POSIX's ustar; GNU's differs in the magic and has no prefix */
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], sum[8], type, target[100];
    char magic[6], version[2], uname[32], gname[32], major[8], minor[8], prefix[155], rest[12];
};
_Static_assert(sizeof(struct header) == GUEST_TAR_BLOCK, "a header is a block");
_Static_assert(offsetof(struct header, sum) == SUM_AT, "as POSIX has it");

static unsigned sum_of(const struct header *header)
{
    const uint8_t *bytes = (const uint8_t *)header;
    unsigned sum = 0;
    for (size_t i = 0; i < GUEST_TAR_BLOCK; i++)
        sum += i >= SUM_AT && i < SUM_AT + SUM_SIZE ? ' ' : bytes[i];
    return sum;
}

/* ---- writing ---- */

size_t guest_tar_padding(int64_t size)
{
    return (size_t)(-size & (GUEST_TAR_BLOCK - 1));
}

/* Octal digits where they do, else big-endian with the first bit set. */
static void put_number(char *out, size_t size, int64_t value)
{
    bool octal = value >= 0 && value >> (OCTAL_BITS * (size - 1)) == 0;
    if (octal) {
        for (size_t i = size - 1; i-- > 0; value >>= OCTAL_BITS)
            out[i] = (char)('0' + (value & 7));
        return;
    }
    for (size_t i = size; i-- > 0; value >>= 8)
        out[i] = (char)(value & 0xff);
    out[0] = (char)(out[0] | 0x80);
}

static uint8_t *put_header(uint8_t *to, const struct guest_tar_member *member, char type,
                           int64_t size)
{
    struct header header = {.type = type};
    memcpy(header.name, member->name, strnlen(member->name, sizeof header.name));
    memcpy(header.target, member->target, strnlen(member->target, sizeof header.target));
    memcpy(header.magic, "ustar ", sizeof header.magic);
    memcpy(header.version, " ", sizeof header.version);
    put_number(header.mode, sizeof header.mode, member->mode);
    put_number(header.uid, sizeof header.uid, member->uid);
    put_number(header.gid, sizeof header.gid, member->gid);
    put_number(header.size, sizeof header.size, size);
    put_number(header.mtime, sizeof header.mtime, member->mtime_s);
    put_number(header.sum, sizeof header.sum - 1, sum_of(&header));
    header.sum[sizeof header.sum - 1] = ' ';
    memcpy(to, &header, sizeof header);
    return to + sizeof header;
}

/* A name that has no room in a header stands before it as the content of one of its own. */
static uint8_t *put_long(uint8_t *to, const char *name, char type)
{
    static const struct guest_tar_member LONG = {.name = "././@LongLink"};
    size_t len = strlen(name) + 1;
    if (len <= sizeof((struct header *)0)->name)
        return to;
    to = put_header(to, &LONG, type, (int64_t)len);
    memcpy(to, name, len);
    size_t padding = guest_tar_padding((int64_t)len);
    memset(to + len, 0, padding);
    return to + len + padding;
}

size_t guest_tar_headers(const struct guest_tar_member *member,
                         uint8_t out[static GUEST_TAR_HEADERS_MAX])
{
    uint8_t *to = put_long(out, member->target, 'K');
    to = put_long(to, member->name, 'L');
    return (size_t)(put_header(to, member, member->type, member->size) - out);
}

/* ---- reading ---- */

static int wrong(struct guest_tar_reader *reader, const char *why)
{
    reader->wrong = why;
    return -1;
}

static int read_exactly(struct guest_tar_reader *reader, void *data, size_t size)
{
    for (size_t at = 0; at < size;) {
        ssize_t got = reader->read(reader->context, (char *)data + at, size - at);
        if (got == 0)
            return wrong(reader, "it is cut off");
        if (got < 0)
            return -1;
        at += (size_t)got;
    }
    return 0;
}

ssize_t guest_tar_content(struct guest_tar_reader *reader, void *data, size_t size)
{
    if (reader->left == 0)
        return 0;
    if (reader->left < (int64_t)size)
        size = (size_t)reader->left;
    ssize_t got = reader->read(reader->context, data, size);
    if (got == 0)
        return wrong(reader, "it is cut off");
    reader->left -= got > 0 ? got : 0;
    return got;
}

/* To the next header. */
static int skip(struct guest_tar_reader *reader)
{
    char bytes[4096];
    ssize_t got;
    while ((got = guest_tar_content(reader, bytes, sizeof bytes)) > 0)
        continue;
    if (got < 0 || read_exactly(reader, bytes, (size_t)reader->padding))
        return -1;
    reader->padding = 0;
    return 0;
}

static void begin(struct guest_tar_reader *reader, int64_t size)
{
    reader->left = size;
    reader->padding = (int64_t)guest_tar_padding(size);
}

/* What put_number() writes, with blanks around octal digits. False: no number, or none of ours. */
static bool take_number(const char *text, size_t size, int64_t *ret)
{
    bool negative = (uint8_t)text[0] == 0xff;
    uint64_t value = negative ? UINT64_MAX : 0;
    size_t at = 0;
    if (negative || (uint8_t)text[0] == 0x80) {
        for (at = 1; at < size; at++) {
            if (value >> 55 != (negative ? UINT64_MAX >> 55 : 0))
                return false;
            value = value << 8 | (uint8_t)text[at];
        }
        *ret = (int64_t)value;
        return true;
    }
    while (at < size && text[at] == ' ')
        at++;
    for (; at < size && text[at] >= '0' && text[at] <= '7'; at++) /* 12 digits at most */
        value = value << OCTAL_BITS | (uint64_t)(text[at] - '0');
    *ret = (int64_t)value;
    return at == size || text[at] == '\0' || text[at] == ' ';
}

static bool take_decimal(const char *text, int64_t *ret)
{
    bool negative = text[0] == '-';
    int64_t value = 0;
    size_t at = negative;
    for (; text[at] >= '0' && text[at] <= '9' && value <= SIZE_MAX_READ / 10; at++)
        value = value * 10 + (text[at] - '0');
    *ret = negative ? -value : value;
    return at > (size_t)negative && (text[at] == '\0' || text[at] == '.');
}

/* What stands before a member about it. */
struct extra {
    bool has_name, has_target, has_size, has_mtime;
    struct guest_tar_member *member; /* where it goes */
    int64_t size, mtime_s;
};

static int take_name(struct guest_tar_reader *reader, const char *value, size_t len, char *out)
{
    if (len >= PATH_MAX || memchr(value, '\0', len))
        return wrong(reader, "a name is too long, or has a NUL");
    memcpy(out, value, len);
    out[len] = '\0';
    return 0;
}

static int take_record(struct guest_tar_reader *reader, const char *key, const char *value,
                       size_t len, struct extra *extra)
{
    if (strcmp(key, "path") == 0) {
        extra->has_name = true;
        return take_name(reader, value, len, extra->member->name);
    }
    if (strcmp(key, "linkpath") == 0) {
        extra->has_target = true;
        return take_name(reader, value, len, extra->member->target);
    }
    if (strcmp(key, "size") == 0) {
        extra->has_size = true;
        return take_decimal(value, &extra->size) && extra->size >= 0
                   ? 0
                   : wrong(reader, "an extended header's size is no number");
    }
    if (strcmp(key, "mtime") == 0)
        extra->has_mtime = take_decimal(value, &extra->mtime_s);
    if (strncmp(key, "GNU.sparse.", strlen("GNU.sparse.")) == 0)
        return wrong(reader, "it has a sparse file: pack without --sparse");
    return 0;
}

/* `LEN KEY=VALUE\n`, again and again. */
static int take_records(struct guest_tar_reader *reader, char *text, size_t size,
                        struct extra *extra)
{
    for (size_t at = 0; at < size;) {
        char *record = text + at, *end = text + size, *key = record;
        size_t len = 0;
        for (; key < end && *key >= '0' && *key <= '9' && len <= size; key++)
            len = len * 10 + (size_t)(*key - '0');
        char *last = record + len - 1;
        if (key == record || len > size - at || key >= last || *key != ' ' || *last != '\n')
            return wrong(reader, "an extended header is broken");
        char *equals = memchr(key + 1, '=', (size_t)(last - key - 1));
        if (!equals)
            return wrong(reader, "an extended header is broken");
        *equals = *last = '\0';
        if (take_record(reader, key + 1, equals + 1, (size_t)(last - equals - 1), extra))
            return -1;
        at += len;
    }
    return 0;
}

static int take_extra(struct guest_tar_reader *reader, char type, int64_t size, struct extra *extra)
{
    char text[EXTENDED_MAX];
    struct guest_tar_member nobody;
    struct extra ignored = {.member = &nobody};
    if (size > EXTENDED_MAX)
        return wrong(reader, "an extended header is too long");
    begin(reader, 0);
    reader->padding = (int64_t)guest_tar_padding(size);
    if (read_exactly(reader, text, (size_t)size) || skip(reader))
        return -1;
    if (type == 'x')
        return take_records(reader, text, (size_t)size, extra);
    if (type == 'g') {
        if (take_records(reader, text, (size_t)size, &ignored))
            return -1;
        bool has = ignored.has_name || ignored.has_target || ignored.has_size;
        return has ? wrong(reader, "a header for all members names one") : 0;
    }
    *(type == 'L' ? &extra->has_name : &extra->has_target) = true;
    return take_name(reader, text, strnlen(text, (size_t)size),
                     type == 'L' ? extra->member->name : extra->member->target);
}

static void take_header_names(const struct header *header, const struct extra *extra)
{
    struct guest_tar_member *member = extra->member;
    bool ustar = memcmp(header->magic, "ustar", sizeof header->magic) == 0; /* with its NUL */
    if (!extra->has_name && ustar && header->prefix[0])
        snprintf(member->name, sizeof member->name, "%.155s/%.100s", header->prefix, header->name);
    else if (!extra->has_name)
        snprintf(member->name, sizeof member->name, "%.100s", header->name);
    if (!extra->has_target)
        snprintf(member->target, sizeof member->target, "%.100s", header->target);
}

static int finish(struct guest_tar_reader *reader, const struct header *header, int64_t size,
                  const struct extra *extra)
{
    struct guest_tar_member *member = extra->member;
    int64_t mode;
    take_header_names(header, extra);
    if (!take_number(header->mode, sizeof header->mode, &mode) ||
        !take_number(header->mtime, sizeof header->mtime, &member->mtime_s))
        return wrong(reader, "a header's mode or time is no number");
    member->mode = (uint32_t)mode & 07777;
    member->mtime_s = extra->has_mtime ? extra->mtime_s : member->mtime_s;
    member->size = extra->has_size ? extra->size : size;
    size_t len = strlen(member->name);
    bool old_directory = header->type == '\0' && len > 0 && member->name[len - 1] == '/';
    member->type = header->type;
    if (old_directory)
        member->type = (char)GUEST_TAR_DIRECTORY;
    else if (strchr("07", header->type)) /* or NUL */
        member->type = (char)GUEST_TAR_FILE;
    bool link = member->type == GUEST_TAR_LINK || member->type == GUEST_TAR_SYMLINK;
    if (link && member->size != 0)
        return wrong(reader, "a link has content");
    if (member->type != GUEST_TAR_FILE)
        member->size = 0;
    begin(reader, member->size);
    return 1;
}

static bool is_zero(const struct header *header)
{
    static const struct header ZERO;
    return memcmp(header, &ZERO, sizeof ZERO) == 0;
}

int guest_tar_next(struct guest_tar_reader *reader, struct guest_tar_member *ret)
{
    struct extra extra = {.member = ret};
    bool any = false;
    memset(ret, 0, sizeof *ret);
    for (;; any = true) {
        struct header header;
        int64_t sum, size;
        if (skip(reader) || read_exactly(reader, &header, sizeof header))
            return -1;
        if (is_zero(&header))
            return any ? wrong(reader, "it ends after a header that announces another") : 0;
        if (!take_number(header.sum, sizeof header.sum, &sum) || sum != sum_of(&header))
            return wrong(reader,
                         "a header's sum is wrong: this is no tar archive, or a damaged one");
        if (!take_number(header.size, sizeof header.size, &size) || size < 0 ||
            size > SIZE_MAX_READ)
            return wrong(reader, "a header's size is no number");
        if (header.type == '\0' || !strchr("xgLK", header.type))
            return finish(reader, &header, size, &extra);
        if (take_extra(reader, header.type, size, &extra))
            return -1;
    }
}
