/* The commands that exec emulates; guest.h lists them. */
#ifndef MOTTE_TESTS_GUEST_COMMAND_H
#define MOTTE_TESTS_GUEST_COMMAND_H

#include "message.h"
#include "session.h"

/* Whom a command works for. */
struct command_call {
    struct guest *guest;
    struct vsock_conn *conn;
    struct command *command;
};

struct command_kind {
    const char *name; /* NULL: every other */
    /* Any of these may be NULL. `args` stands behind argv[0] in a checked array. */
    void (*start)(const struct command_call *call, struct json *args);
    bool (*step)(const struct command_call *call); /* true if it moved */
    void (*input)(const struct command_call *call, const uint8_t *data,
                  size_t len); /* 0: the end */
};

/* commands.c: what `path` stands for, by its last component; never NULL. */
const struct command_kind *command_find(const char *path);
void command_end(struct command *command, int code); /* the first end counts */

/* Starts what argv says, the reply having been sent; false, with nothing started, if argv is no
 * array of strings with at least one. */
bool command_start(struct guest *guest, struct vsock_conn *conn, struct command *command,
                   const struct message *message);
/* A frame of input; the caller has seen that there is room for as much output. */
void command_input(struct guest *guest, struct vsock_conn *conn, struct command *command,
                   const uint8_t *data, size_t len);
/* Goes on with it and, once it has ended and there is room, sends the exit frame. True if it moved.
 */
bool command_step(struct guest *guest, struct vsock_conn *conn, struct command *command);
void command_kill(struct command *command);

#endif
