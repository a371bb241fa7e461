/* Control messages as the host sends them. */
#ifndef MOTTE_TESTS_GUEST_MESSAGE_H
#define MOTTE_TESTS_GUEST_MESSAGE_H

#include "json.h"

struct message {
    bool has_id, has_ok, ok, input, has_mode, parents;
    uint64_t id, timeout_ms, mode, offset, length, limit;
    char op[16];      /* "" when there is none */
    char path[256];   /* likewise */
    char after[512];  /* likewise */
    struct json argv; /* where it lies; at NULL when there is none */
    struct json all;  /* the whole object */
};

/* False: no JSON object, or a member of the wrong type. */
bool message_parse(const char *text, size_t len, struct message *ret);

#endif
