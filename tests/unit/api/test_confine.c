/* What a front that was taken over could still do. Each attempt is made in a process of its own, as
 * an unprivileged user, through the code that the front runs. */
#include "image/image.h"
#include "server/internal.h"
#include "tests/unit/image/catalogue.h"
#include "tests/unit/store/fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

enum {
    NOBODY = 65534,
    NOT_SET_UP = 120,
    URETPROBE =
        335, /* it and the next pass by every filter (Linux 6.14): no way but a trampoline's */
};

struct front {
    struct catalogue catalogue;
    bool with_store;
    struct store *store; /* opened by each process for itself */
    int own;             /* a TCP listener that the front has inherited */
    int other;           /* somebody else's */
    struct sockaddr_un abstract;
    struct sockaddr_in tcp;
    int path_socket; /* O_PATH, as the root half hands it */
};

/* 0: went through. Else errno. */
typedef int attempt_body(struct front *front, const void *context);

/* ---- set-up ---- */

static void listen_tcp(int *ret, struct sockaddr_in *address)
{
    socklen_t size = sizeof(*address);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    *ret = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(*ret, (const struct sockaddr *)address, size), 0);
    cr_assert_eq(listen(*ret, 8), 0);
    cr_assert_eq(getsockname(*ret, (struct sockaddr *)address, &size), 0);
}

static void listen_unix(struct sockaddr_un *address, size_t size)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address->sun_family = AF_UNIX;
    cr_assert_eq(bind(fd, (const struct sockaddr *)address, (socklen_t)size), 0);
    cr_assert_eq(listen(fd, 8), 0);
}

static void front_init(struct front *front)
{
    struct sockaddr_un path = {0};
    struct sockaddr_in unused;
    memset(front, 0, sizeof(*front));
    catalogue_init(&front->catalogue);
    catalogue_image(&front->catalogue, "debian", "disk");
    catalogue_write(&front->catalogue, "kernels/k/manifest", "");
    int dir = front->catalogue.fd;
    cr_assert_eq(mkdirat(dir, "front", 0700), 0);
    cr_assert_eq(fchownat(dir, "front", NOBODY, NOBODY, 0), 0);
    cr_assert_eq(fchmodat(dir, "images", 0777, 0), 0); /* so that permissions refuse nothing */
    cr_assert_eq(chmod(front->catalogue.path, 0777), 0);
    listen_tcp(&front->own, &unused);
    listen_tcp(&front->other, &front->tcp);
    snprintf(front->abstract.sun_path + 1, 64, "motte-confine-%d", getpid());
    listen_unix(&front->abstract, sizeof(front->abstract));
    snprintf(path.sun_path, sizeof(path.sun_path), "%s/socket", front->catalogue.path);
    listen_unix(&path, sizeof(path));
    cr_assert_eq(chmod(path.sun_path, 0777), 0);
    front->path_socket = open(path.sun_path, O_PATH | O_CLOEXEC);
    cr_assert_geq(front->path_socket, 0);
}

static int become_nobody(void)
{
    static const struct rlimit no_core = {0};
    /* A program that is started anew may be looked at by its own user; one that changed is not. */
    return setresgid(NOBODY, NOBODY, NOBODY) != 0 || setresuid(NOBODY, NOBODY, NOBODY) != 0 ||
                   prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0 || setrlimit(RLIMIT_CORE, &no_core) != 0
               ? -1
               : 0;
}

static int confine(struct front *front)
{
    struct server_confined confined;
    struct error err = {0};
    char dir[64];
    snprintf(dir, sizeof(dir), "%s/front", front->catalogue.path);
    if (become_nobody() == 0 && (!front->with_store || store_open(dir, &front->store, &err) == 0) &&
        server_confine(front->catalogue.fd, &confined, &err) == 0)
        return 0;
    fprintf(stderr, "not confined: %s\n", err.msg);
    return -1;
}

