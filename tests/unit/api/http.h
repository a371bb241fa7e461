/* A raw HTTP client: sends exactly the bytes it is given, which no library would. */
#ifndef MOTTE_TEST_HTTP_H
#define MOTTE_TEST_HTTP_H

#include "base/base.h"

enum { HTTP_TEXT_MAX = 1 << 20 };

struct http_answer {
    unsigned status; /* 0: the connection ended without an answer */
    char head[4096];
    char *body; /* owned */
    size_t body_len;
};

/* Connected descriptor, or -1. */
int http_connect_unix(const char *path);
int http_connect_tcp(unsigned port);
/* All of `text`, or false. */
bool http_send(int fd, const char *text);
/* One answer, by Content-Length or to the end; waits at most 20 s. */
struct http_answer http_read(int fd);
void http_release(struct http_answer *answer);
/* A header's value copied out; "" when absent. */
void http_header(const struct http_answer *answer, const char *name, char *out, size_t size);
/* True when the peer closes the connection within 20 s. */
bool http_closed(int fd);
/* One request on a connection of its own. */
struct http_answer http_ask(const char *path, const char *text);

#endif
