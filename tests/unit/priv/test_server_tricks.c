/* A VMM that its guest took over owns the directory its sockets lie in: whatever it puts there in
 * their place, the root half follows nothing, waits for nobody, and no file of the host's changes. */
#include "break_out.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

enum { PROMPT_MS = 2000, JAIL_MAX = 16 << 20, INODES_MAX = 256, BLOCK = 65536 };

static struct bench bench;
static struct bench_vm vm;

/* ---- what of the host must stay as it is: a file, a socket that somebody listens on ---- */

struct victim {
    char file[100], sock[100], up[160], way[160];
    int listener;
    struct stat before[2];
};

static struct victim victim;

static void make_victim(void)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(victim.file, sizeof(victim.file), "%s/victim", bench.directory);
    snprintf(victim.sock, sizeof(victim.sock), "%s/victim.sock", bench.directory);
    snprintf(victim.up, sizeof(victim.up), "../../../../../../..%s", victim.file);
    snprintf(victim.way, sizeof(victim.way), "/proc/self/root%s", victim.sock);
    cleanup_close int fd = open(victim.file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    cr_assert_eq(write(fd, "mine", 4), 4);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", victim.sock);
    victim.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(victim.listener, (struct sockaddr *)&at, sizeof(at)), 0);
    cr_assert_eq(listen(victim.listener, 4), 0);
    cr_assert_eq(chmod(victim.sock, 0600), 0);
    cr_assert_eq(stat(victim.file, &victim.before[0]), 0);
    cr_assert_eq(stat(victim.sock, &victim.before[1]), 0);
}

static void assert_victim(const char *after)
{
    const char *paths[] = {victim.file, victim.sock};
    for (size_t i = 0; i < COUNT_OF(paths); i++) {
        struct stat now;
        const struct stat *was = &victim.before[i];
        cr_assert_eq(stat(paths[i], &now), 0, "%s is gone after %s", paths[i], after);
        cr_expect(now.st_mode == was->st_mode && now.st_uid == was->st_uid &&
                      now.st_gid == was->st_gid && now.st_size == was->st_size &&
                      now.st_mtime == was->st_mtime && now.st_nlink == was->st_nlink,
                  "%s is another after %s", paths[i], after);
    }
    cr_expect_eq(accept(victim.listener, NULL, NULL), -1, "somebody called after %s", after);
}

/* ---- the tricks, in the jail, under the VM's uid ---- */

struct trick {
    const char *name;
    int (*make)(const char *at);
    bool harmless; /* something of the VM's own: may be opened */
};

