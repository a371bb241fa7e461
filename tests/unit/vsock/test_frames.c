#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <pthread.h>
#include <sys/socket.h>

enum { FRAMES = 60, DEADLINE_MS = 20000 };

static int64_t soon(int64_t ms)
{
    return clock_mono_ms() + ms;
}

/* ---- R28 ---- */

struct stream {
    struct buf bytes;
    struct buf payloads[FRAMES];
    char kinds[FRAMES];
};

static void make_stream(struct stream *stream, uint64_t *seed)
{
    static const char KINDS[] = {WIRE_CONTROL, WIRE_STDOUT, WIRE_STDERR, WIRE_STDIN};
    stream->bytes.max = (size_t)64 << 20;
    for (int i = 0; i < FRAMES; i++) {
        static uint8_t data[WIRE_FRAME_MAX];
        uint32_t most = i % 10 == 0 ? WIRE_FRAME_MAX : 300;
        size_t len = i == 0 ? WIRE_FRAME_MAX - 1 : support_random(seed, most);
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)support_random(seed, 256);
        stream->kinds[i] = KINDS[support_random(seed, 4)];
        stream->payloads[i].max = WIRE_FRAME_MAX;
        support_frame(&stream->bytes, stream->kinds[i], data, len);
        if (len > 0)
            cr_assert_eq(buf_append(&stream->payloads[i], data, len), 0);
    }
}

/* Writes the stream in pieces of a size that `piece` gives; 0: all at once; UINT32_MAX: random. */
struct writer {
    const struct stream *stream;
    int fd;
    uint32_t piece;
    uint64_t seed;
};

static void *write_pieces(void *context)
{
    struct writer *writer = context;
    const struct buf *bytes = &writer->stream->bytes;
    for (size_t at = 0; at < bytes->len;) {
        size_t len = writer->piece;
        if (writer->piece == UINT32_MAX)
            len = 1 + support_random(&writer->seed, support_random(&writer->seed, 2) ? 9 : 90000);
        if (len == 0 || len > bytes->len - at)
            len = bytes->len - at;
        support_write(writer->fd, bytes->data + at, len);
        at += len;
    }
    return NULL;
}

static void same_frames(const struct stream *stream, uint32_t piece, uint64_t seed)
{
    struct support_pair pair = support_pair_new(0);
    struct writer writer = {stream, pair.guest, piece, seed};
    pthread_t thread;
    pthread_create(&thread, NULL, write_pieces, &writer);
    for (int i = 0; i < FRAMES; i++) {
        struct vsock_frame frame;
        struct error err = {0};
        cr_assert_eq(vsock_read(pair.host, soon(DEADLINE_MS), &frame, &err), 0, "%s", err.msg);
        cr_assert_eq((char)frame.kind, stream->kinds[i]);
        cr_assert_eq(frame.len, stream->payloads[i].len, "frame %d, pieces of %u", i, piece);
        cr_assert(frame.len == 0 || memcmp(frame.data, stream->payloads[i].data, frame.len) == 0);
    }
    pthread_join(thread, NULL);
    close(pair.guest);
    vsock_conn_free(pair.host);
}

static void free_stream(struct stream *stream)
{
    buf_release(&stream->bytes);
    for (int i = 0; i < FRAMES; i++)
        buf_release(&stream->payloads[i]);
}

Test(vsock_frames, R28_any_split_gives_the_same_frames)
{
    uint64_t seed = support_seed();
    struct stream stream = {0};
    make_stream(&stream, &seed);
    same_frames(&stream, 1, seed);
    same_frames(&stream, 0, seed);
    same_frames(&stream, WIRE_HEADER_SIZE, seed);
    for (int round = 0; round < 30; round++)
        same_frames(&stream, UINT32_MAX, seed + (uint64_t)round);
    free_stream(&stream);
}

/* ---- R29 ---- */

enum { EXCHANGE = 200 };

struct exchange {
    struct vsock_conn *conn;
    int wrong;
};

