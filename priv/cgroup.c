/* The cgroup of an instance: made with limits that are read back, checked, counted, killed. The
 * list of settings is the same for writing and for checking. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

enum { SETTINGS_MAX = 10, PROCS_MAX = 65536, PERIOD_US = 100000, DESTROY_TIMEOUT_MS = 5000 };

struct setting {
    enum priv_limit limit;
    size_t at;
    const char *file;
    bool optional; /* kernels without swap accounting lack it */
    bool lifted;   /* io: no limit is no line */
    char text[128];
};

__attribute__((format(printf, 6, 7))) static void put(struct setting **next, enum priv_limit limit,
                                                      size_t at, const char *file, bool optional,
                                                      const char *fmt, ...)
{
    struct setting *setting = (*next)++;
    setting->limit = limit;
    setting->at = at;
    setting->file = file;
    setting->optional = optional;
    setting->lifted = false;
    va_list args;
    va_start(args, fmt);
    vsnprintf(setting->text, sizeof(setting->text), fmt, args);
    va_end(args);
}

/* The value in io.max; `max` lifts it. */
static const char *or_max(uint64_t value, char text[static 24])
{
    snprintf(text, 24, value == 0 ? "max" : "%llu", (unsigned long long)value);
    return text;
}

static void put_io(struct setting **next, const struct priv_cgroups *cgroups)
{
    static const char *const files[] = {
        "blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
        "blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device"};
    const struct priv_cgroup_io *io = &cgroups->io;
    char bytes[24], operations[24];
    or_max(io->bytes, bytes);
    or_max(io->operations, operations);
    if (cgroups->version == 2) {
        put(next, PRIV_LIMIT_IO, 0, "io.max", false, "%s rbps=%s wbps=%s riops=%s wiops=%s",
            io->device, bytes, bytes, operations, operations);
        (*next)[-1].lifted = io->bytes == 0 && io->operations == 0;
        return;
    }
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        uint64_t value = i < 2 ? io->bytes : io->operations;
        put(next, PRIV_LIMIT_IO, PRIV_CGROUP_IO, files[i], false, "%s %llu", io->device,
            (unsigned long long)value);
        (*next)[-1].lifted = value == 0;
    }
}

static size_t settings(const struct priv_cgroups *cgroups, const struct priv_shape *shape,
                       uint32_t overhead_mib, struct setting out[static SETTINGS_MAX])
{
    struct setting *next = out;
    unsigned long long bytes = ((unsigned long long)shape->memory_mib + overhead_mib) << 20;
    unsigned long long quota = (unsigned long long)shape->vcpus * PERIOD_US;
    if (cgroups->version == 2) {
        put(&next, PRIV_LIMIT_MEMORY, 0, "memory.max", false, "%llu", bytes);
        put(&next, PRIV_LIMIT_SWAP, 0, "memory.swap.max", true, "0");
        put(&next, PRIV_LIMIT_CPU, 0, "cpu.max", false, "%llu %d", quota, PERIOD_US);
        put(&next, PRIV_LIMIT_PIDS, 0, "pids.max", false, "%d", PRIV_PIDS_MAX);
    } else {
        put(&next, PRIV_LIMIT_MEMORY, PRIV_CGROUP_MEMORY, "memory.limit_in_bytes", false, "%llu",
            bytes);
        put(&next, PRIV_LIMIT_SWAP, PRIV_CGROUP_MEMORY, "memory.memsw.limit_in_bytes", true, "%llu",
            bytes);
        put(&next, PRIV_LIMIT_SWAP, PRIV_CGROUP_MEMORY, "memory.swappiness", true, "0");
        put(&next, PRIV_LIMIT_CPU, PRIV_CGROUP_CPU, "cpu.cfs_period_us", false, "%d", PERIOD_US);
        put(&next, PRIV_LIMIT_CPU, PRIV_CGROUP_CPU, "cpu.cfs_quota_us", false, "%llu", quota);
        put(&next, PRIV_LIMIT_PIDS, PRIV_CGROUP_PIDS, "pids.max", false, "%d", PRIV_PIDS_MAX);
    }
    if (cgroups->io.device[0] != '\0')
        put_io(&next, cgroups);
    return (size_t)(next - out);
}

