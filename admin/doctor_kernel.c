/* The doctor's look at the kernel: calls, namespaces, KVM, cgroups. */
#include "admin/internal.h"
#include "priv/server.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

/* Each call is made with arguments that fail harmlessly; ENOSYS says that the kernel is too old. */
static void check_calls(struct admin_report *report)
{
    static const struct {
        const char *name;
        long number;
    } calls[] = {
        {"clone3", SYS_clone3},         {"pidfd_send_signal", SYS_pidfd_send_signal},
        {"openat2", SYS_openat2},       {"open_tree", SYS_open_tree},
        {"move_mount", SYS_move_mount},
    };
    char missing[128] = "";
    size_t len = 0;
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        if (syscall(calls[i].number, -1, NULL, 0, 0, 0) < 0 && errno == ENOSYS)
            len += (size_t)snprintf(missing + len, sizeof(missing) - len, " %s", calls[i].name);
    struct utsname name;
    if (uname(&name) < 0)
        return;
    if (len == 0)
        admin_report_add(report, "kernel", ADMIN_OK, ADMIN_NOBODY, NULL, "Linux %.60s",
                         name.release);
    else
        admin_report_add(report, "kernel", ADMIN_LACKS, ADMIN_BOTH,
                         "use Linux 5.10 or newer, and allow these calls in a container's filter",
                         "Linux %.60s has no%s", name.release, missing);
}

static void check_namespaces(struct admin_report *report)
{
    static const char *const names[] = {"net", "mnt", "pid", "ipc", "uts"};
    char missing[64] = "";
    size_t len = 0;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
        if (access(path, F_OK) < 0)
            len += (size_t)snprintf(missing + len, sizeof(missing) - len, " %s", names[i]);
    }
    if (len == 0)
        admin_report_add(report, "namespaces", ADMIN_OK, ADMIN_NOBODY, NULL, "net mnt pid ipc uts");
    else
        admin_report_add(report, "namespaces", ADMIN_LACKS, ADMIN_BOTH,
                         "use a kernel with CONFIG_NAMESPACES and all of them", "missing:%s",
                         missing);
}

static void check_filters(struct admin_report *report)
{
    uint32_t action = SECCOMP_RET_KILL_PROCESS;
    bool seccomp = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
    char status[4096];
    bool counts = fs_read_at(AT_FDCWD, "/proc/self/status", status, sizeof(status)) > 0 &&
                  strstr(status, "Seccomp_filters:") != NULL;
    if (seccomp && counts)
        admin_report_add(report, "seccomp", ADMIN_OK, ADMIN_NOBODY, NULL,
                         "filters, kill_process, Seccomp_filters in /proc");
    else
        admin_report_add(report, "seccomp", ADMIN_LACKS, ADMIN_BOTH,
                         "use Linux 5.10 or newer with CONFIG_SECCOMP_FILTER", "%s",
                         seccomp ? "/proc does not count filters" : "no filters");
    long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (version > 0)
        admin_report_add(report, "landlock", ADMIN_OK, ADMIN_NOBODY, NULL, "version %ld", version);
    else
        admin_report_add(report, "landlock", ADMIN_WARN, ADMIN_NOBODY,
                         "boot with lsm=landlock,… (Linux 5.13 or newer): without it one wall "
                         "around motte-front is missing, none around a VM",
                         "not available");
}

static void check_limits(struct admin_report *report)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_max < 65536)
        admin_report_add(report, "open files", ADMIN_NOTE, ADMIN_NOBODY,
                         "motted raises it as root; if it cannot, set LimitNOFILE=65536",
                         "hard limit %llu", (unsigned long long)files.rlim_max);
}

void admin_doctor_kernel(struct admin_report *report)
{
    check_calls(report);
    check_namespaces(report);
    check_filters(report);
    check_limits(report);
}

void admin_doctor_kvm(struct admin_report *report)
{
    char reason[160] = "";
    const char *remedy = NULL;
    switch (priv_kvm_probe(reason)) {
    case PRIV_KVM_OK:
        admin_report_add(report, "kvm", ADMIN_OK, ADMIN_NOBODY, NULL, "%.159s", reason);
        return;
    case PRIV_KVM_MISSING:
        remedy = "turn on virtualisation in the firmware (or nested virtualisation in the cloud), "
                 "then modprobe kvm_intel or kvm_amd; or use `motted --dev`";
        break;
    case PRIV_KVM_DENIED:
        remedy = "run the doctor as root, and give a container /dev/kvm; or use `motted --dev`";
        break;
    case PRIV_KVM_EMULATED:
        remedy = "this KVM cannot run an unmodified Linux guest: use a host with hardware KVM, or "
                 "`motted --dev`";
        break;
    }
    admin_report_add(report, "kvm", ADMIN_LACKS, ADMIN_FIRECRACKER, remedy, "%.159s", reason);
}

void admin_doctor_cgroup(struct admin_report *report)
{
    struct admin_cgroups cgroups;
    struct error err = {0};
    if (admin_cgroups_find(&cgroups, &err) < 0) {
        admin_report_add(report, "cgroup", ADMIN_LACKS, ADMIN_BOTH, "mount /proc", "%.200s",
                         err.msg);
        return;
    }
    char found[160] = "";
    size_t len = 0;
    for (size_t i = 0; i < ADMIN_CONTROLLERS; i++)
        len += (size_t)snprintf(found + len, sizeof(found) - len, " %s:%s", admin_controllers[i],
                                cgroups.unified[i]         ? "v2"
                                : cgroups.v1[i][0] != '\0' ? "v1"
                                                           : "none");
    int version = admin_cgroups_version(&cgroups);
    if (version != 0)
        admin_report_add(report, "cgroup", ADMIN_OK, ADMIN_NOBODY, NULL, "version %d,%s", version,
                         found);
    else
        admin_report_add(report, "cgroup", ADMIN_LACKS, ADMIN_BOTH,
                         "memory, cpu and pids must be in one hierarchy version: boot with "
                         "systemd.unified_cgroup_hierarchy=1, or mount the missing controllers",
                         "no version has all three:%s", found);
}
