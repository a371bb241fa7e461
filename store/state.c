/* Names of states, as the API shows them. */
#include "store/internal.h"

static const char *const names[] = {
    [STORE_CREATING] = "creating", [STORE_RUNNING] = "running", [STORE_PAUSED] = "paused",
    [STORE_DELETING] = "deleting", [STORE_FAILED] = "failed",   [STORE_EXITED] = "exited",
    [STORE_LOST] = "lost",
};

const char *store_state_name(enum store_state state)
{
    return state >= STORE_CREATING && state <= STORE_LOST ? names[state] : "unknown";
}

int store_state_parse(const char *name, enum store_state *ret)
{
    for (int state = STORE_CREATING; state <= STORE_LOST; state++) {
        if (strcmp(names[state], name) == 0) {
            *ret = (enum store_state)state;
            return 0;
        }
    }
    return -1;
}
