/* The last bytes of a stream in fixed memory. */
#include "base/base.h"

struct ring {
    size_t size, total; /* total: bytes ever written */
    char data[];
};

struct ring *ring_new(size_t size)
{
    struct ring *ring = calloc(1, sizeof(*ring) + size);
    if (ring != NULL)
        ring->size = size;
    return ring;
}

void ring_free(struct ring *ring)
{
    free(ring);
}

void ring_write(struct ring *ring, const void *data, size_t len)
{
    const char *from = data;
    if (len > ring->size) {
        from += len - ring->size;
        ring->total += len - ring->size;
        len = ring->size;
    }
    while (len > 0) {
        size_t at = ring->total % ring->size, n = ring->size - at;
        if (n > len)
            n = len;
        memcpy(ring->data + at, from, n);
        ring->total += n;
        from += n;
        len -= n;
    }
}

size_t ring_read(const struct ring *ring, char *out, size_t size)
{
    if (size == 0)
        return 0;
    size_t have = ring->total < ring->size ? ring->total : ring->size;
    size_t n = have < size - 1 ? have : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = ring->data[(ring->total - n + i) % ring->size];
    out[n] = '\0';
    return n;
}
