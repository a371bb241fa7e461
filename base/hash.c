/* SHA-256 through nettle, and hex. */
#include "base/base.h"

#include <errno.h>
#include <nettle/sha2.h>

_Static_assert(HASH_SIZE == SHA256_DIGEST_SIZE, "SHA-256");

void hash_sha256(const void *data, size_t len, uint8_t out[static HASH_SIZE])
{
    struct sha256_ctx context;
    sha256_init(&context);
    sha256_update(&context, len, data);
    sha256_digest(&context, HASH_SIZE, out);
}

struct hash {
    struct sha256_ctx context;
};

struct hash *hash_new(void)
{
    struct hash *hash = malloc(sizeof(*hash));
    if (hash != NULL)
        sha256_init(&hash->context);
    return hash;
}

void hash_add(struct hash *hash, const void *data, size_t len)
{
    sha256_update(&hash->context, len, data);
}

void hash_end(const struct hash *hash, uint8_t out[static HASH_SIZE])
{
    struct sha256_ctx context = hash->context;
    sha256_digest(&context, HASH_SIZE, out);
}

void hash_free(struct hash *hash)
{
    free(hash);
}

int hash_sha256_fd(int fd, uint8_t out[static HASH_SIZE], struct error *err)
{
    enum { CHUNK = 1 << 18 };
    cleanup_free uint8_t *chunk = malloc(CHUNK);
    if (chunk == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while hashing");
    struct sha256_ctx context;
    sha256_init(&context);
    for (off_t at = 0;;) {
        ssize_t n = pread(fd, chunk, CHUNK, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, ERR_SYSTEM, errno, "reading a file to hash");
        if (n == 0)
            break;
        sha256_update(&context, (size_t)n, chunk);
        at += n;
    }
    sha256_digest(&context, HASH_SIZE, out);
    return 0;
}

void hash_to_hex(const uint8_t *bytes, size_t len, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *out++ = digits[bytes[i] >> 4];
        *out++ = digits[bytes[i] & 15];
    }
    *out = '\0';
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int hash_from_hex(const char *hex, uint8_t *out, size_t len)
{
    if (strlen(hex) != 2 * len)
        return -1;
    for (size_t i = 0; i < len; i++) {
        int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);
        if (high < 0 || low < 0)
            return -1;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return 0;
}
