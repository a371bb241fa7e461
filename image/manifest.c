/* Manifests: `key = value` files of a closed set of keys, each at most once. */
#include "image/internal.h"

#include <errno.h>

enum kind { KIND_DIGEST, KIND_NUMBER, KIND_NAME, KIND_ARGS };

struct key {
    const char *name;
    enum kind kind;
    bool required;
    void *out;
    size_t size; /* of text */
    bool *has;   /* set when an optional key is there; may be NULL */
};

struct reading {
    const struct key *keys;
    size_t count;
    unsigned seen; /* one bit a key */
};

static int read_text(const struct key *key, const char *value, bool valid, struct error *err)
{
    size_t len = strlen(value);
    if (!valid || len >= key->size)
        return error_set(err, ERR_CONFIG, 0, "`%s` is not valid", key->name);
    memcpy(key->out, value, len + 1);
    return 0;
}

/* Kernel arguments are one line of printable ASCII: nothing that could end it or start another. */
static bool printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (*text < ' ' || *text > '~')
            return false;
    return true;
}

static int read_value(const struct key *key, const char *value, struct error *err)
{
    uint64_t number = 0;
    switch (key->kind) {
    case KIND_DIGEST:
        if (hash_from_hex(value, key->out, HASH_SIZE) < 0)
            return error_set(err, ERR_CONFIG, 0, "`%s` is not a SHA-256 in 64 hex digits",
                             key->name);
        return 0;
    case KIND_NUMBER:
        if (kv_number(key->name, value, 0, INT64_MAX, &number, err) < 0)
            return -1;
        memcpy(key->out, &number, sizeof(number));
        return 0;
    case KIND_NAME:
        return read_text(key, value, id_name_valid(value), err);
    case KIND_ARGS:
        return read_text(key, value, printable(value), err);
    }
    return error_set(err, ERR_INTERNAL, 0, "`%s` has no known kind", key->name);
}

static int handle(void *context, const char *name, const char *value, struct error *err)
{
    struct reading *reading = context;
    size_t i = 0;
    while (i < reading->count && strcmp(reading->keys[i].name, name) != 0)
        i++;
    if (i == reading->count)
        return error_set(err, ERR_CONFIG, 0, "`%.40s` is not a key of this manifest", name);
    if (reading->seen & 1U << i)
        return error_set(err, ERR_CONFIG, 0, "`%s` is given twice", name);
    reading->seen |= 1U << i;
    if (reading->keys[i].has != NULL)
        *reading->keys[i].has = true;
    return read_value(&reading->keys[i], value, err);
}

static int read_all(int fd, char *out, size_t size, struct error *err)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, out + len, size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERR_CONFIG, errno, "manifest cannot be read");
        if (n == 0)
            break;
        len += (size_t)n;
        if (len == size)
            return error_set(err, ERR_CONFIG, 0, "manifest is longer than %zu bytes", size - 1);
    }
    out[len] = '\0';
    if (strlen(out) != len)
        return error_set(err, ERR_CONFIG, 0, "manifest holds a NUL byte");
    return 0;
}

static int read_manifest(int entry, const struct key *keys, size_t count, struct error *err)
{
    char text[4096];
    struct stat st;
    cleanup_close int fd = image_entry_file(entry, "manifest", &st, err);
    if (fd < 0 || read_all(fd, text, sizeof(text), err) < 0)
        return -1;
    struct reading reading = {.keys = keys, .count = count};
    if (kv_parse(text, "manifest", handle, &reading, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (keys[i].required && !(reading.seen & 1U << i))
            return error_set(err, ERR_CONFIG, 0, "manifest: `%s` is missing", keys[i].name);
    return 0;
}

int image_manifest_image(int entry, struct image *ret, struct error *err)
{
    _Static_assert(sizeof(ret->size) == 8 && sizeof(ret->created_wall_ms) == 8, "KIND_NUMBER");
    const struct key keys[] = {
        {"digest", KIND_DIGEST, true, ret->digest, 0, NULL},
        {"size", KIND_NUMBER, true, &ret->size, 0, NULL},
        {"kernel", KIND_NAME, true, ret->kernel, sizeof(ret->kernel), NULL},
        {"created", KIND_NUMBER, true, &ret->created_wall_ms, 0, NULL},
    };
    return read_manifest(entry, keys, COUNT_OF(keys), err);
}

int image_manifest_kernel(int entry, struct image_kernel *ret, struct error *err)
{
    const struct key keys[] = {
        {"vmlinux", KIND_DIGEST, true, ret->vmlinux, 0, NULL},
        {"initrd", KIND_DIGEST, false, ret->initrd, 0, &ret->has_initrd},
        {"scratch", KIND_DIGEST, false, ret->scratch, 0, &ret->has_scratch},
        {"boot_args", KIND_ARGS, false, ret->boot_args, sizeof(ret->boot_args), NULL},
    };
    return read_manifest(entry, keys, COUNT_OF(keys), err);
}
