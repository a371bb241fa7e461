/* The filters under the real programs: Firecracker reads the files, QEMU lives under its list, and
 * a child of ours meets the launcher's. */
#include "priv/seccomp_internal.h"
#include "tools.h"
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

static const enum priv_seccomp levels[] = {PRIV_SECCOMP_MINIMAL, PRIV_SECCOMP_BASIC,
                                           PRIV_SECCOMP_PERMISSIVE};

/* All threads filtered, each by `more` filters than this process. */
static void assert_threads_filtered(pid_t pid, unsigned more)
{
    char path[PATH_MAX];
    unsigned mode, filters, own, threads = 0;
    tools_seccomp("/proc/self/status", &mode, &own);
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    cr_assert_not_null(tasks, "%s: %m", path);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;) {
        if (entry->d_name[0] != '.') {
            snprintf(path, sizeof(path), "/proc/%d/task/%.16s/status", pid, entry->d_name);
            tools_seccomp(path, &mode, &filters);
            cr_assert_eq(mode, 2, "%s", path);
            cr_assert_eq(filters, own + more, "%s: %u filters", path, filters);
            threads++;
        }
    }
    closedir(tasks);
    cr_assert_gt(threads, 0);
}

/* Forks and executes with standard output and error at `directory`/log. `bpf` may be NULL. */
static pid_t start(const char *directory, const struct priv_bpf *bpf, const char *const *argv)
{
    char log[PATH_MAX];
    snprintf(log, sizeof(log), "%s/log", directory);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
        if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0 || chdir(directory) != 0 ||
            prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            (bpf != NULL && priv_seccomp_load(bpf) != 0)) {
            _exit(120);
        }
        execv(argv[0], (char **)(uintptr_t)argv);
        _exit(121);
    }
    return pid;
}

/* ---- Firecracker ---------------------------------------------------------------------------- */

static void put(int api, const char *path, const char *body)
{
    char request[512];
    snprintf(request, sizeof(request), "PUT %s HTTP/1.1\r\nContent-Length: %zu\r\n\r\n%s", path,
             strlen(body), body);
    tools_talk(api, request, "HTTP/1.1 204");
}

static void boot_with_level(const char *firecracker, enum priv_seccomp level)
{
    struct error err = {0};
    char directory[64], api[128];
    uint8_t kernel[1024];
    cleanup_free uint8_t *file = NULL;
    size_t len = 0;
    tools_directory(directory);
    cr_assert_eq(priv_seccomp_firecracker_file(level, "1.12.1", &file, &len, &err), 0, "%s",
                 err.msg);
    tools_write(directory, "filter", file, len);
    tools_write(directory, "kernel", kernel, tools_kernel(kernel, sizeof(kernel)));
    const char *const argv[] = {firecracker, "--seccomp-filter", "filter", "--api-sock", "api",
                                NULL};
    pid_t pid = start(directory, NULL, argv);
    snprintf(api, sizeof(api), "%s/api", directory);
    cleanup_close int fd = tools_connect(api, pid);
    tools_talk(fd, "GET / HTTP/1.1\r\n\r\n", "\"state\":\"Not started\"");
    put(fd, "/machine-config", "{\"vcpu_count\": 2, \"mem_size_mib\": 64}");
    put(fd, "/boot-source", "{\"kernel_image_path\": \"kernel\"}");
    put(fd, "/actions", "{\"action_type\": \"InstanceStart\"}");
    tools_talk(fd, "GET / HTTP/1.1\r\n\r\n", "\"state\":\"Running\"");
    assert_threads_filtered(pid, 1);
    kill(pid, SIGKILL);
    cr_assert_eq(WTERMSIG(tools_wait(pid)), SIGKILL);
    tools_remove(directory);
}

Test(priv_seccomp_live, R22_R23_firecracker_boots_under_the_file_of_each_level)
{
    char firecracker[PATH_MAX];
    if (!tools_find("firecracker", firecracker) || access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no firecracker (set MOTTE_FIRECRACKER) or no /dev/kvm");
    }
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        boot_with_level(firecracker, levels[i]);
    }
}

/* So that the test above means something: Firecracker does read the file. */
Test(priv_seccomp_live, R22_firecracker_refuses_a_file_that_ends_early)
{
    char firecracker[PATH_MAX], directory[64];
    if (!tools_find("firecracker", firecracker)) {
        cr_skip_test("no firecracker: set MOTTE_FIRECRACKER");
    }
    struct error err = {0};
    cleanup_free uint8_t *file = NULL;
    size_t len = 0;
    cr_assert_eq(priv_seccomp_firecracker_file(PRIV_SECCOMP_BASIC, "1.12.1", &file, &len, &err), 0);
    tools_directory(directory);
    tools_write(directory, "filter", file, len - 1);
    const char *const argv[] = {firecracker, "--seccomp-filter", "filter", "--api-sock", "api",
                                NULL};
    int status = tools_wait(start(directory, NULL, argv));
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) != 0 && WEXITSTATUS(status) < 120);
    tools_remove(directory);
}

/* ---- QEMU ----------------------------------------------------------------------------------- */

#define SANDBOX "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