static int link_file(const char *at)
{
    return symlink(victim.file, at);
}
static int link_up(const char *at)
{
    return symlink(victim.up, at);
}
static int link_socket(const char *at)
{
    return symlink(victim.sock, at);
}
static int link_magic(const char *at)
{
    return symlink(victim.way, at);
}
static int link_nowhere(const char *at)
{
    return symlink("nowhere", at);
}
static int link_itself(const char *at)
{
    return symlink(at, at);
}
static int link_true(const char *at)
{
    return symlink("kept", at);
}
static int make_fifo(const char *at)
{
    return mkfifo(at, 0666);
}
static int make_file(const char *at)
{
    cleanup_close int fd = open(at, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    return fd < 0 ? -1 : 0;
}
static int make_directory(const char *at)
{
    return mkdir(at, 0777);
}
static int hard_link_device(const char *at)
{
    return link("/dev/kvm", at);
}
static int hard_link_image(const char *at)
{
    return link("/disk", at) == 0 || (errno != EXDEV && errno != EPERM) ? -1 : make_file(at);
}
static int device_of_disk(const char *at)
{
    return mknod(at, S_IFBLK | 0666, makedev(8, 0)) == 0 || errno != EPERM ? -1 : make_file(at);
}
static int bind_as(const char *at, int type, int backlog)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", at);
    int fd = socket(AF_UNIX, type, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
        return -1;
    return backlog < 0 ? 0 : listen(fd, backlog); /* closed with the process: a dead socket */
}
static int datagram_socket(const char *at)
{
    return bind_as(at, SOCK_DGRAM, -1);
}
static int dead_socket(const char *at)
{
    return bind_as(at, SOCK_STREAM, 0);
}
static int hard_link_own(const char *at)
{
    return link("kept", at);
}

static const struct trick tricks[] = {
    {"a symlink to a file of the host", link_file, false},
    {"a symlink upwards", link_up, false},
    {"a symlink to a socket of the host", link_socket, false},
    {"a symlink through /proc", link_magic, false},
    {"a symlink to nowhere", link_nowhere, false},
    {"a symlink to itself", link_itself, false},
    {"a symlink to the true socket", link_true, false},
    {"a FIFO without a writer", make_fifo, false},
    {"a file", make_file, false},
    {"a directory", make_directory, false},
    {"a hard link to a device", hard_link_device, false},
    {"a file, for a hard link to the image is refused", hard_link_image, false},
    {"a file, for a device node is refused", device_of_disk, false},
    {"a datagram socket", datagram_socket, true},
    {"a dead socket", dead_socket, true},
    {"a hard link to the true socket", hard_link_own, true},
};

struct plan {
    const char *at;
    int (*make)(const char *at); /* NULL: put the true one back */
};

static int play(void *context)
{
    const struct plan *plan = context;
    if (chdir("/") < 0 || (plan->at[0] == 'v' && plan->at[1] == 'm' && chdir("/vm") < 0))
        return 1;
    const char *name = strrchr(plan->at, '/') == NULL ? plan->at : strrchr(plan->at, '/') + 1;
    if (plan->make != NULL)
        return rename(name, "kept") < 0 || plan->make(name) < 0 ? errno : 0;
    if (unlink(name) < 0 && errno == EISDIR)
        rmdir(name);
    return rename("kept", name) < 0 ? errno : 0;
}

static void in_jail(const char *at, int (*make)(const char *), const char *what)
{
    struct plan plan = {at, make};
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .then = play, .context = &plan};
    int code = break_out(&how);
    cr_assert_eq(code, 0, "%s at %s: %s", what, at, strerror(code));
}

static void try_open(const struct trick *trick, enum priv_socket what, const char *at)
{
    struct error err = {0};
    int64_t begin = clock_mono_ms();
    cleanup_close int fd = priv_open(bench.client, vm.instance, what, 0, &err);
    int64_t took = clock_mono_ms() - begin;
    cr_expect_lt(took, PROMPT_MS, "%s at %s holds OPEN for %d ms", trick->name, at, (int)took);
    cr_expect(fd < 0 || trick->harmless, "%s at %s was opened", trick->name, at);
    cr_expect(fd >= 0 || err.code == ERR_HYPERVISOR, "%s at %s: %s", trick->name, at, err.msg);
}

static void every_trick(enum priv_socket what, const char *at)
{
    struct error err = {0};
    for (size_t i = 0; i < COUNT_OF(tricks); i++) {
        const struct trick *trick = &tricks[i];
        bool qemu = bench.config.hypervisor == PRIV_QEMU;
        if (qemu && trick->make == hard_link_device)
            continue; /* QEMU's jail has no device of the VM's own */
        in_jail(at, trick->make, trick->name);
        try_open(trick, what, at);
        assert_victim(trick->name);
        in_jail(at, NULL, trick->name);
    }
    cleanup_close int fd = priv_open(bench.client, vm.instance, what, 0, &err);
    cr_assert_geq(fd, 0, "the true one: %s", err.msg);
}

static void assert_gone(void)
{
    char traces[128];
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    assert_victim("KILL");
    close(victim.listener);
    bench_close(&bench);
}

static void begin_firecracker(void)
{
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    make_victim();
}

Test(priv_tricks, R41_R26_nothing_in_the_place_of_a_socket_is_followed, .timeout = 120)
{
    struct error err = {0};
    begin_firecracker();
    every_trick(PRIV_SOCKET_API, "api.sock");
    every_trick(PRIV_SOCKET_VSOCK, "v.sock");
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_gone();
}

