/* The way of this program's input, and of its terminal's size, to a command in a VM. */
#ifndef MOTTE_CLI_FEED_H
#define MOTTE_CLI_FEED_H

#include "cli/internal.h"

enum { CLI_FEED_CHUNK = 49152 };

struct cli_feed {
    struct cli *cli;
    const char *exec; /* the command's path */
    bool terminal;
    int watched;            /* what to wait for: stdin, or -1 while nothing is wanted of it */
    unsigned rows, columns; /* as the command knows them */
    uint64_t offset;
    size_t held;      /* bytes that are read and not given yet */
    int rest_ms;      /* after a refusal, longer with each; 0: there was none */
    int64_t again_ms; /* bytes that wait are not given before */
    bool ended, done; /* stdin is at its end; nothing is to be given any more */
    char chunk[CLI_FEED_CHUNK];
};
/* A cli_ready on a struct cli_feed: gives what stdin has, tells a changed size, and is
 * ERR_CANCELLED upon a signal. Bytes that the command has no room for wait here, and the rest of
 * the input where it comes from. */
int cli_feed_ready(void *context, int fd, struct error *err);

#endif
