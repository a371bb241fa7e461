/*
 * Answers of the kernel that this host would not give: getsockopt and setsockopt of these test
 * programs pass through here, libiptc's calls included.
 */
#ifndef TEST_NETFILTER_INJECT_H
#define TEST_NETFILTER_INJECT_H

#include <stdbool.h>

struct inject {
    bool no_security;      /* table security does not exist */
    bool no_memory_for[2]; /* commits of IPv4, IPv6 fail with ENOMEM */
    int replaces;          /* commits that were asked for */
    /* Called before each commit reaches the kernel, with the number of those before it. */
    void (*before_replace)(int nth);
    /* Called between the two halves of a commit: the rules are in, their counters are not. */
    void (*before_counters)(void);
};

struct inject *inject(void); /* the one of this process */

#endif
