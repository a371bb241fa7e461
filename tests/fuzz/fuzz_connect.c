/* What stands before the first frame: Firecracker's answer to CONNECT, the mark of a serial port.
 * What came behind it is kept, however the bytes are split. */
#include "feed.h"

static const uint8_t mark[VSOCK_MARK_SIZE] = "The mark of a fuzzed ser";

static int take(struct vsock_conn *conn, bool serial)
{
    struct error err = {0};
    int got = serial ? vsock_mark_take(conn, mark) : vsock_answer_take(conn, &err);
    FUZZ_CHECK((got < 0) == (err.code == ERR_GUEST_PROTOCOL));
    return got;
}

static uint64_t read_in_steps(const uint8_t *data, size_t size, size_t step, bool serial)
{
    struct feed feed = feed_new();
    struct vsock_queue *in = &feed.conn->in;
    int got = 0;
    for (size_t at = 0; at < size && got >= 0; at += step) {
        struct error err = {0};
        feed_bytes(&feed, data + at, step < size - at ? step : size - at, false);
        while (got >= 0 && vsock_conn_fill(feed.conn, 2 * FEED_MAX, &err) > 0)
            if (got == 0)
                got = take(feed.conn, serial);
    }
    uint64_t hash = feed_mix((uint64_t)got, &got, sizeof(got));
    if (got > 0)
        hash = feed_mix(hash, in->data + in->at, in->end - in->at);
    feed_end(&feed);
    return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FEED_MAX)
        return 0;
    bool serial = data[0] & 1;
    size_t step = 1 + data[0] / 2 % 13;
    FUZZ_CHECK(read_in_steps(data + 1, size - 1, size, serial) ==
               read_in_steps(data + 1, size - 1, step, serial));
    return 0;
}
