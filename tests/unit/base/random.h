/*
 * Random input for property tests. The seed stands in every failure's message; MOTTE_TEST_SEED=N
 * runs the same input again.
 */
#ifndef MOTTE_TEST_RANDOM_H
#define MOTTE_TEST_RANDOM_H

#include <stdint.h>
#include <stdlib.h>
#include <sys/random.h>

struct random {
    uint64_t seed, state;
};

static inline struct random random_start(void)
{
    uint64_t seed = 0;
    const char *given = getenv("MOTTE_TEST_SEED");
    if (given != NULL)
        seed = strtoull(given, NULL, 10);
    else if (getrandom(&seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        abort();
    return (struct random){.seed = seed, .state = seed};
}

/* splitmix64 */
static inline uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* 0 … below - 1 */
static inline uint64_t random_below(struct random *random, uint64_t below)
{
    return random_next(random) % below;
}

#define RANDOM_PICK(random, array)                                                                 \
    ((array)[random_below((random), sizeof(array) / sizeof((array)[0]))])

#endif
