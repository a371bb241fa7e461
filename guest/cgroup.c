#include "guest/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RESERVE = 16 << 20, MARGIN = 8 << 20, EMPTY_WAIT_MS = 200 };

static int put_in(const char *dir, const char *file, const char *text)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    return guest_put(path, text);
}

/* The number on the first line that begins with `key`, which may be empty; 0 if there is none. */
static uint64_t read_number(const char *path, const char *key)
{
    char line[128];
    uint64_t value = 0;
    FILE *file = fopen(path, "re");
    while (file && value == 0 && fgets(line, sizeof line, file))
        if (strncmp(line, key, strlen(key)) == 0)
            value = strtoull(line + strlen(key), NULL, 10);
    if (file)
        fclose(file);
    return value;
}

static void limit_memory(const char *dir, uint64_t bytes)
{
    char text[32];
    snprintf(text, sizeof text, "%llu", (unsigned long long)bytes);
    if (put_in(dir, "memory.max", text))
        guest_say("%s/memory.max: %s", dir, strerror(errno));
}

static void enable_controllers(const char *dir)
{
    static const char *const CONTROLLERS[] = {"+memory", "+pids", "+cpu"};
    /* One write each: one that is missing fails the whole line. */
    for (size_t i = 0; i < sizeof CONTROLLERS / sizeof CONTROLLERS[0]; i++)
        if (put_in(dir, "cgroup.subtree_control", CONTROLLERS[i]))
            guest_say("cgroup %s: %s", CONTROLLERS[i], strerror(errno));
}

void guest_cgroup_prepare(const char *parent)
{
    enable_controllers("/sys/fs/cgroup");
    if (mkdir(parent, 0755))
        guest_die(parent);
    enable_controllers(parent);
    /* Of what is free now, not of the whole: the kernel holds a good part itself. */
    uint64_t available = read_number("/proc/meminfo", "MemAvailable:") * 1024;
    limit_memory(parent, available > (uint64_t)2 * RESERVE ? available - RESERVE : available / 2);
}

/* A little less than all commands together may have: one that takes all it can get stops there, and
 * leaves the others alone. */
static uint64_t command_limit(const char *parent)
{
    char path[96];
    snprintf(path, sizeof path, "%s/memory.max", parent);
    uint64_t all = read_number(path, "");
    return all > (uint64_t)2 * MARGIN ? all - MARGIN : all;
}

/* At the limit a command may read its own code from the disk again and again instead of dying; the
 * kernel tells when all of it stands still for half of two seconds. */
static int watch_pressure(const char *dir)
{
    char path[128];
    snprintf(path, sizeof path, "%s/memory.pressure", dir);
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    static const char TRIGGER[] = "full 1000000 2000000";
    if (fd >= 0 && write(fd, TRIGGER, sizeof TRIGGER) < 0) {
        close(fd);
        return -1;
    }
    return fd; /* -1: a kernel without pressure information */
}

int guest_cgroup_make(const char *parent, struct guest_cgroup *ret)
{
    static unsigned serial; /* of this process: names never meet again */
    struct guest_cgroup cgroup = {.fd = -1, .pressure = -1};
    if (!parent) {
        *ret = cgroup;
        return 0;
    }
    snprintf(cgroup.path, sizeof cgroup.path, "%s/%d.%u", parent, getpid(), serial++);
    if (mkdir(cgroup.path, 0755))
        return -1;
    cgroup.fd = open(cgroup.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    limit_memory(cgroup.path, command_limit(parent));
    /* Without pids.max a fork bomb starves the agent for good. */
    if (cgroup.fd < 0 || put_in(cgroup.path, "pids.max", "256") ||
        put_in(cgroup.path, "memory.oom.group", "1")) {
        guest_cgroup_remove(&cgroup);
        return -1;
    }
    cgroup.pressure = watch_pressure(cgroup.path);
    *ret = cgroup;
    return 0;
}

void guest_cgroup_kill(const struct guest_cgroup *cgroup, pid_t pid, int pidfd)
{
    if (*cgroup->path && put_in(cgroup->path, "cgroup.kill", "1") == 0)
        return;
    syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0); /* it may not lead its group yet */
    kill(-pid, SIGKILL);
}

static void kill_left(struct guest_cgroup *left)
{
    put_in(left->path, "cgroup.kill", "1");
}

static void each_left(const char *parent, void (*act)(struct guest_cgroup *left))
{
    DIR *dir = opendir(parent);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct guest_cgroup left = {.fd = -1, .pressure = -1};
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        snprintf(left.path, sizeof left.path, "%s/%.40s", parent, entry->d_name);
        act(&left);
    }
    if (dir)
        closedir(dir);
}

void guest_cgroup_clear(const char *parent)
{
    each_left(parent, kill_left);
    each_left(parent, guest_cgroup_remove); /* all die at the same time */
}

bool guest_cgroup_oom(const struct guest_cgroup *cgroup)
{
    char path[128];
    snprintf(path, sizeof path, "%s/memory.events", cgroup->path);
    return *cgroup->path && read_number(path, "oom_kill ") > 0;
}

void guest_cgroup_remove(struct guest_cgroup *cgroup)
{
    if (!*cgroup->path)
        return;
    if (cgroup->pressure >= 0)
        close(cgroup->pressure);
    int64_t deadline = guest_mono_ms() + EMPTY_WAIT_MS;
    while (rmdir(cgroup->path) && errno == EBUSY && guest_mono_ms() < deadline)
        usleep(1000); /* the dead leave a moment later */
    if (cgroup->fd >= 0)
        close(cgroup->fd);
    *cgroup = (struct guest_cgroup){.fd = -1, .pressure = -1};
}
