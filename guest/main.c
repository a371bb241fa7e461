/* PID 1: boots, hands each connection to a process of its own, reaps whatever ends. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SESSIONS_MAX = 128,
    VIRTIO_CONSOLE = 3,
    PORTS_WAIT_MS = 3000,
    RESTART_PAUSE_US = 100000,
};

static const char CGROUPS[] = "/sys/fs/cgroup/motte";

struct supervisor {
    struct guest_facts facts;
    int listener; /* vsock; -1: serial ports */
    int signals;  /* signalfd: children that ended, and the word to end the machine */
    pid_t sessions[SESSIONS_MAX];
    pid_t ports[WIRE_SERIAL_PORTS];
    char devices[WIRE_SERIAL_PORTS][32];
};

static void read_facts(struct guest_facts *facts)
{
    char cmdline[4096] = "";
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, cmdline, sizeof cmdline - 1) < 0)
        guest_die("/proc/cmdline");
    close(fd);
    errno = EINVAL;
    if (guest_facts_parse(cmdline, facts))
        guest_die("give motte.instance=<20 of [a-z2-7]> (and motte.token=<32 hex>) to the kernel");
    facts->cgroups = CGROUPS;
}

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
    if (fork() != 0)
        return;
    int fd = guest_vsock_hello();
    if (fd < 0)
        guest_say("no host listens for hello; waiting for it to connect");
    else
        serve_socket(fd, true, &supervisor->facts);
    _exit(0);
}

static void start_port(struct supervisor *supervisor, int port)
{
    pid_t pid = fork();
    if (pid == 0)
        guest_serial_serve(supervisor->devices[port], port, &supervisor->facts);
    supervisor->ports[port] = pid;
}

static void start_ports(struct supervisor *supervisor)
{
    int64_t deadline = guest_mono_ms() + PORTS_WAIT_MS;
    int found = 0;
    errno = EINVAL;
    if (!supervisor->facts.has_token)
        guest_die("give motte.token=<32 hex> to the kernel: serial ports need it");
    for (int port = 0; port < supervisor->facts.ports; port++)
        if (guest_serial_find(port, deadline, supervisor->devices[port]) == 0) {
            start_port(supervisor, port);
            found++;
        }
    errno = ENODEV;
    if (found == 0)
        guest_die("no serial port is called motte.0");
}

static void reap(struct supervisor *supervisor)
{
    for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;) {
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

static void accept_one(struct supervisor *supervisor)
{
    int fd = guest_vsock_accept(supervisor->listener);
    if (fd < 0)
        return;
    size_t slot = 0;
    while (slot < SESSIONS_MAX && supervisor->sessions[slot] > 0)
        slot++;
    pid_t pid = slot < SESSIONS_MAX ? fork() : -1;
    if (pid == 0) {
        close(supervisor->listener);
        serve_socket(fd, false, &supervisor->facts);
        _exit(0);
    }
    if (pid > 0)
        supervisor->sessions[slot] = pid;
    close(fd); /* without a process for it the host sees a close, and tries again */
}

_Noreturn static void supervise(struct supervisor *supervisor)
{
    for (;;) {
        struct pollfd fds[] = {{.fd = supervisor->signals, .events = POLLIN},
                               {.fd = supervisor->listener, .events = POLLIN}};
        if (poll(fds, 2, -1) < 0)
            continue;
        if (fds[0].revents)
            take_signals(supervisor);
        if (fds[1].revents)
            accept_one(supervisor);
    }
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

int main(void)
{
    struct supervisor supervisor = {.listener = -1};
    if (getpid() != 1) {
        fprintf(stderr, "motte-agent is the first program of a VM (its /init), not one for you\n");
        return 2;
    }
    guest_boot_early();
    /* Without a clock (decision 0032) this never ends, and the host, which hears no hello, boots
     * the guest anew. Going on would make a VM of it in which some commands hang. */
    usleep(1000);
    guest_modules_load();
    read_facts(&supervisor.facts);
    guest_boot_root();
    guest_cgroup_prepare(CGROUPS);
    signal(SIGPIPE, SIG_IGN);
    guest_put("/proc/self/oom_score_adj", "-1000"); /* sessions inherit it, commands give it back */
    char hostname[GUEST_HOSTNAME_LEN + 1] = "";
    memcpy(hostname, supervisor.facts.instance, GUEST_HOSTNAME_LEN);
    if (sethostname(hostname, strlen(hostname)))
        guest_say("hostname: %s", strerror(errno));
    supervisor.signals = watch_signals();
    supervisor.facts.boot_ms = guest_boot_ms();
    if (guest_virtio_has(VIRTIO_CONSOLE)) {
        start_ports(&supervisor);
    } else {
        supervisor.listener = guest_vsock_listen();
        if (supervisor.listener < 0)
            guest_die("no way to the host: neither serial ports nor vsock");
        start_hello(&supervisor);
    }
    supervise(&supervisor);
}
