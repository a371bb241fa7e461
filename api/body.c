/* A body that a guest gets, and its digest: a source for what takes one. */
#include "api/internal.h"

void api_body_release(struct api_body *body)
{
    hash_free(body->hash);
}

ssize_t api_body_read(void *context, void *data, size_t size, struct error *err)
{
    struct api_body *body = context;
    const struct api_request *request = body->request;
    ssize_t got = request->upload->read(request->upload->context, data, size, err);
    if (got > 0) {
        hash_add(body->hash, data, (size_t)got);
        body->size += got;
    }
    if (got != 0)
        return got;
    hash_end(body->hash, body->digest);
    if (request->has_digest && memcmp(request->digest, body->digest, HASH_SIZE) != 0)
        return error_set(err, ERR_DIGEST, 0,
                         "the %lld bytes that came have another SHA-256 than the header says",
                         (long long)body->size);
    return 0;
}