/* Nobody but root could put it there; what is not the VM's own is not handed out all the same. */
static int as_root(void *context)
{
    (void)context;
    return rename("/api.sock", "/kept") < 0 || dead_socket("/api.sock") < 0 ? errno : 0;
}

Test(priv_tricks, R41_a_socket_of_another_uid_is_not_given, .timeout = 60)
{
    struct error err = {0};
    begin_firecracker();
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .first = as_root};
    cr_assert_eq(break_out(&how), 0);
    cr_expect_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err), -1);
    cr_expect_eq(err.code, ERR_HYPERVISOR, "%s", err.msg);
    assert_gone();
}

/* What it leaves in its directory goes with it, and the host's files stay. */
Test(priv_tricks, R20_R41_a_jail_full_of_tricks_is_adopted_and_removed, .timeout = 120)
{
    static const char *const names[] = {"v.sock_1025", "v.sock", "api.sock", "seccomp.bpf"};
    struct error err = {0};
    begin_firecracker();
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct plan plan = {names[i], link_file};
        struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .then = play, .context = &plan};
        break_out(&how); /* the hello socket may be gone already */
    }
    assert_victim("all of them");
    bench_stop(&bench);
    bench_serve(&bench, false);
    int64_t begin = clock_mono_ms();
    cr_expect_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err), -1);
    err = (struct error){0};
    cleanup_close int console = priv_open(bench.client, vm.instance, PRIV_SOCKET_CONSOLE, 0, &err);
    cr_expect_geq(console, 0, "%s", err.msg);
    cr_expect_lt(clock_mono_ms() - begin, 2 * PROMPT_MS);
    assert_gone();
}

/* The front reads its log again after a restart; until then it has the pipe that it had. */
static void expect_no_log(const char *what)
{
    struct error err = {0};
    bench_stop(&bench);
    bench_serve(&bench, false);
    cleanup_close int fd = priv_open(bench.client, vm.instance, PRIV_SOCKET_LOG, 0, &err);
    cr_expect_lt(fd, 0, "%s was opened as the log", what);
    cr_expect_eq(err.code, ERR_HYPERVISOR, "%s: %s", what, err.msg);
    assert_victim(what);
}

static int fifo_of_root(void *context)
{
    (void)context;
    return rename("/" PRIV_LOG, "/kept") < 0 || mkfifo("/" PRIV_LOG, 0666) < 0 ? errno : 0;
}

Test(priv_tricks, R41_R26_nothing_in_the_place_of_the_log_is_read, .timeout = 120)
{
    begin_firecracker();
    for (size_t i = 0; i < COUNT_OF(tricks); i++) {
        if (tricks[i].make == make_fifo || tricks[i].make == hard_link_own)
            continue; /* a pipe of its own: what it says there is its own word */
        in_jail(PRIV_LOG, tricks[i].make, tricks[i].name);
        expect_no_log(tricks[i].name);
        in_jail(PRIV_LOG, NULL, tricks[i].name);
    }
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .first = fifo_of_root};
    cr_assert_eq(break_out(&how), 0);
    expect_no_log("a FIFO of another uid");
    assert_gone();
}

Test(priv_tricks, R41_R26_nothing_in_qemus_directory_is_followed, .timeout = 120)
{
    struct error err = {0};
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &BENCH_SHAPE);
    bench_launch(&bench, &vm);
    cleanup_close int api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(api, 0, "%s", err.msg);
    make_victim();
    every_trick(PRIV_SOCKET_API, "vm/api.sock");
    every_trick(PRIV_SOCKET_EVENTS, "vm/events.sock");
    every_trick(PRIV_SOCKET_PORT, "vm/port.0");
    in_jail("vm/console", link_file, "the console as a symlink");
    bench_stop(&bench);
    bench_serve(&bench, false);
    cleanup_close int console = priv_open(bench.client, vm.instance, PRIV_SOCKET_CONSOLE, 0, &err);
    cr_expect_geq(console, 0, "%s", err.msg);
    assert_gone();
}

