#include "identity.h"

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void random_mix(struct random *random, const uint8_t *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        random->state ^= bytes[i];
        random->state = random_next(random);
    }
}

void random_seed(struct random *random)
{
    uint64_t now[] = {guest_tsc(), guest_clock_ms()};
    random_mix(random, (const uint8_t *)now, sizeof(now));
}
