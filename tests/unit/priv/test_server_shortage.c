/* A start that cannot find out whether a VMM lives, for our want of something, concludes nothing: it
 * fails, and the VM runs on. */
#include "bench.h"

#include <criterion/criterion.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/syscall.h>

/* ---- in the place of libc's: what the kernel has no descriptor for ---- */

static char refused[128]; /* a path; or "pidfd" */

static void refuse(const char *what, pid_t pid)
{
    if (pid > 0)
        snprintf(refused, sizeof(refused), "/proc/%d/%s", (int)pid, what);
    else
        snprintf(refused, sizeof(refused), "%s", what);
}

static bool is_refused(const char *what)
{
    if (refused[0] == '\0' || strcmp(refused, what) != 0)
        return false;
    errno = EMFILE;
    return true;
}

int openat(int dirfd, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(list, mode_t) : 0;
    va_end(list);
    return is_refused(path) ? -1 : openat64(dirfd, path, flags, mode);
}

long syscall(long number, ...)
{
    static long (*libcs)(long, ...);
    long args[6];
    va_list list;
    va_start(list, number);
    for (size_t i = 0; i < COUNT_OF(args); i++)
        args[i] = va_arg(list, long);
    va_end(list);
    if (libcs == NULL)
        *(void **)&libcs = dlsym(RTLD_NEXT, "syscall");
    if (number == SYS_pidfd_open && is_refused("pidfd"))
        return -1;
    return libcs(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}

/* ---- the test ---- */

Test(priv_shortage, R02_what_cannot_be_looked_at_stops_the_start_and_ends_nobody, .timeout = 120)
{
    static const struct {
        const char *what;
        bool in_proc;
    } looks[] = {{"pidfd", false},
                 {"stat", true},
                 {"status", true},
                 {"cmdline", true},
                 {"cgroup.procs", false}};
    struct bench bench;
    struct bench_vm vm;
    struct priv_instance found;
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    pid_t pid = bench_pid(&vm);
    bench_stop(&bench);
    for (size_t i = 0; i < COUNT_OF(looks); i++) {
        struct error err = {0};
        refuse(looks[i].what, looks[i].in_proc ? pid : 0);
        cr_expect_eq(priv_server_open(&bench.config, &bench.server, &err), -1, "%s", refused);
        cr_expect_eq(err.sys, EMFILE, "%s: %s", refused, err.msg);
        cr_assert_eq(kill(pid, 0), 0, "%s: the VMM was ended", refused);
        refused[0] = '\0';
    }
    bench_serve(&bench, false);
    struct error err = {0};
    cr_assert_eq(priv_list(bench.client, 0, &found, &err), 0, "%s", err.msg);
    cr_assert(found.alive);
    bench_kill(&bench, &vm, NULL);
    bench_close(&bench);
}
