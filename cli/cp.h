/* A copy between this host and a VM. */
#ifndef MOTTE_CLI_CP_H
#define MOTTE_CLI_CP_H

#include "cli/internal.h"

enum { CLI_DIGEST_SIZE = 64 };

struct cli_copy {
    struct cli *cli;
    const char *vm, *there, *here; /* paths; `here` NULL: standard input or output */
    bool recursive, parents;
    struct cli_progress progress;
};
int cli_copy_send(struct cli_copy *copy, struct error *err);
int cli_copy_receive(struct cli_copy *copy, struct error *err);

/* The path of a request; `there` with `name` (or NULL) behind it. malloc'ed, or NULL with err set. */
char *cli_copy_path(const struct cli_copy *copy, const char *what, const char *name,
                    const char *query, struct error *err);
/* The last name of a path, malloc'ed; NULL with err set if that is no name. */
char *cli_copy_name(const char *path, struct error *err);
/* As Repr-Digest has it. */
int cli_copy_digest(const uint8_t hash[static HASH_SIZE], char out[static CLI_DIGEST_SIZE],
                    struct error *err);

#endif
