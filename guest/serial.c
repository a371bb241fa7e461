#include "guest/internal.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

/* The device's number moves with the order of devices (vport<device>p<port>); its name is stable.
 */
static bool named(const char *device, const char *want)
{
    char path[300], name[32] = "";
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", device);
    FILE *file = fopen(path, "re");
    if (!file)
        return false;
    bool same = fgets(name, sizeof name, file) && strcmp(name, want) == 0;
    fclose(file);
    return same;
}

static bool find_now(const char *want, char device[static 32])
{
    bool found = false;
    DIR *dir = opendir("/sys/class/virtio-ports");
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        found = named(entry->d_name, want);
        if (found)
            snprintf(device, 32, "/dev/%.24s", entry->d_name);
    }
    if (dir)
        closedir(dir);
    return found && access(device, F_OK) == 0;
}

/* Node and name come from the control queue's work, after the driver's probe returned. */
int guest_serial_find(int port, int64_t deadline_ms, char device[static 32])
{
    char want[32];
    snprintf(want, sizeof want, "motte.%d\n", port);
    while (!find_now(want, device)) {
        if (guest_mono_ms() >= deadline_ms)
            return -1;
        usleep(1000);
    }
    return 0;
}

/* SIGIO stays blocked: pending, it is not lost between two polls. */
static int watch_host(int fd)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (fcntl(fd, F_SETOWN, getpid()) || fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC))
        return -1;
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* The port is never closed, not even between two agents: that would throw away what a new host has
 * sent already. */
_Noreturn void guest_serial_serve(int fd, int port, const struct guest_facts *facts)
{
    struct guest_conn *conn = calloc(1, sizeof *conn);
    if (!conn)
        _exit(1);
    conn->token = facts->token;
    conn->fd = fd;
    conn->sigio = watch_host(fd);
    struct guest_session session = {.conn = conn, .facts = facts, .control = port == 0};
    if (conn->sigio < 0)
        _exit(1);
    for (;;) {
        if (guest_conn_next_session(conn) == 0)
            guest_session_run(&session);
        else if (!conn->marked)
            _exit(1);
    }
}
