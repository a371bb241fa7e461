/*
 * A program of Motte's under ptrace: every system call by which it changes something that outlives
 * it (or tells somebody else to) is a point at which it can be killed. The points come from the
 * kernel, not from marks in the code, so that a new step cannot be forgotten.
 */
#ifndef MOTTE_TESTS_KILL_TRACER_H
#define MOTTE_TESTS_KILL_TRACER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { POINT_MAX = 256 };

/* Who made a call: motted, motte-front, or a process of theirs that has not executed yet. */
enum role { ROLE_ROOT, ROLE_FRONT, ROLE_CHILD, ROLE_COUNT };

/* "root mkdirat motte/ID" for a call that changes something; false for all others. What differs
 * from run to run (ids, digests, numbers) is replaced. */
bool point_name(pid_t tid, enum role role, uint64_t number, const uint64_t args[static 6],
                char out[static POINT_MAX]);

#endif
