/* A guest whose agent is the enemy's: what it says and does instead of the truth. */
#ifndef MOTTE_TESTS_GUEST_LIAR_H
#define MOTTE_TESTS_GUEST_LIAR_H

#include "command.h"

/* `motte.lie=WHAT` on the kernel command line: the lie in the place of hello; false: none, say the
 * truth. *greeted tells whether it is over: an endless one is told again and again. */
bool liar_hello(struct guest *guest, struct vsock_conn *conn, bool *greeted);

/* What becomes of a restore, by the command betray or `motte.betray=WHAT`. */
enum liar_betrayal {
    LIAR_HONEST,
    LIAR_REFUSE,
    LIAR_SILENT,
    LIAR_SKEW,
    LIAR_MUTE,
    LIAR_STAY,
};
enum liar_betrayal liar_betrayal(const struct guest *guest);

/* The commands lie, betray, storm and console of guest.h. */
void liar_start_betray(const struct command_call *call, struct json *args);
void liar_start_lie(const struct command_call *call, struct json *args);
bool liar_step_lie(const struct command_call *call);
void liar_start_storm(const struct command_call *call, struct json *args);
bool liar_step_storm(const struct command_call *call);
void liar_start_console(const struct command_call *call, struct json *args);
bool liar_step_console(const struct command_call *call);

#endif
