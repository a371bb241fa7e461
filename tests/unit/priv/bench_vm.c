/* See bench.h: one VM, step by step, and what is left of it. */
#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>

static void must(int result, const char *what, const struct error *err)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, error_code_name(err->code), err->msg);
    exit(1);
}

static double since(int64_t from_us)
{
    return (double)(clock_mono_us() - from_us) / 1000;
}

void bench_reserve(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    char chain[PRIV_CHAIN_SIZE];
    memset(vm, 0, sizeof(*vm));
    vm->api = vm->guest = vm->launched.pidfd = vm->launched.console = -1;
    vm->launched.hello = vm->launched.log = -1;
    must(priv_reserve(bench->client, vm->instance, chain, &vm->uid, &err), "reserve", &err);
}

void bench_guard(struct bench *bench, struct bench_vm *vm, const struct priv_shape *shape)
{
    struct error err = {0};
    int64_t start = clock_mono_us();
    must(priv_guard(bench->client, vm->instance, shape, &err), "guard", &err);
    vm->guard_ms = since(start);
}

void bench_launch(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    int64_t start = clock_mono_us();
    must(priv_launch(bench->client, vm->instance, bench->image, &vm->launched, &err), "launch",
         &err);
    vm->launch_ms = since(start);
}

int bench_connect(int path_fd)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", path_fd);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        perror("connecting to the VMM's API");
        exit(1);
    }
    return fd;
}

int bench_api(int api, const char *method, const char *path, const char *body)
{
    char text[4096];
    cleanup_close int fd = bench_connect(api);
    int n =
        snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: vmm\r\nContent-Length: %zu\r\n\r\n%s",
                 method, path, strlen(body), body);
    CHECK(send(fd, text, (size_t)n, MSG_NOSIGNAL) == n);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
    ssize_t len = recv(fd, text, sizeof(text) - 1, 0);
    if (len <= 0)
        return 0;
    text[len] = '\0';
    int status = 0;
    CHECK(sscanf(text, "HTTP/1.1 %d", &status) == 1);
    if (status >= 300)
        fprintf(stderr, "%s %s: %s\n", method, path, text);
    return status;
}

void bench_boot(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    int64_t start = clock_mono_us();
    vm->api = priv_open(bench->client, vm->instance, PRIV_SOCKET_API, 0, &err);
    must(vm->api, "open the API", &err);
    vm->open_ms = since(start);
    CHECK(bench_api(vm->api, "PUT", "/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":64}") ==
          204);
    CHECK(bench_api(vm->api, "PUT", "/boot-source", "{\"kernel_image_path\":\"/kernel\"}") == 204);
    CHECK(bench_api(vm->api, "PUT", "/drives/disk",
                    "{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":true,"
                    "\"is_read_only\":true}") == 204);
    CHECK(bench_api(vm->api, "PUT", "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v.sock\"}") == 204);
    CHECK(bench_api(vm->api, "PUT", "/actions", "{\"action_type\":\"InstanceStart\"}") == 204);
    vm->start_ms = since(start);
    struct pollfd p = {.fd = vm->launched.hello, .events = POLLIN};
    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
    vm->guest = accept4(vm->launched.hello, NULL, NULL, SOCK_CLOEXEC);
    CHECK(vm->guest >= 0);
    vm->hello_ms = since(start);
}

void bench_up(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    bench_reserve(bench, vm);
    bench_guard(bench, vm, &BENCH_SHAPE);
    bench_launch(bench, vm);
    bench_boot(bench, vm);
    int64_t start = clock_mono_us();
    must(priv_check(bench->client, vm->instance, &err), "check", &err);
    vm->check_ms = since(start);
}

void bench_kill(struct bench *bench, struct bench_vm *vm, struct priv_killed *ret)
{
    struct error err = {0};
    must(priv_kill(bench->client, vm->instance, ret, &err), "kill", &err);
    cleanup_close_func(&vm->api);
    cleanup_close_func(&vm->guest);
    cleanup_close_func(&vm->launched.pidfd);
    cleanup_close_func(&vm->launched.console);
    cleanup_close_func(&vm->launched.hello);
    cleanup_close_func(&vm->launched.log);
}

void bench_die(const struct bench_vm *vm)
{
    struct pollfd p = {.fd = vm->launched.pidfd, .events = POLLIN};
    CHECK(syscall(SYS_pidfd_send_signal, vm->launched.pidfd, SIGKILL, NULL, 0) == 0);
    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
}

pid_t bench_pid(const struct bench_vm *vm)
{
    char path[64], text[512];
    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", vm->launched.pidfd);
    CHECK(fs_read_at(AT_FDCWD, path, text, sizeof(text)) > 0);
    const char *pid = priv_proc_field(text, "Pid");
    CHECK(pid != NULL);
    return (pid_t)strtol(pid, NULL, 10);
}

