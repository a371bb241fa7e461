/* A restore: the machine becomes another, as the agent does (docs/wire.md), as far as it has such
 * things. */
#ifndef MOTTE_TESTS_GUEST_RESTORE_H
#define MOTTE_TESTS_GUEST_RESTORE_H

#include "message.h"
#include "session.h"

struct restored {
    bool answered; /* false: it keeps silent about it */
    int64_t skew_ms;
    const char *code, *why; /* when it was refused */
};

/* False: refused, and all is as it was. */
bool restore_machine(struct guest *guest, const struct message *message, struct restored *ret);

#endif
