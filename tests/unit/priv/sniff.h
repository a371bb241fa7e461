/* Every packet that leaves by any interface of the test's network namespace, loopback included. */
#ifndef MOTTE_TESTS_PRIV_SNIFF_H
#define MOTTE_TESTS_PRIV_SNIFF_H

#include <stdbool.h>
#include <stddef.h>

int sniff_open(void); /* a descriptor; ends the test if that fails */
/* Did a packet with these bytes in it leave within the time? Reads until then, or all if not. */
bool sniff_sees(int fd, const void *bytes, size_t len, int timeout_ms);

#endif
