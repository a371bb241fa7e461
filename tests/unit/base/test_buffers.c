/* buf against its ceiling, ring against a plain tail. */
#include "base/base.h"
#include "tests/unit/base/random.h"

#include <criterion/criterion.h>

Test(buf, R37_holds_what_was_appended_and_refuses_the_byte_past_its_ceiling)
{
    struct random random = random_start();
    for (int round = 0; round < 200; round++) {
        struct buf buf = {.max = random_below(&random, 5000)};
        char *all = calloc(1, buf.max + 1);
        size_t len = 0;
        for (int i = 0; i < 50; i++) {
            char piece[300];
            size_t n = random_below(&random, sizeof(piece));
            memset(piece, 'a' + i % 26, n);
            bool fits = len + n <= buf.max;
            cr_assert_eq(buf_append(&buf, piece, n), fits ? 0 : -1, "seed %llu",
                         (unsigned long long)random.seed);
            if (fits) {
                memcpy(all + len, piece, n);
                len += n;
            }
            cr_assert_eq(buf.len, len);
        }
        cr_assert(len == 0 || memcmp(buf.data, all, len + 1) == 0, "seed %llu",
                  (unsigned long long)random.seed);
        buf_release(&buf);
        cr_assert_null(buf.data);
        free(all);
    }
}

Test(buf, print_is_whole_or_not_at_all)
{
    struct buf buf = {.max = 10};
    cr_assert_eq(buf_printf(&buf, "%s-%d", "abc", 12), 0);
    cr_assert_eq(buf_printf(&buf, "%d", 12345), -1);
    cr_assert_str_eq(buf.data, "abc-12");
    cr_assert_eq(buf_printf(&buf, "%d", 1234), 0);
    cr_assert_str_eq(buf.data, "abc-121234");
    buf_release(&buf);
}

Test(ring, R37_keeps_the_newest_bytes_of_any_stream)
{
    struct random random = random_start();
    for (int round = 0; round < 300; round++) {
        size_t size = 1 + random_below(&random, round % 2 == 0 ? 64 : 2000), total = 0;
        struct ring *ring = ring_new(size);
        char stream[20000], out[2100];
        for (int i = 0; i < 60; i++) {
            size_t n = random_below(&random, 200);
            for (size_t b = 0; b < n; b++)
                stream[total + b] = (char)('!' + random_below(&random, 90));
            ring_write(ring, stream + total, n);
            total += n;
            size_t room = random_below(&random, sizeof(out) + 1);
            size_t expected = total < size ? total : size;
            if (room == 0 || expected > room - 1)
                expected = room == 0 ? 0 : room - 1;
            cr_assert_eq(ring_read(ring, out, room), expected, "seed %llu",
                         (unsigned long long)random.seed);
            cr_assert(room == 0 || (memcmp(out, stream + total - expected, expected) == 0 &&
                                    out[expected] == '\0'),
                      "seed %llu", (unsigned long long)random.seed);
        }
        ring_free(ring);
    }
}

Test(ring, R29_who_reads_on_gets_every_byte_or_knows_how_many_are_gone)
{
    struct random random = random_start();
    for (int round = 0; round < 300; round++) {
        size_t size = 1 + random_below(&random, 300), total = 0, gone = 0;
        struct ring *ring = ring_new(size);
        char stream[20000], got[20000], out[128];
        uint64_t at = 0, read = 0;
        for (int i = 0; i < 60; i++) {
            size_t n = random_below(&random, 150);
            for (size_t b = 0; b < n; b++)
                stream[total + b] = (char)random_below(&random, 256);
            ring_write(ring, stream + total, n);
            total += n;
            if (i == 30) {
                size += random_below(&random, 500);
                cr_assert(ring_grow(ring, size));
            }
            cr_assert_eq(ring_end(ring), total, "seed %llu", (unsigned long long)random.seed);
            for (uint64_t from = at; random_below(&random, 4) > 0; from = at) {
                size_t len = ring_read_on(ring, &at, out, 1 + random_below(&random, sizeof(out)));
                gone += len == 0 ? (size_t)(at - from) : 0;
                memcpy(got + read, out, len);
                read += len;
                cr_assert(memcmp(out, stream + at - len, len) == 0 && at == read + gone &&
                              total - at <= total,
                          "seed %llu", (unsigned long long)random.seed);
            }
        }
        size_t kept = ring_read(ring, got, sizeof(got));
        cr_assert(kept <= size && memcmp(got, stream + total - kept, kept) == 0, "seed %llu",
                  (unsigned long long)random.seed);
        ring_free(ring);
    }
}

Test(ring, R29_what_is_kept_is_not_passed_over)
{
    char out[8];
    uint64_t at = 0;
    struct ring *ring = ring_new(4);
    ring_write(ring, "abcdefg", 7);
    cr_assert_eq(ring_read_on(ring, &at, out, sizeof(out)), 0);
    cr_assert_eq(at, 3, "the oldest of the four that are kept");
    cr_assert(ring_grow(ring, 6));
    ring_write(ring, "hi", 2);
    cr_assert_eq(ring_read_on(ring, &at, out, sizeof(out)), 6);
    cr_assert(memcmp(out, "defghi", 6) == 0);
    cr_assert_eq(ring_read_on(ring, &at, out, sizeof(out)), 0);
    cr_assert_eq(at, 9, "there is nothing yet");
    ring_free(ring);
}
