/* What the vsock tests share: pairs of sockets, frames as bytes, the agent as a process. */
#ifndef MOTTE_TESTS_VSOCK_SUPPORT_H
#define MOTTE_TESTS_VSOCK_SUPPORT_H

#include "base/base.h"
#include "vsock/wire.h"

#define SUPPORT_INSTANCE "abcdefghij234567abcd"
/* The token's bytes: growing, as no two positions of a real one look alike. */
#define SUPPORT_TOKEN_BYTE(i) ((uint8_t)(0xa0 + (i)))

/* The guest's tests have another library's JSON_STRING: vsock/vsock.h is for those that need it. */
struct vsock_conn;

struct support_pair {
    struct vsock_conn *host; /* the side under test */
    int guest;               /* the other side, raw */
};
/* `buffer`: size of both socket buffers, 0: the kernel's default. Aborts when it cannot. */
struct support_pair support_pair_new(int buffer);

/* Appends a frame's bytes. */
void support_frame(struct buf *to, char kind, const void *data, size_t len);
void support_text_frame(struct buf *to, char kind, const char *text);
/* Writes all or aborts: for threads beside the test's own, where Criterion's asserts do not work.
 */
void support_write(int fd, const void *data, size_t len);
/* As support_write, then waits until the other side has read all of it. */
void support_write_taken(int fd, const void *data, size_t len);
/* Reads exactly `len` bytes; false at the end of the stream. */
bool support_read(int fd, void *out, size_t len);
/* Reads one whole frame; its kind, or 0 at the end. */
char support_read_frame(int fd, struct buf *payload);

uint64_t support_seed(void); /* VSOCK_TEST_SEED or random; printed */
uint32_t support_random(uint64_t *state, uint32_t below);
int64_t support_rss_kib(void);

/* The agent's session code on one end of a socket pair. mode: "", "control" or "serial". */
struct support_agent {
    int fd; /* ours; -1 when handed on */
    pid_t pid;
};
struct support_agent support_agent_start(const char *mode);
/* Ends and reaps it; -1 if it had died before. */
int support_agent_stop(struct support_agent *agent);

#endif
