/* The last bytes of a stream in bounded memory. It grows as they come: of a thousand VMs most say
 * little. */
#include "base/base.h"

enum { ROOM_STEP = 512 };

struct ring {
    size_t size, total; /* total: bytes ever written */
    size_t from;        /* the place of the oldest of them that is kept */
    size_t room;        /* as long as it is less than size, nothing has been overwritten */
    char *data;         /* owned; `room` bytes */
};

struct ring *ring_new(size_t size)
{
    struct ring *ring = calloc(1, sizeof(*ring));
    if (ring != NULL)
        ring->size = size;
    return ring;
}

void ring_free(struct ring *ring)
{
    if (ring == NULL)
        return;
    free(ring->data);
    free(ring);
}

static bool make_room(struct ring *ring, size_t wanted)
{
    if (wanted > ring->size)
        wanted = ring->size;
    if (wanted <= ring->room)
        return true;
    size_t room = (wanted + ROOM_STEP - 1) / ROOM_STEP * ROOM_STEP;
    if (room > ring->size)
        room = ring->size;
    char *grown = realloc(ring->data, room);
    if (grown == NULL)
        return false;
    ring->data = grown;
    ring->room = room;
    return true;
}

void ring_write(struct ring *ring, const void *data, size_t len)
{
    const char *from = data;
    if (!make_room(ring, ring->total + len))
        return;
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
    if (ring->total - ring->from > ring->size)
        ring->from = ring->total - ring->size;
}

bool ring_grow(struct ring *ring, size_t size)
{
    if (size <= ring->size)
        return true;
    char *grown = malloc(size);
    if (grown == NULL)
        return false;
    for (size_t at = ring->from; at < ring->total; at++)
        grown[at % size] = ring->data[at % ring->size];
    free(ring->data);
    ring->data = grown;
    ring->size = ring->room = size;
    return true;
}

uint64_t ring_end(const struct ring *ring)
{
    return ring->total;
}

size_t ring_read_on(const struct ring *ring, uint64_t *at, char *out, size_t size)
{
    if (*at < ring->from) {
        *at = ring->from;
        return 0;
    }
    size_t n = *at < ring->total ? (size_t)(ring->total - *at) : 0;
    if (n > size)
        n = size;
    for (size_t i = 0; i < n; i++)
        out[i] = ring->data[(*at + i) % ring->size];
    *at += n;
    return n;
}

size_t ring_read(const struct ring *ring, char *out, size_t size)
{
    if (size == 0)
        return 0;
    size_t have = ring->total - ring->from;
    size_t n = have < size - 1 ? have : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = ring->data[(ring->total - n + i) % ring->size];
    out[n] = '\0';
    return n;
}