/* ---- what it may write ---- */

static int spoil_files(void *context)
{
    static const char *const names[] = {"/disk", "/kernel"};
    int held = 0;
    (void)context;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        held += open(names[i], O_WRONLY | O_CLOEXEC) < 0 && (errno == EROFS || errno == EACCES);
        held += unlink(names[i]) < 0 && errno == EBUSY;
        held += rename(names[i], "/elsewhere") < 0 && errno == EBUSY;
        held += rename("/run", names[i]) < 0;
        held += chmod(names[i], 0777) < 0 && (errno == EROFS || errno == EPERM);
        held += truncate(names[i], 0) < 0 && (errno == EROFS || errno == EACCES);
    }
    return held;
}

Test(priv_tricks, R21_a_vmm_that_broke_out_cannot_replace_its_image, .timeout = 60)
{
    struct error err = {0};
    begin_firecracker();
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .then = spoil_files};
    cr_expect_eq(break_out(&how), 12);
    cr_expect_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_gone();
}

static int fill_jail(void *context)
{
    static char block[BLOCK];
    char name[16];
    size_t written = 0, files = 0;
    (void)context;
    int fd = open("/fill", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    for (ssize_t n; written <= JAIL_MAX && (n = write(fd, block, sizeof(block))) > 0;)
        written += (size_t)n;
    for (int next = 0; files <= INODES_MAX && next >= 0; files++) {
        snprintf(name, sizeof(name), "/f%zu", files);
        next = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        cleanup_close_func(&next);
    }
    return fd < 0 || written > JAIL_MAX || files > INODES_MAX;
}

Test(priv_tricks, R26_a_jail_holds_no_more_than_its_size, .timeout = 60)
{
    struct error err = {0};
    begin_firecracker();
    struct break_out how = {.vm = &vm, .place = BREAK_OUT_JAIL, .then = fill_jail};
    cr_expect_eq(break_out(&how), 0);
    cr_expect_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    assert_gone();
}

static struct rlimit file_limit(pid_t pid)
{
    static const char name[] = "Max file size";
    char path[64], text[4096];
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    snprintf(path, sizeof(path), "/proc/%d/limits", (int)pid);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, text, sizeof(text)), 0);
    char *at = strstr(text, name);
    cr_assert_not_null(at);
    limit.rlim_cur = strtoull(at + sizeof(name) - 1, &at, 10);
    limit.rlim_max = strtoull(at, NULL, 10);
    return limit;
}

static int take_limit(void *context)
{
    return setrlimit(RLIMIT_FSIZE, context) < 0;
}

/* With SIGXFSZ's default it would die of it. */
static int grow_disk(void *context)
{
    const struct rlimit *limit = context;
    signal(SIGXFSZ, SIG_IGN);
    int fd = open("/scratch", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 1;
    return pwrite(fd, "x", 1, (off_t)limit->rlim_max - 1) != 1 ||
           pwrite(fd, "x", 1, (off_t)limit->rlim_max) != -1 || errno != EFBIG ||
           ftruncate(fd, (off_t)limit->rlim_max + 1) != -1;
}

/* The scratch disk lies on the host's. */
Test(priv_tricks, R26_a_vmm_cannot_make_its_disk_longer_than_its_limit, .timeout = 60)
{
    struct rlimit limit = {0};
    struct priv_shape shape = BENCH_SHAPE;
    shape.disk_mib = 512;
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    bench_guard(&bench, &vm, &shape);
    bench_launch(&bench, &vm);
    bench_boot(&bench, &vm);
    make_victim();
    limit = file_limit(bench_pid(&vm));
    cr_assert_eq(limit.rlim_cur, (rlim_t)512 << 20);
    cr_assert_eq(limit.rlim_max, (rlim_t)512 << 20);
    struct break_out how = {.vm = &vm,
                            .place = BREAK_OUT_JAIL,
                            .first = take_limit,
                            .then = grow_disk,
                            .context = &limit};
    cr_expect_eq(break_out(&how), 0);
    assert_gone();
}
