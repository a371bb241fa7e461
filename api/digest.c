/* Repr-Digest and Content-Digest: `sha-256=:<base64>:, sha-512=:…:`, a dictionary of byte sequences
 * (RFC 9530, RFC 8941). */
#include "api/internal.h"

#include <nettle/base64.h>

/* One member, from `text` on: its algorithm is `name`. */
static bool is_algorithm(const char *text, const char *name)
{
    size_t len = strlen(name);
    return strncasecmp(text, name, len) == 0 && text[len] == '=';
}

static bool decode(const char *text, size_t len, uint8_t out[static HASH_SIZE])
{
    uint8_t bytes[BASE64_DECODE_LENGTH(BASE64_ENCODE_RAW_LENGTH(HASH_SIZE))];
    struct base64_decode_ctx context;
    size_t got = sizeof(bytes);
    base64_decode_init(&context);
    if (len != BASE64_ENCODE_RAW_LENGTH(HASH_SIZE) ||
        !base64_decode_update(&context, &got, bytes, len, text) || !base64_decode_final(&context) ||
        got != HASH_SIZE)
        return false;
    memcpy(out, bytes, HASH_SIZE);
    return true;
}

int api_digest_parse(const char *header, uint8_t out[static HASH_SIZE], struct error *err)
{
    for (const char *at = header; *at != '\0'; at += strcspn(at, ",")) {
        at += strspn(at, ", \t");
        if (!is_algorithm(at, "sha-256"))
            continue;
        const char *value = at + strlen("sha-256=");
        size_t len = value[0] == ':' ? strcspn(value + 1, ":") : 0;
        if (len > 0 && value[1 + len] == ':' && decode(value + 1, len, out))
            return 0;
        break;
    }
    return error_set(err, ERR_BAD_REQUEST, 0,
                     "of digests SHA-256 is checked: send `sha-256=:<44 characters of base64>:`");
}

void api_digest_print(const uint8_t digest[static HASH_SIZE], char out[static API_DIGEST_SIZE])
{
    char text[BASE64_ENCODE_RAW_LENGTH(HASH_SIZE) + 1] = "";
    base64_encode_raw(text, HASH_SIZE, digest);
    snprintf(out, API_DIGEST_SIZE, "sha-256=:%s:", text);
}