/* A peer like ours: writes a large frame, then reads one. */
static void *write_then_read(void *context)
{
    struct exchange *exchange = context;
    static const uint8_t data[WIRE_FRAME_MAX - 1];
    for (int i = 0; i < EXCHANGE && !exchange->wrong; i++) {
        struct vsock_frame frame;
        struct error err = {0};
        exchange->wrong =
            vsock_write(exchange->conn, WIRE_STDOUT, data, sizeof data, soon(DEADLINE_MS), &err) ||
            vsock_read(exchange->conn, soon(DEADLINE_MS), &frame, &err) || frame.len != sizeof data;
        if (exchange->wrong)
            printf("round %d: %s\n", i, err.msg);
    }
    return NULL;
}

Test(vsock_frames, R29_both_sides_write_at_once_without_deadlock)
{
    struct support_pair pair = support_pair_new(4096);
    struct error err = {0};
    struct exchange one = {.conn = pair.host};
    struct exchange two = {.conn = vsock_conn_new(pair.guest, &err)};
    pthread_t thread;
    pthread_create(&thread, NULL, write_then_read, &two);
    write_then_read(&one);
    pthread_join(thread, NULL);
    cr_assert_eq(one.wrong, 0);
    cr_assert_eq(two.wrong, 0);
    vsock_conn_free(one.conn);
    vsock_conn_free(two.conn);
}

