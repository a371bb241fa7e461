/* A guest's or a VMM's end of a connection, played by the fuzzer's bytes. */
#ifndef MOTTE_TESTS_FUZZ_FEED_H
#define MOTTE_TESTS_FUZZ_FEED_H

#include "fuzz.h"
#include "vsock/internal.h"

struct feed {
    struct vsock_conn *conn; /* the side under test */
    int peer;
};
struct feed feed_new(void);
void feed_end(struct feed *feed);
/* Sends all; then nothing more will come if `last`. Inputs fit the socket's buffer. */
void feed_bytes(const struct feed *feed, const uint8_t *data, size_t size, bool last);

/* FNV-1a, to compare what two readings gave. */
enum { FEED_MAX = 1 << 16 };
uint64_t feed_mix(uint64_t hash, const void *data, size_t size);

#endif
