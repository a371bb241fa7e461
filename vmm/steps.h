/* The steps of a spawn: what spawn.c drives and steps.c does. */
#ifndef MOTTE_VMM_STEPS_H
#define MOTTE_VMM_STEPS_H

#include "vmm/internal.h"

enum { VMM_STEPS = 7 };

struct vmm_spawning {
    struct vmm *vmm;       /* borrowed */
    struct vmm_spec *spec; /* owned */
    struct store_vm row;
    struct vmm_machine *machine; /* our reference; NULL before admit */
    char from[ID_INSTANCE_SIZE]; /* the snapshot it starts from; "": it boots. Known at launch, */
    bool of_image;               /* as is whether it is its image's and not its owner's */
    struct vsock_hello hello;
    struct vsock_restored restored;
    int64_t begin_us, step_us[VMM_STEPS];
    const char *failed_step; /* set before undo runs */
    struct error failure;
    bool killed_once; /* and how it was then: only the first KILL tells */
    struct priv_killed killed;
};

/* `undo` is idempotent, takes "gone" as success and runs only for completed steps: a step that
 * fails leaves nothing of its own behind. */
struct vmm_step {
    const char *name;
    int (*run)(struct vmm_spawning *spawn, struct error *err);
    void (*undo)(struct vmm_spawning *spawn);
};
extern const struct vmm_step vmm_steps[VMM_STEPS];

#endif
