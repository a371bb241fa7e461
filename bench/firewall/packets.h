/* What packets pay, for the benchmark of the firewall. */
#ifndef BENCH_FIREWALL_PACKETS_H
#define BENCH_FIREWALL_PACKETS_H

#include "base/base.h"

/* Enters a fresh network namespace with `lo` up; ends the program if it cannot, since nothing here
 * may touch the host's firewall. */
void packets_enter(void);

/* Two UDP sockets of the namespace that the maker was in, joined over loopback. */
struct packets_pair {
    int here, there;
};
struct packets_pair packets_pair_make(void);

/* Median time of a round trip, in ns, of each pair; the pairs take turns, so that what else happens
 * on the machine falls on both. */
void packets_round_trips(const struct packets_pair pairs[2], double ret_ns[2]);

/* Median time of a send that the firewall refuses a process under this uid, in ns. */
double packets_refused(uint32_t uid);

double packets_now_ns(void);
double packets_median(double *samples, size_t count); /* sorts them */

#endif
