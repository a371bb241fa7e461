/*
 * For tests with a hostile front: a bench whose channel is raw, watched from outside, with a uid
 * range and a firewall lock of its own, so that other tests may run beside it.
 */
#ifndef MOTTE_TESTS_PRIV_HOSTILE_H
#define MOTTE_TESTS_PRIV_HOSTILE_H

#include "watch.h"

enum { HOSTILE_UIDS = 80 }; /* few, so that they come round again and again */

void hostile_begin(struct bench *bench, struct watch *watch);
/* Kills all instances and ends the test unless the host is as it was. */
void hostile_end(struct bench *bench, struct watch *watch);

struct hostile_answer {
    struct priv_reply reply;
    size_t fd_count; /* they are closed already */
};
struct hostile_answer hostile_receive(struct bench *bench);

/* A valid request: the bench's shape and image, the API socket. */
struct priv_request hostile_request(const struct bench *bench, enum priv_op op,
                                    const char *instance);
/* Sends and receives; nothing else may be in flight, as with the two that use it. */
void hostile_ask(struct bench *bench, const struct priv_request *request,
                 struct hostile_answer *ret);
struct priv_host hostile_host(struct bench *bench);
/* Looks at all that the server knows: no uid may be there twice. Kills them if so asked. */
void hostile_list(struct bench *bench, bool end_them);

#endif
