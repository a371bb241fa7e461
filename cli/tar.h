/*
 * Whole directories as tar streams, by the host's GNU tar: no parser of what a VM sends is in this
 * program. What comes out of a VM was packed by whom nobody trusts, so it is unpacked where nobody
 * else looks, into a directory that is fresh; what tar complains of is refused; and the tree is looked
 * through before it gets its name. One stream at a time, one thread.
 */
#ifndef MOTTE_CLI_TAR_H
#define MOTTE_CLI_TAR_H

#include "cli/internal.h"

enum { CLI_TREE_DEPTH_MAX = 60 }; /* fs_remove_tree() gets to 64 */

/* A tar that runs. Start with pid -1. */
struct cli_tar {
    pid_t pid; /* -1: none */
    int fd;   /* packing: its output, to be read to the end. Else its input, which does not block */
    int said; /* its stderr, when it unpacks; else -1 */
};

/* All that is in a directory, by names that begin with `./`. What tar has to say goes to stderr.
 * ERR_SYSTEM. */
int cli_tar_pack(const char *folder, struct cli_tar *ret, struct error *err);
/* Unpacks into a directory. Owners, set-id bits, attributes are not taken over. ERR_SYSTEM. */
int cli_tar_unpack(const char *folder, struct cli_tar *ret, struct error *err);
/* Gives it bytes of the archive. ERR_ARCHIVE if tar has anything to say, which it does of absolute
 * names, of names and links that lead out, and of a broken archive; ERR_CANCELLED upon a signal. */
int cli_tar_give(const struct cli *cli, struct cli_tar *tar, const char *data, size_t len,
                 struct error *err);
/* That was all: waits for its end. Errors as above, and ERR_SYSTEM where it could not do it. */
int cli_tar_end(const struct cli *cli, struct cli_tar *tar, struct error *err);
/* Ends it whatever it does; nothing if it has ended. */
void cli_tar_release(struct cli_tar *tar);

/* What tar has made in the directory `dir`: ERR_ARCHIVE if any of it is neither file nor directory nor
 * symlink, is a hard link, lies more than CLI_TREE_DEPTH_MAX deep, or is a symlink that is absolute or
 * may lead out. Set-id bits go, and the owner may look into every directory, also upon an error. */
int cli_tree_tame(int dir, struct error *err);

#endif