Test(vsock_frames, R29_a_peer_that_never_reads_ends_a_write_at_its_deadline)
{
    struct support_pair pair = support_pair_new(4096);
    struct error err = {0};
    static const uint8_t data[WIRE_FRAME_MAX - 1];
    struct buf hello = {.max = 100};
    support_text_frame(&hello, WIRE_STDOUT, "still heard");
    cr_assert_eq(fs_write_all(pair.guest, hello.data, hello.len), 0);
    int64_t start = clock_mono_ms();
    cr_assert_eq(vsock_write(pair.host, WIRE_STDIN, data, sizeof data, start + 300, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_lt(clock_mono_ms() - start, 3000);
    struct vsock_frame frame;
    err = (struct error){0};
    cr_assert_eq(vsock_read(pair.host, soon(1000), &frame, &err), 0, "%s", err.msg);
    cr_assert_eq(frame.len, strlen("still heard"));
    buf_release(&hello);
    close(pair.guest);
    vsock_conn_free(pair.host);
}

/* ---- R31 ---- */

static void expect_error(const void *bytes, size_t len, enum error_code code)
{
    struct support_pair pair = support_pair_new(0);
    struct error err = {0};
    cJSON *json = NULL;
    cr_assert_eq(fs_write_all(pair.guest, bytes, len), 0);
    int64_t start = clock_mono_ms();
    cr_assert_eq(vsock_read_json(pair.host, start + 200, &json, &err), -1);
    cr_assert_eq(err.code, code, "%s: %s", error_code_name(err.code), err.msg);
    cr_assert_lt(clock_mono_ms() - start, 3000);
    if (code == ERR_GUEST_PROTOCOL) { /* the stream's position is lost: it stays unusable */
        err = (struct error){0};
        cr_assert_eq(vsock_read_json(pair.host, soon(100), &json, &err), -1);
        cr_assert_eq(err.code, ERR_GUEST_CLOSED);
    }
    close(pair.guest);
    vsock_conn_free(pair.host);
}

#define EXPECT(bytes, code) expect_error(bytes, sizeof(bytes) - 1, code)

Test(vsock_frames, R31_bad_bytes_end_with_a_typed_error)
{
    EXPECT("\0\0\0\0J", ERR_GUEST_PROTOCOL);         /* zero length */
    EXPECT("\0\1\0\1J", ERR_GUEST_PROTOCOL);         /* one over the cap */
    EXPECT("\377\377\377\377J", ERR_GUEST_PROTOCOL); /* 4 GiB */
    EXPECT("\0\0\0\3X{}", ERR_GUEST_PROTOCOL);       /* unknown kind */
    EXPECT("\0\0\0\3"
           "1{}",
           ERR_GUEST_PROTOCOL); /* data where control must stand */
    EXPECT("\0\0\0\2J{", ERR_GUEST_PROTOCOL);
    EXPECT("\0\0\0\3J[]", ERR_GUEST_PROTOCOL);
    EXPECT("\0\0\0\1J", ERR_GUEST_PROTOCOL);
    EXPECT("\0\0\0\12J{\"a\":\"\377\"}", ERR_GUEST_PROTOCOL);
    EXPECT("\0\0\0\100J{", ERR_GUEST_TIMEOUT); /* a torn frame, then silence */
    EXPECT("", ERR_GUEST_TIMEOUT);
}

Test(vsock_frames, R31_the_largest_frame_passes_and_one_byte_more_does_not)
{
    struct support_pair pair = support_pair_new(0);
    struct error err = {0};
    static const uint8_t data[WIRE_FRAME_MAX];
    cr_assert_eq(vsock_write(pair.host, WIRE_STDIN, data, WIRE_FRAME_MAX - 1, soon(2000), &err), 0);
    cr_assert_eq(vsock_write(pair.host, WIRE_STDIN, data, WIRE_FRAME_MAX, soon(2000), &err), -1);
    cr_assert_eq(err.code, ERR_BODY_TOO_LARGE);
    close(pair.guest);
    vsock_conn_free(pair.host);
}

Test(vsock_frames, R31_deep_nesting_is_refused)
{
    char deep[2 * 5000 + 1];
    memset(deep, '[', 5000);
    memset(deep + 5000, ']', 5000);
    struct buf bytes = {.max = 20000};
    support_frame(&bytes, WIRE_CONTROL, deep, 10000);
    expect_error(bytes.data, bytes.len, ERR_GUEST_PROTOCOL);
    buf_release(&bytes);
}

static void *flood(void *context)
{
    const int *fd = context;
    struct buf bytes = {.max = WIRE_FRAME_MAX};
    static const uint8_t data[1000];
    support_frame(&bytes, WIRE_STDOUT, data, sizeof data);
    while (send(*fd, bytes.data, bytes.len, MSG_NOSIGNAL) == (ssize_t)bytes.len)
        continue;
    buf_release(&bytes);
    return NULL;
}

Test(vsock_frames, R31_a_flood_while_we_write_leaves_memory_flat)
{
    struct support_pair pair = support_pair_new(0);
    struct error err = {0};
    static const uint8_t data[WIRE_FRAME_MAX - 1];
    pthread_t thread;
    pthread_create(&thread, NULL, flood, &pair.guest);
    int64_t before = support_rss_kib();
    int64_t start = clock_mono_ms();
    while (err.code == ERR_NONE) /* the peer reads nothing: at some point this blocks */
        vsock_write(pair.host, WIRE_STDIN, data, sizeof data, start + 1000, &err);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT, "%s", err.msg);
    cr_assert_lt(clock_mono_ms() - start, 5000);
    cr_assert_lt(support_rss_kib() - before, 16384);
    vsock_conn_free(pair.host); /* ends the flood */
    pthread_join(thread, NULL);
    close(pair.guest);
}

Test(vsock_frames, R31_a_closed_peer_is_told_apart_from_a_silent_one)
{
    struct support_pair pair = support_pair_new(0);
    struct buf bytes = {.max = 100};
    struct vsock_frame frame;
    struct error err = {0};
    support_text_frame(&bytes, WIRE_STDOUT, "last");
    cr_assert_eq(fs_write_all(pair.guest, bytes.data, bytes.len), 0);
    close(pair.guest);
    cr_assert_eq(vsock_read(pair.host, soon(1000), &frame, &err), 0);
    cr_assert_eq(frame.len, 4);
    cr_assert_eq(vsock_read(pair.host, soon(1000), &frame, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_CLOSED);
    buf_release(&bytes);
    vsock_conn_free(pair.host);
}
