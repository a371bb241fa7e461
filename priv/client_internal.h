/* priv/client's own: one request on its way (client.c), made and read by the operations
 * (client_calls.c). */
#ifndef MOTTE_PRIV_CLIENT_INTERNAL_H
#define MOTTE_PRIV_CLIENT_INTERNAL_H

#include "priv/client.h"
#include <pthread.h>

struct priv_call {
    struct priv_call *next; /* under the client's lock until done, as all but op */
    uint64_t id;
    uint32_t op;
    bool done, lost;
    pthread_cond_t answered;
    struct priv_reply reply;
    int fds[PRIV_FDS_MAX]; /* owned */
    size_t fd_count;
};

/* On the caller's stack; release after ask(), whatever that returned. */
void priv_call_init(struct priv_call *call, enum priv_op op);
void priv_call_release(struct priv_call *call);
int priv_call_take_fd(struct priv_call *call, size_t index);

/* Fills in the request's protocol, operation and id, sends it and waits. 0: call->reply is a
 * success with at least min_fds and at most max_fds descriptors. */
int priv_call_ask(struct priv_call *call, struct priv_client *client, struct priv_request *request,
                  size_t min_fds, size_t max_fds, struct error *err);

#endif
