/* PID 1 after boot: hands each connection to a process of its own, reaps whatever ends, and gives
 * way to itself after a restore. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SESSIONS_MAX = 128, RESTART_PAUSE_US = 100000, LAST_WORDS_MS = 2000 };

struct supervisor {
    struct guest_handover start;
    int signals; /* signalfd: children that ended, and the word to end the machine */
    int asks;    /* of sessions: to execute the agent anew */
    pid_t hello, sessions[SESSIONS_MAX], ports[WIRE_SERIAL_PORTS];
};

/* ---- sessions ---- */

static void serve_socket(int fd, bool control, const struct guest_facts *facts)
{
    struct guest_conn *conn = calloc(1, sizeof *conn);
    if (!conn || fcntl(fd, F_SETFL, O_NONBLOCK))
        return;
    conn->fd = fd;
    guest_session_run(&(struct guest_session){.conn = conn, .facts = facts, .control = control});
}

static void start_hello(struct supervisor *supervisor)
{
    supervisor->hello = fork();
    if (supervisor->hello != 0)
        return;
    int fd = guest_vsock_hello();
    if (fd < 0)
        guest_say("no host listens for hello; waiting for it to connect");
    else
        serve_socket(fd, true, &supervisor->start.facts);
    _exit(0);
}

static void start_port(struct supervisor *supervisor, int port)
{
    pid_t pid = fork();
    if (pid == 0)
        guest_serial_serve(supervisor->start.ports[port], port, &supervisor->start.facts);
    supervisor->ports[port] = pid;
}

static void accept_one(struct supervisor *supervisor)
{
    int fd = guest_vsock_accept(supervisor->start.listener);
    if (fd < 0)
        return;
    size_t slot = 0;
    while (slot < SESSIONS_MAX && supervisor->sessions[slot] > 0)
        slot++;
    pid_t pid = slot < SESSIONS_MAX ? fork() : -1;
    if (pid == 0) {
        close(supervisor->start.listener);
        serve_socket(fd, false, &supervisor->start.facts);
        _exit(0);
    }
    if (pid > 0)
        supervisor->sessions[slot] = pid;
    close(fd); /* without a process for it the host sees a close, and tries again */
}

static void reap(struct supervisor *supervisor)
{
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
        if (supervisor->hello == pid)
            supervisor->hello = 0;
        for (size_t i = 0; i < SESSIONS_MAX; i++)
            if (supervisor->sessions[i] == pid)
                supervisor->sessions[i] = 0;
        for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
            if (supervisor->ports[port] == pid) {
                usleep(RESTART_PAUSE_US); /* if it cannot live, not a loop without end */
                start_port(supervisor, port);
            }
    }
}

/* ---- a restore's last step ---- */

static void end_session(pid_t pid, pid_t but)
{
    if (pid <= 0 || pid == but)
        return;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

/* Bytes that come from now on are for the next agent: nobody but the one that asked may read any.
 * Their commands end with them; what has left its command's cgroup goes on. */
static void end_sessions(const struct supervisor *supervisor, pid_t but)
{
    end_session(supervisor->hello, but);
    for (size_t i = 0; i < SESSIONS_MAX; i++)
        end_session(supervisor->sessions[i], but);
    for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
        end_session(supervisor->ports[port], but);
    guest_cgroup_clear(supervisor->start.facts.cgroups);
}

/* It answers the host and ends; a host that does not read is not waited for. */
static void await_end(pid_t pid)
{
    struct pollfd ended = {.fd = pidfd_open(pid, 0), .events = POLLIN};
    if (ended.fd >= 0)
        poll(&ended, 1, LAST_WORDS_MS);
    end_session(pid, 0);
}

static void take_ask(struct supervisor *supervisor)
{
    struct guest_handover next = supervisor->start;
    struct guest_identity identity;
    pid_t asker;
    int fds[2];
    if (!guest_handover_asked(supervisor->asks, &asker, &identity))
        return;
    memcpy(next.facts.instance, identity.instance, sizeof next.facts.instance);
    memcpy(next.facts.token, identity.token, sizeof next.facts.token);
    next.facts.has_token = identity.has_token;
    next.facts.generation = identity.generation;
    if (guest_handover_prepare(&next, fds)) {
        guest_handover_answer(supervisor->asks, errno);
        return;
    }
    end_sessions(supervisor, asker);
    guest_handover_answer(supervisor->asks, 0);
    await_end(asker);
    guest_handover_execute(&next, fds);
}

/* ---- signals ---- */

/* Numbers as systemd's PID 1 has them, and what a container's programs therefore send. */
static int power_off(void)
{
    return SIGRTMIN + 4;
}

static int restart(void)
{
    return SIGRTMIN + 5;
}

static void take_signals(struct supervisor *supervisor)
{
    struct signalfd_siginfo info;
    while (read(supervisor->signals, &info, sizeof info) > 0)
        if ((int)info.ssi_signo == power_off())
            guest_bye("shutdown");
        else if ((int)info.ssi_signo == restart())
            guest_bye("reset");
    reap(supervisor);
}

static int watch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, power_off());
    sigaddset(&set, restart());
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- life ---- */

static void start_sessions(struct supervisor *supervisor)
{
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
        guest_die("no way for a session to ask for anything");
    supervisor->asks = ends[0];
    supervisor->start.facts.init = ends[1];
    for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
        if (supervisor->start.ports[port] >= 0)
            start_port(supervisor, port);
    if (supervisor->start.listener >= 0)
        start_hello(supervisor);
}

_Noreturn void guest_supervise(const struct guest_handover *start)
{
    struct supervisor supervisor = {.start = *start, .signals = watch_signals()};
    signal(SIGPIPE, SIG_IGN);
    start_sessions(&supervisor);
    for (;;) {
        struct pollfd fds[] = {{.fd = supervisor.signals, .events = POLLIN},
                               {.fd = supervisor.start.listener, .events = POLLIN},
                               {.fd = supervisor.asks, .events = POLLIN}};
        if (poll(fds, 3, -1) < 0)
            continue;
        if (fds[0].revents)
            take_signals(&supervisor);
        if (fds[2].revents)
            take_ask(&supervisor);
        if (fds[1].revents)
            accept_one(&supervisor);
    }
}
