/* Firecracker's jail, twice: with nothing around it, and with all that Motte makes. */
#include "bench/floor/floor.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>

void floor_command_init(const struct floor_vm *vm, const char *base, struct floor_command *command)
{
    const struct floor *floor = vm->floor;
    bool filtered = floor->filter_len > 0;
    snprintf(command->uid, sizeof(command->uid), "%u", vm->slot.uid);
    snprintf(command->base, sizeof(command->base), "%s", base);
    const char *const argv[] = {floor->jailer,
                                "--id",
                                vm->slot.instance,
                                "--exec-file",
                                floor->vmm,
                                "--uid",
                                command->uid,
                                "--gid",
                                command->uid,
                                "--chroot-base-dir",
                                command->base,
                                "--cgroup-version",
                                "1",
                                "--",
                                "--api-sock",
                                "/api.sock",
                                floor->guarded ? "--log-path" : NULL,
                                "/log",
                                filtered ? "--seccomp-filter" : NULL,
                                "/seccomp.bpf"};
    memset(command->argv, 0, sizeof(command->argv));
    for (size_t i = 0; i < COUNT_OF(argv) && argv[i] != NULL; i++)
        memcpy(&command->argv[i], &argv[i], sizeof(argv[i])); /* execve wants them without const */
}

static int output(void)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* ---- bare ------------------------------------------------------------------------------------ */

static void bare_path(const struct floor_vm *vm, const char *tail, char out[static FLOOR_PATH_MAX])
{
    snprintf(out, FLOOR_PATH_MAX, "%.128s/firecracker/%s%s", vm->floor->work, vm->slot.instance,
             tail);
}

static void copy(const struct floor_vm *vm, int from, const char *name)
{
    struct stat st;
    off_t at = 0;
    cleanup_close int to = openat(vm->root, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    bench_must(to >= 0 && fstat(from, &st) == 0, name);
    while (at < st.st_size)
        bench_must(sendfile(to, from, &at, (size_t)(st.st_size - at)) > 0, name);
}

void floor_bare_prepare(struct floor_vm *vm)
{
    char path[FLOOR_PATH_MAX];
    bare_path(vm, "/root", path);
    bench_must(fs_mkdir_p(path, 0755) == 0, path);
    vm->root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    bench_must(vm->root >= 0, path);
    copy(vm, vm->floor->kernel, "kernel");
    copy(vm, vm->floor->disk, "disk");
}

void floor_bare_launch(struct floor_vm *vm)
{
    struct floor_command command;
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&vm->pidfd, .exit_signal = SIGCHLD};
    floor_make_hello(vm);
    floor_command_init(vm, vm->floor->work, &command);
    cleanup_close int null = output();
    vm->pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    if (vm->pid == 0) {
        if (dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && dup2(null, 2) >= 0)
            execv(command.argv[0], command.argv);
        _exit(127);
    }
    bench_must(vm->pid > 0, "a process");
}

void floor_bare_remove(const struct floor_vm *vm)
{
    char path[FLOOR_PATH_MAX];
    bare_path(vm, "", path);
    bench_must(fs_remove_tree(AT_FDCWD, path) == 0, path);
}

/* ---- guarded ----------------------------------------------------------------------------------- */

static void make_binds(const struct floor_vm *vm, struct floor_jail *jail)
{
    const struct floor *floor = vm->floor;
    floor_jail_bind(vm, jail, floor->disk, "disk", FLOOR_DATA);
    floor_jail_bind(vm, jail, floor->kernel, "kernel", FLOOR_DATA);
    if (floor->state < 0)
        return;
    floor_jail_bind(vm, jail, floor->state, "restore.state", FLOOR_DATA);
    floor_jail_bind(vm, jail, floor->memory, "restore.memory", FLOOR_DATA);
}

static void make_files(struct floor_vm *vm)
{
    const struct floor *floor = vm->floor;
    uint32_t uid = vm->slot.uid;
    cleanup_close int filter =
        openat(vm->root, "seccomp.bpf", O_WRONLY | O_CREAT | O_CLOEXEC, 0440);
    bench_must(filter >= 0 && fs_write_all(filter, floor->filter, floor->filter_len) == 0 &&
                   fchown(filter, 0, uid) == 0,
               "the seccomp filter");
    bench_must(mkfifoat(vm->root, "log", 0600) == 0 && fchownat(vm->root, "log", uid, uid, 0) == 0,
               "the log");
    vm->log = openat(vm->root, "log", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bench_must(vm->log >= 0, "the log");
}

void floor_guarded_launch(struct floor_vm *vm)
{
    char path[FLOOR_PATH_MAX];
    int console[2];
    struct floor_command command;
    struct floor_jail jail;
    floor_jail_init(&jail);
    bench_must(mkdirat(jail.base, "firecracker", 0755) == 0, "a directory");
    snprintf(path, sizeof(path), "firecracker/%s", vm->slot.instance);
    bench_must(mkdirat(jail.base, path, 0755) == 0, "a directory");
    snprintf(path, sizeof(path), "firecracker/%s/root", vm->slot.instance);
    bench_must(mkdirat(jail.base, path, 0755) == 0, "a directory");
    vm->root = openat(jail.base, path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    make_binds(vm, &jail);
    floor_make_hello(vm);
    make_files(vm);
    bench_must(pipe2(console, O_CLOEXEC | O_NONBLOCK) == 0, "a pipe");
    vm->console = console[0];
    jail.output = console[1];
    jail.files = FLOOR_FILES;
    floor_command_init(vm, vm->floor->work, &command);
    jail.argv = command.argv;
    floor_jail_launch(vm, &jail);
}
