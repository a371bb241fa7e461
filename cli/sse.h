/*
 * The format of server-sent events: bytes in, in whatever pieces, and events out. No I/O.
 */
#ifndef MOTTE_CLI_SSE_H
#define MOTTE_CLI_SSE_H

#include "base/base.h"

enum { CLI_SSE_MAX = 4 * 1024 * 1024 }; /* bytes of a line, and of an event's data */

struct cli_event {
    const char *name, *id, *data; /* id "": it has none. Of NUL bytes in data only `len` tells */
    size_t len;
};
/* 0: go on; 1: that was the last one that is wanted; -1: err. */
typedef int cli_event_handler(void *context, const struct cli_event *event, struct error *err);

/* Zero-initialise and set both; release with cli_sse_release(). */
struct cli_sse {
    cli_event_handler *handler;
    void *context;
    struct buf line, data;
    char name[32], id[64];
    bool has_data, after_cr;
};
/* Calls the handler for each event that these bytes complete, and returns what it returned as soon
 * as that is not 0; the rest is then dropped. Comments, unknown fields and events without data are
 * passed over. -1: ERR_JSON, an event is too large. */
int cli_sse_feed(struct cli_sse *sse, const char *bytes, size_t len, struct error *err);
/* Another connection: what came of an event that was not complete is nothing. */
void cli_sse_reset(struct cli_sse *sse);
void cli_sse_release(struct cli_sse *sse);

#endif
