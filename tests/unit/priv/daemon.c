/* See daemon.h. */
#include "daemon.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

void daemon_add(struct daemon *daemon, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(daemon->text[daemon->argc], sizeof(daemon->text[0]), fmt, args);
    va_end(args);
    daemon->argv[daemon->argc] = daemon->text[daemon->argc];
    daemon->argc++;
}

void daemon_usual(struct daemon *daemon, const struct bench *bench)
{
    memset(daemon, 0, sizeof(*daemon));
    daemon->output = -1;
    daemon_add(daemon, "motted");
    daemon_add(daemon, "--run-dir=%s", bench->run);
    daemon_add(daemon, "--state-dir=%s", bench->state);
    daemon_add(daemon, "--cgroup=%s", bench->cgroup);
    daemon_add(daemon, "--hypervisor=firecracker");
    daemon_add(daemon, "--firecracker=%s", bench->firecracker);
    daemon_add(daemon, "--jailer=%s", bench->jailer);
    daemon_add(daemon, "--front=%s", MOTTE_RELAY_FRONT);
    daemon_add(daemon, "--front-user=nobody");
}

void daemon_start(struct daemon *daemon)
{
    int ends[2];
    cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
    daemon->pid = fork();
    if (daemon->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves none behind */
        dup2(ends[1], STDERR_FILENO);
        setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* it needs ptrace, which motted gives up */
        execv(MOTTE_MOTTED, daemon->argv);
        _exit(99);
    }
    close(ends[1]);
    daemon->output = ends[0];
}

int daemon_wait(struct daemon *daemon, char *out, size_t size)
{
    int status = 0;
    size_t len = 0;
    for (ssize_t n; len < size - 1 && (n = read(daemon->output, out + len, size - 1 - len)) > 0;)
        len += (size_t)n;
    out[len] = '\0';
    close(daemon->output);
    cr_assert_eq(waitpid(daemon->pid, &status, 0), daemon->pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256;
}

int daemon_connect(const struct bench *bench, char *text, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {text, size - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/motte.sock", bench->run);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        cr_assert_lt(clock_mono_ms(), deadline, "nobody listens on %s: %m", address.sun_path);
        poll(NULL, 0, 5);
    }
    ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    int channel = -1;
    cr_assert_eq(control.header.cmsg_type, SCM_RIGHTS);
    memcpy(&channel, CMSG_DATA(&control.header), sizeof(int));
    return channel;
}
