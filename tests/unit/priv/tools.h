/* Real programs for the tests of priv: where they are, and a way to talk to them. */
#ifndef MOTTE_TESTS_PRIV_TOOLS_H
#define MOTTE_TESTS_PRIV_TOOLS_H

#include "base/base.h"
#include <limits.h>

/* $MOTTE_<NAME>, else PATH, else /usr/local/bin, else /opt/motte-tools. False if nowhere. */
bool tools_find(const char *name, char ret[static PATH_MAX]);

/* A fresh directory under /tmp, and its removal with all below. */
void tools_directory(char ret[static 64]);
void tools_remove(const char *path);

void tools_write(const char *directory, const char *name, const void *data, size_t len);

/* Connects to a Unix socket as soon as it listens; fails the test after 10 s or when `pid` ended.
 */
int tools_connect(const char *path, pid_t pid);

/* Sends `text`, reads until `wanted` shows up in the answer; fails the test after 10 s. */
void tools_talk(int fd, const char *text, const char *wanted);

/* waitpid with a deadline of 10 s, after which it kills and fails. */
int tools_wait(pid_t pid);

/* The Seccomp and Seccomp_filters lines of a thread: pid and tid as in /proc. */
void tools_seccomp(const char *status_path, unsigned *ret_mode, unsigned *ret_filters);

/* The smallest kernel Firecracker boots: an ELF with a PVH note whose code halts for ever. */
size_t tools_kernel(uint8_t *out, size_t size);

#endif
