/* USAGE: what a VM takes, from its cgroup. */
#include "priv/snapshot_internal.h"

#include <fcntl.h>
#include <sys/stat.h>

static uint64_t number(int dirfd, const char *file, const char *key)
{
    char text[4096];
    if (fs_read_at(dirfd, file, text, sizeof(text)) < 0)
        return 0;
    const char *at = text;
    if (key != NULL) {
        size_t len = strlen(key);
        while (at != NULL && !(strncmp(at, key, len) == 0 && at[len] == ' ')) {
            at = strchr(at, '\n');
            at = at == NULL ? NULL : at + 1;
        }
        at = at == NULL ? NULL : at + len;
    }
    return at == NULL ? 0 : strtoull(at, NULL, 10);
}

/* Version 1's cpu directory counts no time unless cpuacct is mounted with it. */
static uint64_t process_cpu_us(pid_t pid)
{
    enum { USER_TIME = 14, AFTER_NAME = 3 };
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (pid <= 0 || fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return 0;
    char *at = strrchr(text, ')');
    for (int field = AFTER_NAME - 1; at != NULL && field < USER_TIME; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL)
        return 0;
    uint64_t user = strtoull(at, &at, 10), kernel = strtoull(at, NULL, 10);
    return (user + kernel) * 1000000 / (uint64_t)sysconf(_SC_CLK_TCK);
}

/* Sums over disks: version 1 has lines `8:0 Read 4096`, version 2 `8:0 rbytes=4096 wbytes=0 …`. False:
 * nobody counts. */
static bool count_io(int dirfd, bool unified, struct priv_usage *ret)
{
    const char *file = unified ? "io.stat" : "blkio.throttle.io_service_bytes";
    const char *read = unified ? " rbytes=" : " Read ", *wrote = unified ? " wbytes=" : " Write ";
    char text[16384];
    if (dirfd < 0 || fs_read_at(dirfd, file, text, sizeof(text)) < 0)
        return false;
    for (const char *at = text; (at = strstr(at, read)) != NULL; at += strlen(read))
        ret->read_bytes += strtoull(at + strlen(read), NULL, 10);
    for (const char *at = text; (at = strstr(at, wrote)) != NULL; at += strlen(wrote))
        ret->wrote_bytes += strtoull(at + strlen(wrote), NULL, 10);
    return true;
}

void priv_cgroup_usage(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                       struct priv_usage *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->cpu_us = process_cpu_us(pid);
    if (cgroups->count == 0)
        return;
    bool unified = cgroups->version == 2;
    cleanup_close int memory = priv_cgroup_directory(cgroups, 0, instance);
    cleanup_close int pids =
        priv_cgroup_directory(cgroups, unified ? 0 : PRIV_CGROUP_PIDS, instance);
    ret->memory_bytes = number(memory, unified ? "memory.current" : "memory.usage_in_bytes", NULL);
    ret->oom_kills =
        (uint32_t)number(memory, unified ? "memory.events" : "memory.oom_control", "oom_kill");
    ret->pids = (uint32_t)number(pids, "pids.current", NULL);
    if (unified)
        ret->cpu_us = number(memory, "cpu.stat", "usage_usec");
    bool counts = unified || cgroups->count > PRIV_CGROUP_IO;
    cleanup_close int io =
        counts ? priv_cgroup_directory(cgroups, unified ? 0 : PRIV_CGROUP_IO, instance) : -1;
    ret->has_io = count_io(io, unified, ret);
}

uint64_t priv_cgroup_swap(const struct priv_cgroups *cgroups, const char *instance)
{
    cleanup_close int memory = priv_cgroup_directory(cgroups, 0, instance);
    return cgroups->version == 2 ? number(memory, "memory.swap.current", NULL)
                                 : number(memory, "memory.stat", "swap");
}

int priv_op_usage(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    struct error ignored = {0}; /* it ends just now, and takes nothing more */
    struct stat st;
    (void)request;
    (void)err;
    priv_cgroup_usage(&server->cgroups, slot->record.instance,
                      priv_pidfd_ended(slot->pidfd) ? 0 : slot->record.pid, &answer->reply.u.usage);
    bool has_disk = slot->record.state == PRIV_LAUNCHED && slot->record.shape.disk_mib > 0;
    cleanup_close int disk = has_disk ? priv_disk_open(slot, &ignored) : -1;
    if (disk >= 0 && fstat(disk, &st) == 0)
        answer->reply.u.usage.disk_bytes = (uint64_t)st.st_blocks * 512;
    return 0;
}