/* The status that the process ends with. */
static int status_of(struct front *front, bool confined, attempt_body *attempt, const void *context)
{
    int status = 0;
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        if ((confined ? confine(front) : become_nobody()) < 0)
            _exit(NOT_SET_UP);
        _exit(attempt(front, context));
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_neq(status, NOT_SET_UP << 8);
    return status;
}

/* ---- system calls ---- */

struct call {
    const char *what;
    long nr;
    long args[6];
};

static int make_call(struct front *front, const void *context)
{
    const struct call *call = context;
    const long *a = call->args;
    (void)front;
    return syscall(call->nr, a[0], a[1], a[2], a[3], a[4], a[5]) < 0 ? errno : 0;
}

static void assert_ends(struct front *front, const struct call *call)
{
    int status = status_of(front, true, make_call, call);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s (%ld): status %x", call->what,
              call->nr, (unsigned)status);
}

Test(server_confine, R41_what_the_table_does_not_name_ends_the_front, .timeout = 120)
{
    struct front front;
    bool named[512] = {false};
    front_init(&front);
    for (size_t i = 0; i < server_rule_count; i++)
        named[server_rules[i].nr] = true;
    named[URETPROBE] = named[URETPROBE + 1] = true;
    for (long nr = 0; nr < (long)COUNT_OF(named); nr++)
        if (!named[nr])
            assert_ends(&front, &(struct call){.what = "not named", .nr = nr});
    assert_ends(&front, &(struct call){.what = "x32", .nr = 0x40000000 | SYS_getpid});
    catalogue_release(&front.catalogue);
}

Test(server_confine, R41_conditions_on_arguments_hold, .timeout = 120)
{
    const struct call calls[] = {
        {"a process", SYS_clone, {SIGCHLD}},
        {"a process in a user namespace", SYS_clone, {CLONE_NEWUSER | SIGCHLD}},
        {"TCP", SYS_socket, {AF_INET, SOCK_STREAM}},
        {"TCP over IPv6", SYS_socket, {AF_INET6, SOCK_STREAM}},
        {"netlink", SYS_socket, {AF_NETLINK, SOCK_RAW}},
        {"vsock", SYS_socket, {AF_VSOCK, SOCK_STREAM}},
        {"the kernel's ciphers", SYS_socket, {AF_ALG, SOCK_SEQPACKET}},
        {"packets", SYS_socket, {AF_PACKET, SOCK_RAW}},
        {"a pair of another family", SYS_socketpair, {AF_INET, SOCK_STREAM}},
        {"code", SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1}},
        {"memory made code", SYS_mprotect, {0, 4096, PROT_EXEC}},
        {"memory for children only", SYS_madvise, {0, 4096, MADV_DONTFORK}},
        {"dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1}},
        {"a signal to init", SYS_tgkill, {1, 1, SIGABRT}},
        {"a signal to the parent", SYS_tgkill, {getpid(), getpid(), SIGABRT}},
        {"descriptor's signals", SYS_fcntl, {0, F_SETOWN, 1}},
        {"a lease", SYS_fcntl, {0, F_SETLEASE, F_WRLCK}},
        {"netfilter's table", SYS_getsockopt, {0, IPPROTO_IP, 64}},
        {"a bigger buffer", SYS_setsockopt, {0, SOL_SOCKET, SO_SNDBUF}},
        {"TCP's protocol on top", SYS_setsockopt, {0, IPPROTO_TCP, 31}},
    };
    struct front front;
    front_init(&front);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        assert_ends(&front, &calls[i]);
    catalogue_release(&front.catalogue);
}

Test(server_confine, R41_clone3_looks_absent_so_that_libc_uses_clone)
{
    struct front front;
    const struct call call = {"clone3", SYS_clone3, {0}};
    front_init(&front);
    cr_assert_eq(status_of(&front, true, make_call, &call), ENOSYS << 8);
    catalogue_release(&front.catalogue);
}