int priv_cgroup_directory(const struct priv_cgroups *cgroups, size_t at, const char *instance)
{
    return fs_open_beneath(cgroups->root[at], instance, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* What the file says of the setting: all of it, or of io the line of our disk, if there is one. */
static const char *said(char *text, const struct setting *setting)
{
    size_t device = strcspn(setting->text, " ") + 1;
    for (char *line; (line = strsep(&text, "\n")) != NULL;)
        if (setting->limit != PRIV_LIMIT_IO || strncmp(line, setting->text, device) == 0)
            return line;
    return "";
}

/* 1; 0: an optional one that this kernel lacks. */
static int check_setting(int dirfd, const struct setting *setting, struct error *err)
{
    char text[4096];
    if (fs_read_at(dirfd, setting->file, text, sizeof(text)) < 0) {
        if (errno == ENOENT && setting->optional)
            return 0;
        return error_set(err, ERR_CGROUP, errno, "reading back %s", setting->file);
    }
    const char *found = said(text, setting), *wanted = setting->lifted ? "" : setting->text;
    if (strcmp(found, wanted) != 0)
        return error_set(err, ERR_CGROUP, 0, "%s reads back as `%s` in the place of `%s`",
                         setting->file, found, wanted);
    return 1;
}

static int write_setting(int dirfd, const struct setting *setting, struct error *err)
{
    if (fs_write_at(dirfd, setting->file, setting->text) == 0)
        return 1;
    if (errno == ENOENT && setting->optional)
        return 0;
    return error_set(err, ERR_CGROUP, errno, "setting %s to %s", setting->file, setting->text);
}

/* Returns how many of the limits chosen there are. */
static int limits(const struct priv_cgroups *cgroups, const char *instance,
                  const struct priv_shape *shape, uint32_t overhead_mib, unsigned which,
                  int (*each)(int, const struct setting *, struct error *), struct error *err)
{
    struct setting list[SETTINGS_MAX];
    size_t count = settings(cgroups, shape, overhead_mib, list);
    int found = 0;
    for (size_t i = 0; i < count; i++) {
        if (!(list[i].limit & which))
            continue;
        cleanup_close int dirfd = priv_cgroup_directory(cgroups, list[i].at, instance);
        if (dirfd < 0)
            return error_set(err, ERR_CGROUP, errno, "opening the cgroup of %s", instance);
        int there = each(dirfd, &list[i], err);
        if (there < 0)
            return -1;
        found += there;
    }
    return found;
}

int priv_cgroup_make(const struct priv_cgroups *cgroups, const char *instance,
                     const struct priv_shape *shape, uint32_t overhead_mib, struct error *err)
{
    for (size_t i = 0; i < cgroups->count; i++)
        if (mkdirat(cgroups->root[i], instance, 0755) < 0)
            return error_set(err, ERR_CGROUP, errno, "making the cgroup of %s", instance);
    unsigned which = PRIV_LIMIT_ALL;
    if (cgroups->io.reason != NULL)
        which &= ~(unsigned)PRIV_LIMIT_IO;
    if (limits(cgroups, instance, shape, overhead_mib, which, write_setting, err) < 0 ||
        limits(cgroups, instance, shape, overhead_mib, which, check_setting, err) < 0)
        return -1;
    return 0;
}

/* Calls `each` per process of the directory; a process that leaves meanwhile may be seen. */
static int each_process(const struct priv_cgroups *cgroups, size_t at, const char *instance,
                        bool (*each)(void *context, pid_t pid), void *context)
{
    cleanup_close int dirfd = priv_cgroup_directory(cgroups, at, instance);
    cleanup_free char *text = malloc(PROCS_MAX);
    if (dirfd < 0 || text == NULL || fs_read_at(dirfd, "cgroup.procs", text, PROCS_MAX) < 0)
        return -1;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (*line != '\0' && !each(context, (pid_t)strtol(line, NULL, 10)))
            break;
    return 0;
}

static bool is_not(void *context, pid_t pid)
{
    pid_t *wanted = context;
    if (pid != *wanted)
        return true;
    *wanted = 0;
    return false;
}

/* 1, 0, or -1 with errno. */
static int holds_at(const struct priv_cgroups *cgroups, size_t at, const char *instance, pid_t pid)
{
    pid_t wanted = pid;
    if (each_process(cgroups, at, instance, is_not, &wanted) < 0)
        return -1;
    return wanted == 0 ? 1 : 0;
}

int priv_cgroup_holds(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                      struct error *err)
{
    for (size_t i = 0; i < cgroups->count; i++) {
        int holds = holds_at(cgroups, i, instance, pid);
        if (holds == 0 || (holds < 0 && (errno == ENOENT || errno == ENODEV)))
            return error_set(err, ERR_CGROUP, 0, "process %d is not in the cgroup of %s", pid,
                             instance);
        if (holds < 0)
            return error_set(err, ERR_CGROUP, errno, "reading the cgroup of %s", instance);
    }
    return 0;
}

int priv_cgroup_check(const struct priv_cgroups *cgroups, const char *instance,
                      const struct priv_shape *shape, uint32_t overhead_mib, unsigned which,
                      struct error *err)
{
    return limits(cgroups, instance, shape, overhead_mib, which, check_setting, err);
}

int priv_cgroup_entries(const struct priv_cgroups *cgroups, const char *instance,
                        int ret[static PRIV_CGROUP_DIRS], struct error *err)
{
    const char *file = cgroups->version == 2 ? "cgroup.procs" : "tasks";
    for (size_t i = 0; i < cgroups->count; i++) {
        cleanup_close int dirfd = priv_cgroup_directory(cgroups, i, instance);
        ret[i] = dirfd < 0 ? -1 : openat(dirfd, file, O_WRONLY | O_CLOEXEC);
        if (ret[i] < 0)
            return error_set(err, ERR_CGROUP, errno, "opening the cgroup of %s", instance);
    }
    return 0;
}

int priv_cgroup_enter(const int entries[static PRIV_CGROUP_DIRS])
{
    for (size_t i = 0; i < PRIV_CGROUP_DIRS; i++)
        if (entries[i] >= 0 && write(entries[i], "0", 1) != 1)
            return -1;
    return 0;
}

static int attach_io(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                     struct error *err)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", (int)pid);
    cleanup_close int dirfd = priv_cgroup_directory(cgroups, PRIV_CGROUP_IO, instance);
    if (dirfd < 0 || fs_write_at(dirfd, "cgroup.procs", text) < 0)
        return error_set(err, ERR_CGROUP, errno, "putting the VMM into the cgroup of %s", instance);
    return 0;
}

int priv_cgroup_adopt(const struct priv_cgroups *cgroups, const char *instance, pid_t pid,
                      struct error *err)
{
    static const struct priv_shape none; /* io knows no shape */
    bool own = cgroups->count > PRIV_CGROUP_IO;
    if (own && mkdirat(cgroups->root[PRIV_CGROUP_IO], instance, 0755) == 0 &&
        attach_io(cgroups, instance, pid, err) < 0)
        return -1;
    return limits(cgroups, instance, &none, 0, PRIV_LIMIT_IO, write_setting, err) < 0 ? -1 : 0;
}

struct victim {
    const struct priv_cgroups *cgroups;
    const char *instance;
    size_t at;
};

/* The pidfd first, then the look whether it is still in the cgroup: a pid may be another's by now.
 */
static bool kill_one(void *context, pid_t pid)
{
    const struct victim *victim = context;
    cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd >= 0 && holds_at(victim->cgroups, victim->at, victim->instance, pid) == 1)
        syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    return true;
}

