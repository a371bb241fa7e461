/* See bench.h: setting up and tearing down. */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

/* Read by LeakSanitizer: Criterion 2.4's runner sometimes loses 48 bytes of its own. */
__attribute__((visibility("default"))) const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libcriterion\n";
}

static uint64_t own_namespace(void)
{
    struct stat st;
    CHECK(stat("/proc/thread-self/ns/net", &st) == 0);
    return st.st_ino;
}

static void find_program(const char *variable, const char *name, char *out, size_t size)
{
    const char *told = getenv(variable), *path = getenv("PATH");
    char places[4096];
    if (told != NULL) {
        snprintf(out, size, "%s", told);
        return;
    }
    snprintf(places, sizeof(places), "%s:/usr/local/bin:/opt/motte-tools",
             path == NULL ? "" : path);
    char *rest = places;
    for (char *place; (place = strsep(&rest, ":")) != NULL;) {
        snprintf(out, size, "%s/%s", place, name);
        if (place[0] == '/' && access(out, X_OK) == 0)
            return;
    }
    fprintf(stderr, "no %s: set %s or put it on PATH\n", name, variable);
    exit(1);
}

static void write_file(const char *directory, const char *name, const void *data, size_t len)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    cleanup_close int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);
    CHECK(fd >= 0 && fs_write_all(fd, data, len) == 0);
}

static void make_kernel(struct bench *bench)
{
    static const char scratch[4096] = "an empty file system";
    char path[160], manifest[512], kernel_hex[HASH_HEX_SIZE], scratch_hex[HASH_HEX_SIZE];
    uint8_t digest[HASH_SIZE];
    cleanup_free char *elf = malloc(1 << 20);
    ssize_t len = fs_read_at(AT_FDCWD, MOTTE_TESTGUEST, elf, 1 << 20);
    if (len <= 0) {
        fprintf(stderr, "no test guest at %s: build the target testguest\n", MOTTE_TESTGUEST);
        exit(1);
    }
    hash_sha256(elf, (size_t)len, digest);
    hash_to_hex(digest, HASH_SIZE, kernel_hex);
    hash_sha256(scratch, sizeof(scratch), digest);
    hash_to_hex(digest, HASH_SIZE, scratch_hex);
    snprintf(path, sizeof(path), "%s/kernels/guest", bench->state);
    CHECK(fs_mkdir_p(path, 0755) == 0);
    write_file(path, "vmlinux", elf, (size_t)len);
    write_file(path, "scratch", scratch, sizeof(scratch));
    int n = snprintf(manifest, sizeof(manifest), "vmlinux = %s\nscratch = %s\n", kernel_hex,
                     scratch_hex);
    write_file(path, "manifest", manifest, (size_t)n);
}

static void make_image(struct bench *bench)
{
    enum { DISK_SIZE = 65536 };
    char path[160], manifest[512], hex[HASH_HEX_SIZE];
    cleanup_free char *disk = malloc(DISK_SIZE);
    memset(disk, 'd', DISK_SIZE);
    hash_sha256(disk, DISK_SIZE, bench->image);
    hash_to_hex(bench->image, HASH_SIZE, hex);
    snprintf(path, sizeof(path), "%s/images/test", bench->state);
    CHECK(fs_mkdir_p(path, 0755) == 0);
    write_file(path, "disk", disk, DISK_SIZE);
    int n = snprintf(manifest, sizeof(manifest),
                     "digest = %s\nsize = %d\nkernel = guest\ncreated = 1767225600000\n", hex,
                     DISK_SIZE);
    write_file(path, "manifest", manifest, (size_t)n);
}

/* The lock of the firewall is the host's; in a mount namespace of its own a test has its own, and
 * does not wait for other tests. */
static void make_lock(void)
{
    static const char lock[] = "/run/xtables.lock";
    char path[] = "/tmp/motte-lock-XXXXXX";
    cleanup_close int there = open(lock, O_RDONLY | O_CREAT | O_CLOEXEC, 0600);
    cleanup_close int own = mkstemp(path);
    CHECK(there >= 0 && own >= 0 && mount(path, lock, NULL, MS_BIND, NULL) == 0);
    CHECK(unlink(path) == 0);
}

static void make_namespaces(void)
{
    uint64_t outside = own_namespace();
    if (unshare(CLONE_NEWNET | CLONE_NEWNS) < 0 || own_namespace() == outside) {
        fputs("refused: no fresh network namespace (run as root)\n", stderr);
        exit(1);
    }
    CHECK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0);
}

static void remove_all(struct bench *bench)
{
    struct error err = {0};
    if (priv_server_open(&bench->config, &bench->server, &err) < 0 ||
        priv_server_purge(bench->server, &err) < 0) {
        fprintf(stderr, "purging: %s\n", err.msg);
        exit(1);
    }
    priv_server_free(bench->server);
    umount2("/run/xtables.lock", MNT_DETACH);
    cleanup_close int tmp = open("/tmp", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(fs_remove_tree(tmp, bench->directory + strlen("/tmp/")) == 0);
}

/* A grandchild that outlives a failed test: when the test has ended without bench_close(), it
 * removes what the test left. */
static void start_janitor(const struct bench *bench)
{
    int ends[2];
    char byte;
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid > 0) {
        close(ends[0]);
        CHECK(waitpid(pid, NULL, 0) == pid);
        return; /* ends[1] stays open as long as the test lives */
    }
    if (fork() > 0)
        _exit(0);
    struct bench left = *bench;
    close(ends[1]);
    signal(SIGINT, SIG_IGN);
    while (read(ends[0], &byte, 1) < 0)
        ;
    if (access(left.directory, F_OK) == 0) {
        left.config.hypervisor = 0;
        remove_all(&left);
    }
    _exit(0);
}

