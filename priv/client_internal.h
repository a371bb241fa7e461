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
    int patience_s; /* how long its answer may take */
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

/* What the operations share (client_words.c). */
enum { PRIV_COPY_SECONDS = 600 }; /* for an answer that waits for the disk */
/* Checked here too, so that a slip in the front reads better than "refused". */
int priv_call_name(char out[static ID_INSTANCE_SIZE], const char *id, struct error *err);
int priv_call_nonsense(const struct priv_call *call, struct error *err);
/* A NUL must stand where a text may end; what comes after it does not matter. */
bool priv_text_ends(const char *text, size_t size);
/* An instance's or snapshot's id, or empty where there are no more. */
bool priv_id_sound(const char id[static ID_INSTANCE_SIZE]);

#endif
