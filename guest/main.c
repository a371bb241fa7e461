/* PID 1: boots and finds its ways to the host, or takes them from the agent that it was before. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { VIRTIO_CONSOLE = 3, PORTS_WAIT_MS = 3000 };

static const char CGROUPS[] = "/sys/fs/cgroup/motte";

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
}

static int open_port(int port, int64_t deadline_ms)
{
    char device[32];
    if (guest_serial_find(port, deadline_ms, device))
        return -1;
    int fd = open(device, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        guest_say("%s: %s", device, strerror(errno));
    return fd;
}

static void open_ports(struct guest_handover *start)
{
    int64_t deadline = guest_mono_ms() + PORTS_WAIT_MS;
    int found = 0;
    errno = EINVAL;
    if (!start->facts.has_token)
        guest_die("give motte.token=<32 hex> to the kernel: serial ports need it");
    for (int port = 0; port < start->facts.ports; port++) {
        start->ports[port] = open_port(port, deadline);
        found += start->ports[port] >= 0;
    }
    errno = ENODEV;
    if (found == 0)
        guest_die("no serial port is called motte.0");
}

static void find_ways(struct guest_handover *start)
{
    for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
        start->ports[port] = -1;
    if (guest_virtio_has(VIRTIO_CONSOLE)) {
        open_ports(start);
        return;
    }
    start->listener = guest_vsock_listen();
    if (start->listener < 0)
        guest_die("no way to the host: neither serial ports nor vsock");
}

static void boot(struct guest_handover *start)
{
    guest_boot_early();
    /* Without a clock (decision 0032) this never ends, and the host, which hears no hello, boots
     * the guest anew. Going on would make a VM of it in which some commands hang. */
    usleep(1000);
    guest_modules_load();
    read_facts(&start->facts);
    guest_boot_root();
    guest_cgroup_prepare(CGROUPS);
    guest_put("/proc/self/oom_score_adj", "-1000"); /* sessions inherit it, commands give it back */
    char hostname[GUEST_HOSTNAME_LEN + 1] = "";
    memcpy(hostname, start->facts.instance, GUEST_HOSTNAME_LEN);
    if (sethostname(hostname, strlen(hostname)))
        guest_say("hostname: %s", strerror(errno));
    find_ways(start);
}

int main(int argc, char **argv)
{
    struct guest_handover start = {.listener = -1};
    if (getpid() != 1) {
        fprintf(stderr, "motte-agent is the first program of a VM (its /init), not one for you\n");
        return 2;
    }
    int taken = guest_handover_take(argc, argv, &start);
    if (taken < 0)
        guest_die("cannot read what the agent before handed on");
    if (taken == 0)
        boot(&start);
    start.facts.cgroups = CGROUPS;
    start.facts.boot_ms = guest_boot_ms();
    guest_supervise(&start);
}