void bench_init(struct bench *bench)
{
    make_namespaces();
    signal(SIGPIPE, SIG_IGN);
    memset(bench, 0, sizeof(*bench));
    bench->raw = bench->served = -1;
    snprintf(bench->directory, sizeof(bench->directory), "/tmp/motte-bench-XXXXXX");
    CHECK(mkdtemp(bench->directory) != NULL && chmod(bench->directory, 0755) == 0);
    snprintf(bench->run, sizeof(bench->run), "%s/run", bench->directory);
    snprintf(bench->state, sizeof(bench->state), "%s/state", bench->directory);
    snprintf(bench->cgroup, sizeof(bench->cgroup), "motte-bench-%d", (int)getpid());
    find_program("MOTTE_FIRECRACKER", "firecracker", bench->firecracker,
                 sizeof(bench->firecracker));
    find_program("MOTTE_JAILER", "jailer", bench->jailer, sizeof(bench->jailer));
    make_lock();
    make_kernel(bench);
    make_image(bench);
    bench->config = (struct priv_config){.run_dir = bench->run,
                                         .state_dir = bench->state,
                                         .cgroup = bench->cgroup,
                                         .firecracker = bench->firecracker,
                                         .jailer = bench->jailer,
                                         .qemu = "/usr/bin/qemu-system-x86_64",
                                         .hypervisor = PRIV_FIRECRACKER,
                                         .uid_base = 1879048192,
                                         .uid_count = 65536,
                                         .front_gid = 65534,
                                         .max_vms = 64,
                                         .max_vcpus = 32,
                                         .max_memory_mib = 4096,
                                         .max_disk_mib = 1024,
                                         .max_snapshots = 8,
                                         .max_io_mib_s = 512,
                                         .max_iops = 20000,
                                         .total_memory_mib = 16384};
    start_janitor(bench);
}

static void *serve(void *context)
{
    struct bench *bench = context;
    struct error err = {0};
    if (priv_server_run(bench->server, bench->served, &err) < 0) {
        fprintf(stderr, "priv_server_run: %s\n", err.msg);
        exit(1);
    }
    return NULL;
}

void bench_serve(struct bench *bench, bool raw)
{
    struct error err = {0};
    int pair[2];
    if (bench->server == NULL && priv_server_open(&bench->config, &bench->server, &err) < 0) {
        fprintf(stderr, "priv_server_open: %s\n", err.msg);
        exit(1);
    }
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
    bench->served = pair[0];
    CHECK(pthread_create(&bench->thread, NULL, serve, bench) == 0);
    if (raw)
        bench->raw = pair[1];
    else
        CHECK(priv_client_new(pair[1], &bench->client, &err) == 0);
}

void bench_settle(const struct bench *bench)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    struct priv_host host = {0};
    do {
        CHECK(clock_left_ms(deadline) > 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        priv_firewall_host(bench->server->firewall, &host);
    } while (host.firewall_spares == 0);
}

size_t bench_fds(void)
{
    enum { LOOKS = 50 };
    size_t least = pair_open_fds();
    for (int i = 0; i < LOOKS; i++) {
        size_t now = pair_open_fds();
        least = now < least ? now : least;
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    return least;
}

bool bench_fds_are(size_t before)
{
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    while (pair_open_fds() != before && clock_left_ms(deadline) > 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return pair_open_fds() == before;
}

void bench_stop(struct bench *bench)
{
    if (bench->served < 0)
        return;
    cleanup_close_func(&bench->raw);
    priv_client_free(bench->client);
    bench->raw = -1;
    bench->client = NULL;
    CHECK(pthread_join(bench->thread, NULL) == 0);
    close(TAKE_FD(bench->served));
    priv_server_free(bench->server);
    bench->server = NULL;
}

void bench_close(struct bench *bench)
{
    bench_stop(bench);
    remove_all(bench);
}

struct priv_request bench_request(enum priv_op op, const char *instance)
{
    struct priv_request request = {.protocol = PRIV_PROTOCOL, .op = op, .id = 77};
    if (instance != NULL)
        snprintf(request.instance, sizeof(request.instance), "%s", instance);
    return request;
}

struct priv_reply bench_ask(struct bench *bench, const void *bytes, size_t len, const int *fds,
                            size_t fd_count)
{
    struct priv_reply reply;
    pair_send(bench->raw, bytes, len, fds, fd_count);
    CHECK(recv(bench->raw, &reply, sizeof(reply), MSG_CMSG_CLOEXEC) == (ssize_t)sizeof(reply));
    return reply;
}
