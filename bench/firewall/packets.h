/* What packets pay, for the benchmark of the firewall. */
#ifndef BENCH_FIREWALL_PACKETS_H
#define BENCH_FIREWALL_PACKETS_H

#include "base/base.h"

/* Two UDP sockets of the namespace that the maker was in, joined over loopback. */
struct packets_pair {
    int here, there;
};
struct packets_pair packets_pair_make(void);

/* Of what kind the namespace of a pair is: without the table, with one that is loaded and empty (the
 * kernel calls it for each packet), with ours. */
enum packets_kind { PACKETS_PLAIN, PACKETS_EMPTY, PACKETS_RULED, PACKETS_KINDS };

struct packets_trips {
    double ns[PACKETS_KINDS]; /* the median of each */
    double noise_ns;          /* of the plain ones: from the first quartile to the third */
};

/* Round trips of each pair; the pairs take turns, so that what else happens on the machine falls on
 * all. */
struct packets_trips packets_round_trips(const struct packets_pair pairs[PACKETS_KINDS]);

/* Median time of a send that the firewall refuses a process under this uid, in ns. */
double packets_refused(uint32_t uid);

#endif