static void kill_all(const struct priv_cgroups *cgroups, const char *instance)
{
    cleanup_close int dirfd =
        cgroups->version == 2 ? priv_cgroup_directory(cgroups, 0, instance) : -1;
    if (dirfd >= 0 && fs_write_at(dirfd, "cgroup.kill", "1") == 0)
        return;
    for (size_t i = 0; i < cgroups->count; i++) {
        struct victim victim = {cgroups, instance, i};
        each_process(cgroups, i, instance, kill_one, &victim);
    }
}

int priv_cgroup_destroy(const struct priv_cgroups *cgroups, const char *instance, struct error *err)
{
    int64_t deadline = clock_mono_ms() + DESTROY_TIMEOUT_MS;
    for (;;) {
        int busy = 0;
        for (size_t i = 0; i < cgroups->count; i++)
            if (unlinkat(cgroups->root[i], instance, AT_REMOVEDIR) < 0 && errno != ENOENT)
                busy = errno;
        if (busy == 0)
            return 0;
        if (busy != EBUSY || clock_mono_ms() > deadline)
            return error_set(err, ERR_CGROUP, busy, "removing the cgroup of %s", instance);
        kill_all(cgroups, instance);
        nanosleep(&(struct timespec){.tv_nsec = 500000}, NULL);
    }
}
