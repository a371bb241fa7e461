/* Calls that fail: they are turned into one that does nothing, and their result is replaced. */
#include "tracer.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>

bool faults_order(struct faults *faults, const char *line)
{
    struct faults order = {.mode = FAULTS_OFF};
    char how[16] = "", half[16] = "";
    int at = 0;
    if (strncmp(line, "record", 6) == 0) {
        order.mode = FAULTS_RECORD;
    } else if (sscanf(line, "fail %15s %lu %d %n", how, &order.left, &order.error, &at) == 3) {
        order.mode = FAULTS_FAIL;
        order.sticky = strcmp(how, "sticky") == 0;
        snprintf(order.name, sizeof(order.name), "%s", line + at);
        order.name[strcspn(order.name, "\n")] = '\0';
        sscanf(order.name, "%15s", half);
        order.role = strcmp(half, "front") == 0 ? ROLE_FRONT : ROLE_ROOT;
    } else if (strncmp(line, "off", 3) != 0) {
        return false;
    }
    *faults = order;
    return true;
}

static bool can_fail_so(const struct point *point, int error)
{
    for (size_t i = 0; i < POINT_ERRORS; i++)
        if (point->errors[i] == error)
            return true;
    return false;
}

int faults_of(struct faults *faults, enum role role, const struct point *point)
{
    if (faults->mode != FAULTS_FAIL)
        return 0;
    if (faults->left > 0)
        return strcmp(point->name, faults->name) == 0 && --faults->left == 0 ? faults->error : 0;
    bool same_half = (role == ROLE_FRONT) == (faults->role == ROLE_FRONT);
    return faults->sticky && same_half && can_fail_so(point, faults->error) ? faults->error : 0;
}

/* As when the process has no descriptor left: the kernel then drops those that were sent, too. */
static void leave_no_room(pid_t tid, unsigned long long message)
{
    size_t none = 0;
    struct iovec local = {&none, sizeof(none)};
    struct iovec remote = {(void *)(uintptr_t)(message + offsetof(struct msghdr, msg_controllen)),
                           sizeof(none)};
    (void)!process_vm_writev(tid, &local, 1, &remote, 1, 0);
}

/* getpid: seccomp looks at the call after us, and no filter of ours stops this one. */
void faults_begin(pid_t tid, int error)
{
    struct user_regs_struct regs;
    if (ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
        return;
    if (error == POINT_NO_ROOM) {
        leave_no_room(tid, regs.rsi);
        return;
    }
    if (error == POINT_SHORT)
        regs.rdx -= regs.rdx / 2;
    else
        regs.orig_rax = SYS_getpid;
    ptrace(PTRACE_SETREGS, tid, 0, &regs);
}

void faults_end(pid_t tid, int error)
{
    struct user_regs_struct regs;
    if (error < 0 || ptrace(PTRACE_GETREGS, tid, 0, &regs) < 0)
        return;
    regs.rax = (unsigned long long)-error;
    ptrace(PTRACE_SETREGS, tid, 0, &regs);
}
