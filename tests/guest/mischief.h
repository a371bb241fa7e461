/* The commands say, chatter and hog of guest.h: what the host must explain, or not notice. */
#ifndef MOTTE_TESTS_GUEST_MISCHIEF_H
#define MOTTE_TESTS_GUEST_MISCHIEF_H

#include "command.h"

void mischief_start_say(const struct command_call *call, struct json *args);
void mischief_start_chatter(const struct command_call *call, struct json *args);
void mischief_start_hog(const struct command_call *call, struct json *args);
/* Goes on with what chatter began, whoever is connected; true if there was something to say. */
bool mischief_chatter(struct guest *guest);

#endif