/* ---- files and sockets ---- */

struct reach {
    attempt_body *attempt;
    const char *path;
    int flags;
    int abi; /* landlock's, that refuses it */
};

static int try_open(struct front *front, const void *context)
{
    const struct reach *reach = context;
    int dir = front->catalogue.fd;
    return openat(dir, reach->path, reach->flags | O_CLOEXEC, 0600) < 0 ? errno : 0;
}

/* A listening socket becomes a connecting one. */
static int try_tcp(struct front *front, const void *context)
{
    const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    (void)context;
    shutdown(front->own, SHUT_RDWR);
    connect(front->own, &nowhere, sizeof(nowhere)); /* all attempts share the socket */
    const struct sockaddr *to = (const struct sockaddr *)&front->tcp;
    return connect(front->own, to, sizeof(front->tcp)) < 0 ? errno : 0;
}

static int try_abstract(struct front *front, const void *context)
{
    (void)context;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr *to = (const struct sockaddr *)&front->abstract;
    return connect(fd, to, sizeof(front->abstract)) < 0 ? errno : 0;
}

static long landlock_abi(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1);
    return abi < 0 ? 0 : abi;
}

/* Each goes through for the same user unconfined: it is landlock that refuses. */
Test(server_confine, R41_only_the_fronts_own_files_and_sockets_are_there, .timeout = 60)
{
    static const struct reach reaches[] = {
        {try_open, "/etc/hostname", O_RDONLY, 1},
        {try_open, "/etc/passwd", O_RDONLY, 1},
        {try_open, "/bin/true", O_RDONLY, 1},
        {try_open, "/", O_RDONLY | O_DIRECTORY, 1},
        {try_open, "/dev/null", O_RDWR, 1},
        {try_open, "/proc/1/status", O_RDONLY, 1},
        {try_open, "/proc/self/exe", O_RDONLY, 1},
        {try_open, "/proc/self/root/etc/passwd", O_RDONLY, 1},
        {try_open, "/proc/self/oom_score_adj", O_WRONLY, 1},
        {try_open, "/proc/self/mem", O_RDWR, 1},
        {try_open, "/proc/sys/kernel/osrelease", O_RDONLY, 1},
        {try_open, "new", O_WRONLY | O_CREAT, 1},
        {try_open, "images/new", O_WRONLY | O_CREAT, 1},
        {try_abstract, "an abstract socket", 0, 6},
        {try_tcp, "TCP from a listener", 0, 4},
    };
    struct front front;
    front_init(&front);
    for (size_t i = 0; i < COUNT_OF(reaches); i++) {
        const struct reach *reach = &reaches[i];
        int confined = status_of(&front, true, reach->attempt, reach);
        cr_assert_eq(status_of(&front, false, reach->attempt, reach), 0, "%s", reach->path);
        if (landlock_abi() >= reach->abi)
            cr_assert(confined == EACCES << 8 || confined == EPERM << 8, "%s: status %x",
                      reach->path, (unsigned)confined);
        else
            cr_assert_eq(confined, 0, "%s: status %x", reach->path, (unsigned)confined);
    }
    catalogue_release(&front.catalogue);
}

/* ---- what it needs ---- */

static void *work(void *context)
{
    char *text = realloc(malloc(1 << 20), 8 << 20);
    memset(text, *(const int *)context, 8 << 20);
    free(text);
    return NULL;
}

static int use_store(struct front *front, const void *context)
{
    struct error err = {0};
    struct store_totals totals = {0};
    (void)context;
    for (int i = 0; i < 400; i++) { /* over a checkpoint of the log */
        char id[16];
        snprintf(id, sizeof(id), "vm-%d", i);
        fixture_end(front->store, fixture_add(front->store, "me", id).instance);
    }
    int result = store_totals(front->store, &totals, &err);
    store_close(front->store);
    return result == 0 ? 0 : EIO;
}

