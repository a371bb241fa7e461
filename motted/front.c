/* The front: started as another program under its own user (docs/handover.md), told of signals,
 * waited for. */
#include "motted/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ARGS_MAX = 48 + PRIV_QUOTAS_MAX, ARG_MAX_BYTES = MOTTED_TEXT_MAX + 32 };

void motted_front_init(struct motted_front *front)
{
    memset(front, 0, sizeof(*front));
    front->metrics = front->pidfd = front->signals = front->channel = -1;
    front->secrets = (struct motted_secrets)MOTTED_SECRETS_INIT;
}

static void close_handed(struct motted_front *front)
{
    for (size_t i = 0; i < front->listener_count; i++)
        cleanup_close_func(&front->listeners[i]);
    cleanup_close_func(&front->metrics);
    motted_secrets_release(&front->secrets);
    front->metrics = -1;
    front->listener_count = 0;
}

void motted_front_release(struct motted_front *front)
{
    close_handed(front);
    cleanup_close_func(&front->pidfd);
    cleanup_close_func(&front->signals);
    front->pidfd = front->signals = -1;
}

struct arguments {
    char text[ARGS_MAX][ARG_MAX_BYTES];
    char *argv[ARGS_MAX + 1];
    size_t count;
};

__attribute__((format(printf, 2, 3))) static void add(struct arguments *arguments, const char *fmt,
                                                      ...)
{
    va_list args;
    char *text = arguments->text[arguments->count];
    va_start(args, fmt);
    vsnprintf(text, ARG_MAX_BYTES, fmt, args);
    va_end(args);
    arguments->argv[arguments->count++] = text;
}

static void fill(const struct motted_config *config, const struct motted_front *front,
                 struct arguments *arguments)
{
    add(arguments, "%s", front->path);
    add(arguments, "--state-dir=%s", config->state_dir);
    add(arguments, "--default-image=%s", config->default_image);
    add(arguments, "--boot-timeout-ms=%llu", (unsigned long long)config->boot_timeout_ms);
    add(arguments, "--answer-timeout-ms=%llu", (unsigned long long)config->answer_timeout_ms);
    add(arguments, "--image-snapshots=%llu", (unsigned long long)config->image_snapshots);
    add(arguments, "--log-level=%d", (int)config->log_level);
    add(arguments, "--log-format=%d", (int)config->log_format);
    add(arguments, "--tenant-vms=%llu", (unsigned long long)config->max_tenant_vms);
    add(arguments, "--tenant-vcpus=%llu", (unsigned long long)config->max_tenant_vcpus);
    add(arguments, "--tenant-memory-mib=%llu", (unsigned long long)config->max_tenant_memory_mib);
    add(arguments, "--tenant-execs=%llu", (unsigned long long)config->max_tenant_execs);
    for (size_t i = 0; i < config->pool_count; i++)
        add(arguments, "--pool=%s", config->pools[i]);
    for (size_t i = 0; i < config->quota_count; i++)
        add(arguments, "--quota=%s", config->quotas[i]);
    for (size_t i = 0; i < front->listener_count; i++)
        add(arguments, "--listen=%s:%d", front->kinds[i], front->listeners[i]);
    if (front->metrics >= 0)
        add(arguments, "--metrics=%d", front->metrics);
    if (front->secrets.tokens >= 0)
        add(arguments, "--token-fd=%d", front->secrets.tokens);
    if (front->secrets.tls >= 0)
        add(arguments, "--tls-fd=%d", front->secrets.tls);
}

static int inherit(int fd)
{
    return fd < 0 ? 0 : fcntl(fd, F_SETFD, 0);
}

static int become(const struct motted_front *front)
{
    if (setgroups(0, NULL) < 0 || setresgid(front->gid, front->gid, front->gid) < 0 ||
        setresuid(front->uid, front->uid, front->uid) < 0)
        return -1;
    errno = EPERM;
    return setuid(0) == 0 ? -1 : 0; /* verified: there is no way back */
}

__attribute__((noreturn)) static void run(const struct motted_front *front, int channel, int reload,
                                          char *const *argv)
{
    sigset_t none;
    sigemptyset(&none);
    int failed =
        inherit(front->metrics) | inherit(front->secrets.tokens) | inherit(front->secrets.tls);
    for (size_t i = 0; i < front->listener_count; i++)
        failed |= inherit(front->listeners[i]);
    failed |= dup2(channel, PRIV_ROOT_CHANNEL_FD) < 0 || dup2(reload, PRIV_RELOAD_FD) < 0;
    if (failed || become(front) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        log_error("preparing the front: %s", strerror(errno));
        _exit(126);
    }
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(front->path, argv);
    log_error("executing %s: %s", front->path, strerror(errno));
    _exit(127);
}

int motted_front_start(const struct motted_config *config, struct motted_front *front, int channel,
                       int reload, struct error *err)
{
    struct arguments arguments = {0};
    fill(config, front, &arguments);
    front->pid = fork();
    if (front->pid < 0)
        return error_set(err, ERR_SYSTEM, errno, "starting the front");
    if (front->pid == 0)
        run(front, channel, reload, arguments.argv);
    close_handed(front); /* they are the front's alone now */
    front->pidfd = (int)syscall(SYS_pidfd_open, front->pid, 0);
    return front->pidfd >= 0 ? 0 : error_set(err, ERR_SYSTEM, errno, "watching the front");
}

/* Until the front has ended; then the channel is over, whoever else may hold its other end. */
static void *watch(void *context)
{
    struct motted_front *front = context;
    struct signalfd_siginfo info;
    struct pollfd fds[] = {{.fd = front->pidfd, .events = POLLIN},
                           {.fd = front->signals, .events = POLLIN},
                           {.fd = front->reloads->channel, .events = POLLIN}};
    while (poll(fds, COUNT_OF(fds), -1) < 0 || fds[0].revents == 0) {
        if (fds[2].revents != 0)
            motted_reload_answered(front->reloads);
        fds[2].fd = front->reloads->channel;
        if (read(front->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
            continue;
        if (info.ssi_signo == SIGHUP) {
            motted_reload(front->reloads);
            continue;
        }
        front->asked = true;
        syscall(SYS_pidfd_send_signal, front->pidfd, SIGTERM, NULL, 0);
    }
    shutdown(front->channel, SHUT_RDWR);
    return NULL;
}

int motted_front_watch(struct motted_front *front, int channel, struct motted_reloads *reloads,
                       struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    front->reloads = reloads;
    front->channel = channel;
    front->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (front->signals < 0)
        return error_set(err, ERR_SYSTEM, errno, "watching for signals");
    int error = pthread_create(&front->watcher, NULL, watch, front);
    if (error != 0)
        return error_set(err, ERR_SYSTEM, error, "starting the thread that watches the front");
    front->watched = true;
    return 0;
}

int motted_front_wait(struct motted_front *front)
{
    int status = 0;
    if (front->watched)
        pthread_join(front->watcher, NULL);
    while (waitpid(front->pid, &status, 0) < 0)
        if (errno != EINTR)
            return 1;
    if (WIFSIGNALED(status))
        return 128 + WTERMSIG(status);
    return WEXITSTATUS(status) == 0 && !front->asked ? 1 : WEXITSTATUS(status);
}
