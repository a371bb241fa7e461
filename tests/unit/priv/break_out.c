/* See break_out.h. */
#include "break_out.h"

#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { FAILED = 126 };

static bool enter(const struct break_out *how)
{
    const int all = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS;
    return how->place == BREAK_OUT_HOST ||
           (setns(how->vm->launched.pidfd, all) == 0 && chdir("/") == 0);
}

static bool become(uint32_t uid)
{
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 &&
           setresuid(uid, uid, uid) == 0;
}

__attribute__((noreturn)) static void run(const struct break_out *how)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int result = how->first == NULL ? 0 : how->first(how->context);
    if (result == 0 && !become(how->vm->uid))
        result = FAILED;
    if (result == 0 && how->then != NULL)
        result = how->then(how->context);
    _exit(result);
}

static int status_of(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        CHECK(errno == EINTR);
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

pid_t break_out_start(const struct break_out *how)
{
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (!enter(how))
        _exit(FAILED);
    pid_t inner = fork(); /* a pid namespace is for children */
    if (inner == 0)
        run(how);
    int status = status_of(inner);
    _exit(status);
}

int break_out_end(pid_t pid)
{
    return status_of(pid);
}

int break_out(const struct break_out *how)
{
    return break_out_end(break_out_start(how));
}
