/*
 * A server with routes of the test's own: handlers that echo, that wait at a gate until the test
 * opens it, that go on after their answer. Handlers here stand in for api/'s; the server is the
 * real one.
 *
 *   GET  /fast       FAST   who asked, as {"caller":…,"admin":…,"id":""}
 *   GET  /vms/{id}   FAST   the same, with the id
 *   POST /echo       FAST   its body; at most FAKE_ECHO_MAX
 *   GET  /slow       LIFE   waits at the gate
 *   GET  /held       EXEC   waits at the gate
 *   GET  /later      LIFE   answers, then waits at the gate
 *   GET  /healthz    NONE   for anybody, monitoring
 *   GET  /metrics    FAST   monitoring
 */
#ifndef MOTTE_TEST_FAKE_H
#define MOTTE_TEST_FAKE_H

#include "server/internal.h"
#include "tests/unit/api/http.h"

enum { FAKE_ECHO_MAX = 1000 };
#define FAKE_TOKEN "abcdefghij0123456789KLMN"

struct fake {
    struct api api; /* first: handlers find the rest by it */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;         /* the gate */
    unsigned inside;   /* handlers that came to the gate */
    unsigned finished; /* handlers that passed it */
    struct server *server;
    struct server_metrics *metrics;
    struct server_tokens *tokens;
    char path[64];             /* of the Unix listener */
    unsigned port, monitoring; /* of the TCP and the metrics listener */
};

/* Starts on a Unix, a TCP and a metrics listener. `options` holds what the test wants to differ
 * (pools, deadlines). False on any error. */
bool fake_start(struct fake *fake, struct server_options options);
/* Opens the gate and stops; returns what server_stop said. */
unsigned fake_stop(struct fake *fake);
/* Waits until that many handlers are at the gate; false after 20 s. */
bool fake_wait_inside(struct fake *fake, unsigned count);
bool fake_wait_finished(struct fake *fake, unsigned count);
void fake_open(struct fake *fake);

#endif