static int use_catalogue(struct front *front, const void *context)
{
    struct error err = {0};
    struct image *images = NULL;
    size_t count = 0;
    (void)context;
    if (image_list(front->catalogue.fd, &images, &count, &err) < 0)
        return EIO;
    free(images);
    return count == 1 ? 0 : ENOENT;
}

static int use_threads(struct front *front, const void *context)
{
    pthread_t threads[16];
    int value = 1;
    (void)context;
    (void)front;
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        if (pthread_create(&threads[i], NULL, work, &value) != 0)
            return EAGAIN;
    for (size_t i = 0; i < COUNT_OF(threads); i++)
        pthread_join(threads[i], NULL);
    return eventfd(0, EFD_CLOEXEC) < 0 ? errno : 0;
}

/* As the engine reaches a VMM: by a descriptor of its socket. */
static int use_socket(struct front *front, const void *context)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    (void)context;
    snprintf(to.sun_path, sizeof(to.sun_path), "/proc/self/fd/%d", front->path_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0 ? errno : 0;
}

static int use_proc(struct front *front, const void *context)
{
    char boot[ID_BOOT_SIZE], text[4096];
    struct error err = {0};
    (void)context;
    (void)front;
    DIR *dir = opendir("/proc/self/fd");
    if (dir == NULL || readdir(dir) == NULL || closedir(dir) != 0 ||
        fs_read_at(AT_FDCWD, "/proc/self/statm", text, sizeof(text)) < 0)
        return errno;
    return id_boot_read(boot, &err) == 0 ? 0 : EIO;
}

static int use_abort(struct front *front, const void *context)
{
    (void)context;
    (void)front;
    abort();
}

Test(server_confine, R11_the_front_can_do_its_work, .timeout = 60)
{
    attempt_body *const uses[] = {use_store, use_catalogue, use_threads, use_socket, use_proc};
    struct front front;
    front_init(&front);
    front.with_store = true;
    for (size_t i = 0; i < COUNT_OF(uses); i++)
        cr_assert_eq(status_of(&front, true, uses[i], NULL), 0, "use %zu", i);
    int status = status_of(&front, true, use_abort, NULL);
    cr_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT, "%x", (unsigned)status);
    catalogue_release(&front.catalogue);
}

/* ---- what it refuses to start with ---- */

/* The error's number, so that the child can hand it on as its status. */
static int confine_only(struct front *front)
{
    struct server_confined confined;
    struct error err = {0};
    if (server_confine(front->catalogue.fd, &confined, &err) == 0)
        return 0;
    return strstr(err.msg, "as root") != NULL           ? 1
           : strstr(err.msg, "CapPrm") != NULL          ? 2
           : strstr(err.msg, "threads already") != NULL ? 3
                                                        : 4;
}

static void *wait_for_end(void *context)
{
    pause();
    return context;
}

/* 1: still root, without a capability: it owns the host's files. 2: a capability kept. 3: a thread
 * that landlock would not bind. */
static int confine_badly(struct front *front, int how)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {{0}};
    pthread_t thread;
    if (how == 1 && syscall(SYS_capset, &header, none) < 0)
        return NOT_SET_UP;
    if (how == 2)
        prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
    if (how > 1 && become_nobody() < 0)
        return NOT_SET_UP;
    if (how == 3 && pthread_create(&thread, NULL, wait_for_end, NULL) != 0)
        return NOT_SET_UP;
    return confine_only(front);
}

Test(server_confine, R11_a_front_that_is_not_confined_does_not_serve)
{
    struct front front;
    front_init(&front);
    for (int how = 1; how <= 3; how++) {
        int status = 0;
        pid_t child = fork();
        if (child == 0) {
            _exit(confine_badly(&front, how));
        }
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert_eq(status, how << 8, "%d: status %x", how, (unsigned)status);
    }
    catalogue_release(&front.catalogue);
}
