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
 *   GET  /perhaps    FAST   waits at the gate; with `?known` it is known and waits for nothing
 *   GET  /later      LIFE   answers, then waits at the gate
 *   PUT  /upload     FILES  reads its body, at most FAKE_UPLOAD_MAX, and says how much and what it
 *                           was: {"size":…,"sum":…}; with `?held` waits at the gate before, with `?early` refuses it
 *                           unread
 *   GET  /healthz    NONE   for anybody, monitoring
 *   GET  /metrics    FAST   monitoring, for administrators and local callers
 *   GET  /events     FAST   a stream of events: what fake_say() says, after "last=<Last-Event-ID>"
 *   GET  /file       FAST   a stream of FAKE_FILE_SIZE bytes, as fake_file_byte() has them
 */
#ifndef MOTTE_TEST_FAKE_H
#define MOTTE_TEST_FAKE_H

#include "server/internal.h"
#include "tests/unit/api/http.h"

enum {
    FAKE_ECHO_MAX = 1000,
    FAKE_UPLOAD_MAX = 8 << 20,
    FAKE_FILE_SIZE = 3000017,
    FAKE_WORDS_MAX = 4096
};
/* Of alice, who operates, of admin, and of rita, who reads. */
#define FAKE_TOKEN "abcdefghij0123456789KLMN"
#define FAKE_TOKEN_ADMIN "zyxwvutsrq9876543210"
#define FAKE_TOKEN_READ "rrrrrrrrrr0123456789"

struct fake {
    struct api api; /* first: handlers find the rest by it */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool open;         /* the gate */
    unsigned inside;   /* handlers that came to the gate */
    unsigned finished; /* handlers that passed it */
    unsigned broken;   /* uploads that did not come whole */
    /* /events: what was said, who waits for more, how many were closed. */
    char words[FAKE_WORDS_MAX];
    size_t words_len;
    bool silent; /* nothing more will be said */
    struct waker *waiting;
    unsigned closed;
    struct server *server;
    struct server_metrics *metrics;
    struct server_tokens *tokens;
    char path[64];             /* of the Unix listener */
    unsigned port, monitoring; /* of the TCP and the metrics listener */
};

/* Starts on a Unix, a TCP and a metrics listener. `options` holds what the test wants to differ
 * (pools, deadlines). False on any error. */
bool fake_start(struct fake *fake, struct server_options options);
/* A memfd with the lines of these three, and more. */
int fake_tokens(const char *extra);
/* Opens the gate and stops; returns what server_stop said. */
unsigned fake_stop(struct fake *fake);
/* Waits until that many handlers are at the gate; false after 20 s. */
bool fake_wait_inside(struct fake *fake, unsigned count);
bool fake_wait_broken(struct fake *fake, unsigned count);
bool fake_wait_finished(struct fake *fake, unsigned count);
void fake_open(struct fake *fake);
/* To all that listen to /events; NULL: that is all. */
void fake_say(struct fake *fake, const char *words);
bool fake_wait_closed(struct fake *fake, unsigned count);
char fake_file_byte(uint64_t at);
api_handler fake_events, fake_file; /* fake_stream.c */

#endif
