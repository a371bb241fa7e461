/*
 * A program of Motte's under ptrace: every system call by which it changes something that outlives
 * it (or tells somebody else to) is a point at which it can be killed; every one that a kernel can
 * refuse for lack of something is a point at which it can fail. The points come from the kernel,
 * not from marks in the code, so that a new step cannot be forgotten.
 */
#ifndef MOTTE_TESTS_KILL_TRACER_H
#define MOTTE_TESTS_KILL_TRACER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { POINT_MAX = 256 };

/* Who made a call: motted, motte-front, or a process of theirs that has not executed yet. */
enum role { ROLE_ROOT, ROLE_FRONT, ROLE_CHILD, ROLE_COUNT };

enum {
    POINT_ERRORS = 3,
    /* In the place of an error: half of it is written; no descriptor that is sent finds room. */
    POINT_SHORT = -1,
    POINT_NO_ROOM = -2,
};

struct point {
    char name[POINT_MAX];     /* "root mkdirat motte/ID": what differs from run to run replaced */
    bool changes;             /* something that outlives the process */
    int errors[POINT_ERRORS]; /* how it can fail, the likeliest first, 0 at the end */
};

bool point_of(pid_t tid, enum role role, uint64_t number, const uint64_t args[static 6],
              struct point *ret);

/* ---- failures, told to the tracer while it runs ---- */

struct faults {
    enum { FAULTS_OFF, FAULTS_RECORD, FAULTS_FAIL } mode;
    char name[POINT_MAX];
    unsigned long left; /* until the chosen occurrence */
    int error;
    bool sticky; /* from it on, whatever fails in the same way in the same half */
    enum role role;
};

/* Reads one order; false if it is none. */
bool faults_order(struct faults *faults, const char *line);

/* The error that this call shall get, or what stands in its place; 0: none. */
int faults_of(struct faults *faults, enum role role, const struct point *point);

/* At a call's entry: it is not made, or made with less. At its exit: it failed. */
void faults_begin(pid_t tid, int error);
void faults_end(pid_t tid, int error);

#endif
