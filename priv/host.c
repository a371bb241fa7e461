/* What is measured or asked once at start: the TSC's rate and the VMM's version. */
#include "priv/internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <x86intrin.h>

static int64_t raw_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC_RAW, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

struct moment {
    int64_t ns;
    uint64_t ticks;
};

/* Both clocks at one moment: of some tries that in which the least time went by, as another process may
 * have its turn in between. */
static struct moment now(void)
{
    enum { TRIES = 8 };
    struct moment best = {0};
    int64_t least = INT64_MAX;
    for (int i = 0; i < TRIES; i++) {
        int64_t before = raw_ns();
        uint64_t ticks = __rdtsc();
        int64_t took = raw_ns() - before;
        if (took < least)
            best = (struct moment){before + took / 2, ticks};
        least = took < least ? took : least;
    }
    return best;
}

/* Against the raw clock over 200 ms: right to a few parts in a million. */
uint32_t priv_tsc_khz(void)
{
    const struct moment begin = now();
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    const struct moment end = now();
    return (uint32_t)((end.ticks - begin.ticks) * 1000 / ((uint64_t)(end.ns - begin.ns) / 1000));
}

static pid_t start(const char *program, int output)
{
    posix_spawn_file_actions_t actions;
    char name[PRIV_PATH_MAX], option[] = "--version";
    char *argv[] = {name, option, NULL}, *environment[] = {NULL};
    pid_t pid = -1;
    snprintf(name, sizeof(name), "%s", program);
    if (posix_spawn_file_actions_init(&actions) != 0)
        return -1;
    posix_spawn_file_actions_adddup2(&actions, output, 1);
    int error = posix_spawn(&pid, program, &actions, NULL, argv, environment);
    posix_spawn_file_actions_destroy(&actions);
    errno = error;
    return error == 0 ? pid : -1;
}

int priv_program_version(const char *program, char *out, size_t size, struct error *err)
{
    int ends[2], status = 0;
    char text[512];
    size_t len = 0;
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, ERR_SYSTEM, errno, "making a pipe");
    cleanup_close int read_end = ends[0];
    pid_t pid = start(program, ends[1]);
    int error = errno;
    close(ends[1]);
    if (pid < 0)
        return error_set(err, ERR_HYPERVISOR_MISSING, error, "running %s --version", program);
    for (ssize_t n; (n = read(read_end, text + len, sizeof(text) - 1 - len)) > 0;)
        len += (size_t)n;
    waitpid(pid, &status, 0);
    text[len] = '\0';
    const char *at = text;
    while (*at != '\0' && !isdigit((unsigned char)*at))
        at++;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || *at == '\0')
        return error_set(err, ERR_HYPERVISOR_MISSING, 0, "%s --version tells no version", program);
    snprintf(out, size, "%.*s", (int)strspn(at, "0123456789."), at);
    return 0;
}