static int open_cgroup(const struct bench *bench, const char *instance, size_t i)
{
    static const char *const places[] = {"", "unified/", "memory/", "cpu/", "pids/", "blkio/"};
    char path[160];
    if (i == COUNT_OF(places))
        return -2;
    snprintf(path, sizeof(path), "/sys/fs/cgroup/%s%s/%s", places[i], bench->cgroup, instance);
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

void bench_cgroup(const struct bench *bench, const char *instance, const char *file, char *out,
                  size_t size)
{
    int fd;
    for (size_t i = 0; (fd = open_cgroup(bench, instance, i)) != -2; i++) {
        ssize_t n = fd < 0 ? -1 : fs_read_at(fd, file, out, size);
        cleanup_close_func(&fd);
        if (n >= 0) {
            out[strcspn(out, "\n")] = '\0';
            return;
        }
    }
    snprintf(out, size, "no %s", file);
}

int bench_enter(const struct bench *bench, const char *instance)
{
    int entries[PRIV_CGROUP_DIRS] = {-1, -1, -1, -1};
    struct error err = {0};
    if (priv_cgroup_entries(&bench->server->cgroups, instance, entries, &err) < 0)
        return -1;
    return priv_cgroup_enter(entries);
}

/* Does any process have the instance id in its command line? */
static bool process_left(const char *instance)
{
    bool found = false;
    DIR *dir = opendir("/proc");
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[300], text[4096];
        if (entry->d_name[0] < '1' || entry->d_name[0] > '9')
            continue;
        snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        ssize_t n = fs_read_at(AT_FDCWD, path, text, sizeof(text));
        found |= n > 0 && memmem(text, (size_t)n, instance, strlen(instance)) != NULL;
    }
    closedir(dir);
    return found;
}

static bool chain_left(const char *chain)
{
    static const char *const commands[] = {"iptables-legacy-save 2>/dev/null",
                                           "ip6tables-legacy-save 2>/dev/null",
                                           "iptables-legacy -S -t security 2>/dev/null",
                                           "ip6tables-legacy -S -t security 2>/dev/null"};
    bool found = false;
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        char line[512];
        FILE *rules = popen(commands[i], "re");
        CHECK(rules != NULL);
        while (fgets(line, sizeof(line), rules) != NULL)
            found |= strstr(line, chain) != NULL;
        pclose(rules);
    }
    return found;
}

static bool in_tables(const struct bench *bench, const char *chain)
{
    struct error err = {0};
    cleanup_free netfilter_name *names = NULL;
    size_t count = 0;
    bool found = false;
    CHECK(netfilter_list(priv_firewall_tables(bench->server->firewall), &names, &count, &err) == 0);
    for (size_t i = 0; i < count; i++)
        found |= strcmp(names[i], chain) == 0;
    return found;
}

static bool has_record(const struct bench *bench, const char *instance)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/priv/%s", bench->run, instance);
    return access(path, F_OK) == 0;
}

/* The server, this process's or motted's, has forgotten the instance: its chain goes with the next
 * commit. */
static void wait_for_commit(const struct bench *bench, const char *instance)
{
    char chain[NETFILTER_CHAIN_MAX + 1];
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    bool ours = bench->server != NULL;
    netfilter_chain_name(instance, chain);
    if (ours ? bench->server->firewall == NULL || priv_slot_find(bench->server, instance) != NULL
             : has_record(bench, instance))
        return;
    while ((ours ? in_tables(bench, chain) : chain_left(chain)) && clock_left_ms(deadline) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
}

void bench_traces(const struct bench *bench, const char *instance, char *out, size_t size)
{
    char chain[NETFILTER_CHAIN_MAX + 1], path[160];
    bool cgroup = false;
    int fd;
    wait_for_commit(bench, instance);
    netfilter_chain_name(instance, chain);
    for (size_t i = 0; (fd = open_cgroup(bench, instance, i)) != -2; i++) {
        cgroup |= fd >= 0;
        cleanup_close_func(&fd);
    }
    snprintf(path, sizeof(path), "%s/scratch/%s", bench->state, instance);
    bool scratch = access(path, F_OK) == 0;
    cleanup_free char *mounts = malloc(1 << 20);
    CHECK(fs_read_at(AT_FDCWD, "/proc/self/mountinfo", mounts, 1 << 20) > 0);
    snprintf(out, size, "%s%s%s%s%s%s", process_left(instance) ? "process " : "",
             cgroup ? "cgroup " : "", chain_left(chain) ? "chain " : "",
             has_record(bench, instance) ? "record " : "", scratch ? "scratch " : "",
             strstr(mounts, bench->run) != NULL ? "mount " : "");
}