static pid_t start_qemu(const char *qemu, const char *directory, const struct priv_bpf *bpf,
                        bool sandbox)
{
    const char *argv[48] = {qemu,
                            "-M",
                            "microvm,acpi=on",
                            "-accel",
                            "tcg,tb-size=64",
                            "-cpu",
                            "max",
                            "-m",
                            "64",
                            "-nodefaults",
                            "-no-user-config",
                            "-display",
                            "none",
                            "-no-reboot",
                            "-S",
                            "-drive",
                            "if=none,id=root,format=raw,read-only=on,file=image",
                            "-device",
                            "virtio-blk-device,drive=root",
                            "-drive",
                            "if=none,id=scratch,format=raw,discard=unmap,file=scratch",
                            "-device",
                            "virtio-blk-device,drive=scratch",
                            "-device",
                            "virtio-serial-device",
                            "-chardev",
                            "socket,id=c0,path=p0,server=on,wait=off",
                            "-device",
                            "virtserialport,chardev=c0,name=motte.0",
                            "-qmp",
                            "unix:qmp,server=on,wait=off",
                            "-serial",
                            "file:console"};
    size_t count = 0;
    while (argv[count] != NULL) {
        count++;
    }
    if (sandbox) {
        argv[count++] = "-sandbox";
        argv[count++] = SANDBOX;
    }
    return start(directory, bpf, argv);
}

#define QEMU_IO(command)                                                                           \
    "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"qemu-io scratch "    \
    "\\\"" command "\\\"\"}}\n"

/* The block layer as a guest would use it, then an orderly end. */
static void use_qemu(int qmp)
{
    tools_talk(qmp, "", "\"QMP\"");
    tools_talk(qmp, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"");
    tools_talk(qmp, "{\"execute\":\"query-status\"}\n", "\"prelaunch\"");
    tools_talk(qmp, QEMU_IO("write -P 7 0 64k"), "\"return\"");
    tools_talk(qmp, QEMU_IO("writev 64k 4k 4k"), "\"return\"");
    tools_talk(qmp, QEMU_IO("write -z 0 32k"), "\"return\"");
    tools_talk(qmp, QEMU_IO("discard 0 64k"), "\"return\"");
    tools_talk(qmp, QEMU_IO("flush"), "\"return\"");
    tools_talk(qmp, "{\"execute\":\"cont\"}\n", "\"RESUME\"");
    tools_talk(qmp, "{\"execute\":\"stop\"}\n", "\"STOP\"");
    tools_talk(qmp, "{\"execute\":\"quit\"}\n", "\"SHUTDOWN\"");
}

/* qemu-io reports on standard output only, failures too. */
static void assert_disk_used(const char *directory)
{
    static const char *const reports[] = {"wrote 65536/65536", "wrote 8192/8192",
                                          "wrote 32768/32768", "discard 65536/65536"};
    char path[128], log[8192];
    snprintf(path, sizeof(path), "%s/log", directory);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, log, sizeof(log)), 0, "%s: %m", path);
    for (size_t i = 0; i < COUNT_OF(reports); i++) {
        cr_assert_not_null(strstr(log, reports[i]), "no \"%s\" in: %s", reports[i], log);
    }
}

static void run_qemu(const char *qemu, enum priv_seccomp level, bool sandbox)
{
    struct error err = {0};
    char directory[64], path[128];
    cleanup(priv_bpf_release) struct priv_bpf bpf = {0};
    static const uint8_t disk[1 << 20] = {1};
    cr_assert_eq(priv_seccomp_qemu(level, &bpf, &err), 0, "%s", err.msg);
    tools_directory(directory);
    tools_write(directory, "image", disk, sizeof(disk));
    tools_write(directory, "scratch", disk, sizeof(disk));
    pid_t pid = start_qemu(qemu, directory, &bpf, sandbox);
    snprintf(path, sizeof(path), "%s/qmp", directory);
    cleanup_close int qmp = tools_connect(path, pid);
    snprintf(path, sizeof(path), "%s/p0", directory);
    cleanup_close int port = tools_connect(path, pid);
    assert_threads_filtered(pid, sandbox ? 2 : 1);
    use_qemu(qmp);
    int status = tools_wait(pid);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
    assert_disk_used(directory);
    tools_remove(directory);
}

Test(priv_seccomp_live, R22_R23_qemu_works_under_each_level)
{
    char qemu[PATH_MAX];
    if (!tools_find("qemu-system-x86_64", qemu)) {
        cr_skip_test("no qemu-system-x86_64");
    }
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        run_qemu(qemu, levels[i], false);
    }
}

Test(priv_seccomp_live, R22_qemu_works_under_our_filter_and_its_own)
{
    char qemu[PATH_MAX];
    if (!tools_find("qemu-system-x86_64", qemu)) {
        cr_skip_test("no qemu-system-x86_64");
    }
    run_qemu(qemu, PRIV_SECCOMP_MINIMAL, true);
}

/* ---- one call in a child under a filter -------------------------------------------------------
 */

