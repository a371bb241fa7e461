/*
 * The one door to the headers of libiptc and of the kernel's xtables: they are written for fewer
 * warnings than ours. family.c and rule.c only.
 */
#ifndef MOTTE_NETFILTER_XTABLES_H
#define MOTTE_NETFILTER_XTABLES_H

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#include <libiptc/libip6tc.h>
#include <libiptc/libiptc.h>
#include <linux/netfilter/xt_owner.h>
#include <linux/netfilter/xt_physdev.h>
#pragma GCC diagnostic pop

#endif
