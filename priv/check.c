/* CHECK: every guard of a launched VMM, read back from the kernel. For Firecracker it makes sense
 * after InstanceStart only: its main thread loads its filter there. */
#include "priv/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { STATUS_MAX = 8192, MOUNTS_MAX = 1 << 18, THREADS_MAX = 1024 };

/* Threads that the kernel makes for itself in the VMM's process (KVM's page recovery, io_uring)
 * never run code of the VMM. */
static bool kernel_worker(int task)
{
    enum { FLAGS = 9, AFTER_NAME = 3, PF_IO_WORKER = 0x10, PF_USER_WORKER = 0x4000 };
    char text[1024];
    if (fs_read_at(task, "stat", text, sizeof(text)) < 0)
        return false;
    char *at = strrchr(text, ')');
    for (int field = AFTER_NAME - 1; at != NULL && field < FLAGS; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return at != NULL && (strtoul(at, NULL, 10) & (PF_IO_WORKER | PF_USER_WORKER)) != 0;
}

struct expected {
    const struct priv_record *record;
    unsigned own_filters;
    bool seccomp;
};

static int check_seccomp(const struct expected *expected, const char *status, const char *task,
                         struct error *err)
{
    const char *mode = priv_proc_field(status, "Seccomp");
    const char *count = priv_proc_field(status, "Seccomp_filters");
    unsigned filters = count == NULL ? 0 : (unsigned)strtoul(count, NULL, 10);
    /* QEMU adds one of its own for -sandbox. */
    bool enough = expected->record->hypervisor == PRIV_QEMU ? filters >= expected->own_filters + 1
                                                            : filters == expected->own_filters + 1;
    if (mode == NULL || mode[0] != '2' || !enough)
        return error_set(err, ERR_GUARD, 0,
                         "thread %s of the VMM has %u seccomp filters where %u are inherited and "
                         "one more was to be loaded",
                         task, filters, expected->own_filters);
    return 0;
}

static int check_thread(const struct expected *expected, int tasks, const char *name,
                        struct error *err)
{
    char status[STATUS_MAX];
    cleanup_close int task = openat(tasks, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (task < 0 || fs_read_at(task, "status", status, sizeof(status)) < 0)
        return errno == ENOENT || errno == ESRCH
                   ? 0
                   : error_set(err, ERR_GUARD, errno, "reading the status of thread %s", name);
    if (kernel_worker(task))
        return 0;
    const char *privileges = priv_proc_field(status, "NoNewPrivs");
    const char *effective = priv_proc_field(status, "CapEff");
    const char *permitted = priv_proc_field(status, "CapPrm");
    if (privileges == NULL || privileges[0] != '1')
        return error_set(err, ERR_GUARD, 0, "thread %s of the VMM lacks no_new_privs", name);
    if (effective == NULL || permitted == NULL || strtoull(effective, NULL, 16) != 0 ||
        strtoull(permitted, NULL, 16) != 0)
        return error_set(err, ERR_GUARD, 0, "thread %s of the VMM has capabilities", name);
    if (!priv_proc_ids_are(status, "Uid", expected->record->uid) ||
        !priv_proc_ids_are(status, "Gid", expected->record->uid))
        return error_set(err, ERR_GUARD, 0, "thread %s of the VMM is not under uid %u", name,
                         expected->record->uid);
    return expected->seccomp ? check_seccomp(expected, status, name, err) : 0;
}

static int check_threads(const struct priv_record *record, struct error *err)
{
    char path[32];
    struct expected expected = {.record = record,
                                .seccomp = !(record->without & PRIV_GUARD_SECCOMP)};
    if (priv_proc_own_filters(&expected.own_filters, err) < 0)
        return -1;
    snprintf(path, sizeof(path), "/proc/%d/task", record->pid);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return error_set(err, ERR_GUARD, errno, "reading the threads of the VMM");
    int result = 0, count = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        result = ++count > THREADS_MAX
                     ? error_set(err, ERR_GUARD, 0, "the VMM has more than %d threads", count - 1)
                     : check_thread(&expected, dirfd(dir), entry->d_name, err);
    }
    closedir(dir);
    if (result == 0 && count == 0)
        return error_set(err, ERR_GUARD, 0, "the VMM has no thread");
    return result;
}

static int check_namespaces(const struct priv_record *record, struct error *err)
{
    static const char *const names[] = {"net", "mnt", "pid", "ipc", "uts"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        uint64_t ours = 0, theirs = 0;
        if (priv_proc_namespace(0, names[i], &ours, err) < 0 ||
            priv_proc_namespace(record->pid, names[i], &theirs, err) < 0)
            return -1;
        if (ours == theirs)
            return error_set(err, ERR_GUARD, 0, "the VMM shares our %s namespace", names[i]);
        if (strcmp(names[i], "net") == 0 && theirs != record->netns)
            return error_set(err, ERR_GUARD, 0, "the VMM has left its network namespace");
    }
    return 0;
}

/* mountinfo (proc(5)): id, parent, device, root, mount point, options, … The paths are as the VMM
 * sees them. 1 read-only, 0 writable, -1 absent. */
static int mounted_readonly(char *mounts, const char *point)
{
    int found = -1;
    for (char *line = mounts; line != NULL && *line != '\0';) {
        char at[256], options[256];
        if (sscanf(line, "%*s %*s %*s %*s %255s %255s", at, options) == 2 && strcmp(at, point) == 0)
            found = strncmp(options, "ro", 2) == 0 && (options[2] == ',' || options[2] == '\0');
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return found;
}

static int check_mounts(const struct priv_record *record, struct error *err)
{
    static const struct {
        const char *point;
        bool needed;
    } points[] = {{"/disk", true}, {"/kernel", true}, {"/initrd", false}};
    char path[32];
    cleanup_free char *mounts = malloc(MOUNTS_MAX);
    snprintf(path, sizeof(path), "/proc/%d/mountinfo", record->pid);
    if (mounts == NULL || fs_read_at(AT_FDCWD, path, mounts, MOUNTS_MAX) < 0)
        return error_set(err, ERR_GUARD, errno, "reading the mounts of the VMM");
    for (size_t i = 0; i < COUNT_OF(points); i++) {
        int readonly = mounted_readonly(mounts, points[i].point);
        if (readonly == 0 || (readonly < 0 && points[i].needed))
            return error_set(err, ERR_GUARD, 0, "the VMM's %s is not mounted read-only",
                             points[i].point);
    }
    return 0;
}

/* "Max core file size  0  0  bytes": soft and hard. */
static int check_core(const struct priv_record *record, struct error *err)
{
    static const char name[] = "Max core file size";
    char path[32], text[4096];
    snprintf(path, sizeof(path), "/proc/%d/limits", record->pid);
    if (fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return error_set(err, ERR_GUARD, errno, "reading the limits of the VMM");
    const char *at = strstr(text, name);
    at = at == NULL ? "" : at + sizeof(name) - 1;
    for (int i = 0; i < 2; i++) {
        char *end = NULL;
        if (strtoull(at, &end, 10) != 0 || end == at)
            return error_set(err, ERR_GUARD, 0, "core dumps of the VMM are not off");
        at = end;
    }
    return 0;
}

static int check_firewall(struct priv_server *server, const struct priv_record *record,
                          struct error *err)
{
    struct netfilter_vm vm = {.uid = record->uid};
    memcpy(vm.instance, record->instance, ID_INSTANCE_SIZE);
    pthread_mutex_lock(&server->firewall_lock);
    int result = netfilter_check(server->firewall, &vm, err);
    pthread_mutex_unlock(&server->firewall_lock);
    return result;
}

int priv_op_check(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)request;
    (void)answer;
    const struct priv_record *record = &slot->record;
    if (priv_pidfd_ended(slot->pidfd))
        return error_set(err, ERR_VMM_EXITED, 0, "the VMM has ended");
    if (check_threads(record, err) < 0 || check_namespaces(record, err) < 0 ||
        check_mounts(record, err) < 0 || check_core(record, err) < 0)
        return -1;
    if (!(record->without & PRIV_GUARD_CGROUP) &&
        priv_cgroup_check(&server->cgroups, record->instance, &record->shape,
                          priv_overhead_mib(server), record->pid, err) < 0)
        return -1;
    return record->without & PRIV_GUARD_FIREWALL ? 0 : check_firewall(server, record, err);
}
