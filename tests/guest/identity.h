/* Who the machine is, and its random numbers: what clones of a snapshot have in common. */
#ifndef MOTTE_TESTS_GUEST_IDENTITY_H
#define MOTTE_TESTS_GUEST_IDENTITY_H

#include "guest.h"

struct identity {
    char instance[24], hostname[64], machine_id[33];
    uint32_t generation;
};

/* A generator that can be told to go on elsewhere. No secret is drawn from it. */
struct random {
    uint64_t state;
};

/* From the time of boot. */
void random_seed(struct random *random);
void random_mix(struct random *random, const uint8_t *bytes, size_t len);
uint64_t random_next(struct random *random);

#endif
