/* Frames from a guest: however the bytes are split, the same frames come out (R28). */
#include "feed.h"

static uint64_t take_frames(const struct feed *feed, uint64_t hash, bool *over)
{
    struct vsock_frame frame;
    struct error err = {0};
    int got = 0;
    while (!*over && (got = vsock_conn_next(feed->conn, &frame, &err)) > 0) {
        FUZZ_CHECK(frame.len < WIRE_FRAME_MAX);
        hash = feed_mix(hash, &(uint8_t){(uint8_t)frame.kind}, 1);
        hash = feed_mix(hash, frame.data, frame.len);
        hash = feed_mix(hash, &frame.len, sizeof(frame.len));
    }
    if (got < 0) {
        FUZZ_CHECK(err.code == ERR_GUEST_PROTOCOL);
        *over = true;
    }
    return hash;
}

static uint64_t read_in_steps(const uint8_t *data, size_t size, size_t step)
{
    struct feed feed = feed_new();
    uint64_t hash = 0;
    bool over = false;
    for (size_t at = 0; at < size && !over; at += step) {
        struct error err = {0};
        feed_bytes(&feed, data + at, step < size - at ? step : size - at, false);
        while (!over && vsock_conn_fill(feed.conn, VSOCK_FRAME_SIZE, &err) > 0)
            hash = take_frames(&feed, hash, &over);
    }
    feed_end(&feed);
    return feed_mix(hash, &over, sizeof(over));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FEED_MAX)
        return 0;
    size_t step = 1 + data[0] % 13;
    FUZZ_CHECK(read_in_steps(data + 1, size - 1, size) == read_in_steps(data + 1, size - 1, step));
    return 0;
}
