/* Walks a packet through rules as iptables-legacy prints them: a judge that knows nothing of how
 * the library builds them. */
#ifndef TEST_NETFILTER_WALK_H
#define TEST_NETFILTER_WALK_H

#include "netfilter/netfilter.h"

struct walk_packet {
    const char *hook;
    uint32_t uid;         /* of the socket's owner */
    const char *in, *out; /* interfaces; "" where the hook has none */
};

/* The chain whose DROP the packet meets; "" when it passes. `rules` is the output of -S. */
void walk(const char *rules, const struct walk_packet *packet, netfilter_name ret);

#endif
