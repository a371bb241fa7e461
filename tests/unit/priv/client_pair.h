/* For tests of priv's client: both ends of a channel. */
#ifndef MOTTE_TESTS_PRIV_CLIENT_PAIR_H
#define MOTTE_TESTS_PRIV_CLIENT_PAIR_H

#include "priv/client.h"
#include "tests/unit/base/check.h"

enum { CALLERS = 64, PATIENCE_MS = 20000 };

struct pair {
    struct priv_client *client;
    int root; /* the fake root half's end */
};
struct pair pair_open(void);
void pair_close(struct pair *pair);

/* Is the client's lost descriptor readable? */
bool pair_lost(const struct priv_client *client, int timeout_ms);

/* The fake root half's side: one packet with descriptors, or one request; false at the end. */
void pair_send(int fd, const void *bytes, size_t len, const int *fds, size_t fd_count);
bool pair_receive(int fd, struct priv_request *request);
struct priv_reply pair_reply(const struct priv_request *request);

uint64_t pair_seed(void); /* $MOTTE_SEED or the clock; printed */
uint64_t pair_random(uint64_t *state);
size_t pair_open_fds(void);

/* For pthread_create: a call that must fail with ERR_PRIV_LOST. */
void *pair_call_until_lost(void *client);

#endif