/* Runs `act` in a child under the program; returns the child's status. */
static int under(const struct priv_bpf *bpf, int (*act)(void *), void *context)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || priv_seccomp_load(bpf) != 0) {
            _exit(120);
        }
        _exit(act(context));
    }
    return tools_wait(pid);
}

static int act_inet(void *context)
{
    (void)context;
    return socket(AF_INET, SOCK_STREAM, 0) < 0;
}

static int act_unix(void *context)
{
    (void)context;
    return socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0;
}

static int act_fork(void *context)
{
    (void)context;
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    return pid < 0;
}

static int act_exec(void *context)
{
    (void)context;
    execl("/bin/true", "true", NULL);
    return 1;
}

static int act_absent(void *context)
{
    (void)context;
    bool clone3 = syscall(SYS_clone3, NULL, 0) == -1 && errno == ENOSYS;
    bool uring = syscall(SYS_io_uring_setup, 1, NULL) == -1 && errno == ENOSYS;
    return !(clone3 && uring);
}

Test(priv_seccomp_live, R22_qemus_filter_stops_what_it_should_and_no_more)
{
    /* execve must stay allowed: the filter is loaded before QEMU is executed. QEMU's own sandbox
     * takes it away once it runs. */
    static const struct {
        int (*act)(void *);
        bool killed;
    } cases[] = {{act_inet, true},
                 {act_unix, false},
                 {act_fork, true},
                 {act_exec, false},
                 {act_absent, false}};
    struct error err = {0};
    cleanup(priv_bpf_release) struct priv_bpf bpf = {0};
    cr_assert_eq(priv_seccomp_qemu(PRIV_SECCOMP_MINIMAL, &bpf, &err), 0, "%s", err.msg);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        int status = under(&bpf, cases[i].act, NULL);
        if (cases[i].killed) {
            cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "case %zu: %#x", i,
                      (unsigned)status);
        } else {
            cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "case %zu: %#x", i,
                      (unsigned)status);
        }
    }
}

/* ---- the launcher's deny-list -----------------------------------------------------------------
 */

static long call_nonsense(int nr)
{
    return syscall(nr, -1L, -1L, -1L, -1L, -1L, -1L);
}

/* Exit status: 0, or 1 + the index of the first rule that did not answer EPERM. */
static int act_denied(void *context)
{
    (void)context;
    for (size_t i = 0; i < priv_seccomp_launcher_rule_count; i++) {
        errno = 0;
        if (call_nonsense(priv_seccomp_launcher_rules[i].nr) != -1 || errno != EPERM) {
            return 1 + (int)i;
        }
    }
    return 0;
}

/* What the launcher needs for a jail; returns the number of the step that failed. */
static int make_jail(const char *directory)
{
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("jail", directory, "tmpfs", MS_NOSUID, "size=1m") != 0 || chdir(directory) != 0) {
        return 1;
    }
    if (mknod("null", S_IFCHR | 0600, makedev(1, 3)) != 0 || chown("null", 12345, 12345) != 0) {
        return 2;
    }
    int tree = (int)syscall(SYS_open_tree, AT_FDCWD, "/usr", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0 || mkdir("usr", 0755) != 0 ||
        syscall(SYS_move_mount, tree, "", AT_FDCWD, "usr", MOVE_MOUNT_F_EMPTY_PATH) != 0) {
        return 3;
    }
    if (syscall(SYS_pivot_root, ".", ".") != 0 || umount2(".", MNT_DETACH) != 0) {
        return 4;
    }
    if (setgid(12345) != 0 || setuid(12345) != 0 || socket(AF_UNIX, SOCK_STREAM, 0) < 0) {
        return 5;
    }
    return 0;
}

static int act_launch(void *context)
{
    struct clone_args args = {.flags = CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
                                       CLONE_NEWUTS,
                              .exit_signal = SIGCHLD};
    pid_t pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    int status = -1;
    if (pid == 0) {
        _exit(make_jail(context));
    }
    return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

Test(priv_seccomp_live, launcher_denies_each_call_and_leaves_what_a_launch_needs)
{
    struct error err = {0};
    char directory[64];
    cleanup(priv_bpf_release) struct priv_bpf bpf = {0};
    cr_assert_eq(priv_seccomp_launcher(&bpf, &err), 0, "%s", err.msg);
    int status = under(&bpf, act_denied, NULL);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "rule %d", WEXITSTATUS(status) - 1);
    tools_directory(directory);
    status = under(&bpf, act_launch, directory);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "step %d", WEXITSTATUS(status));
    tools_remove(directory);
}

/* Filters add up: a VMM that brings its own cannot undo the launcher's. */
static int act_second_filter(void *context)
{
    return priv_seccomp_load(context) != 0 || act_denied(NULL) != 0;
}

Test(priv_seccomp_live, the_launchers_list_holds_under_a_permissive_filter)
{
    struct error err = {0};
    cleanup(priv_bpf_release) struct priv_bpf outer = {0}, inner = {0};
    cr_assert_eq(priv_seccomp_launcher(&outer, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_seccomp_firecracker(PRIV_SECCOMP_PERMISSIVE, PRIV_THREAD_VMM, &inner, &err),
                 0, "%s", err.msg);
    int status = under(&outer, act_second_filter, &inner);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
