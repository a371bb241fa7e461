/* More clients than there is room for, and no descriptors for them: somebody else gets in, is told, or
 * is cut; nobody hangs, nothing spins. */
#include "tests/unit/api/fake.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { ROOM = 8, FILES_FREE = 12, LOOK_MS = 600 };

static const char fast[] = "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n";
static const char slow[] = "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n";

static struct fake fake; /* criterion: one process a test */

static void start(void)
{
    cr_assert(fake_start(
        &fake, (struct server_options){.connections = ROOM, .header_ms = 60000, .idle_ms = 60000}));
}

static void stop(void)
{
    cr_assert_eq(fake_stop(&fake), 0);
}

TestSuite(server_crowd, .init = start, .fini = stop, .timeout = 120);

static void expect_fast(int fd)
{
    cr_assert(fd >= 0 && http_send(fd, fast));
    struct http_answer answer cleanup(http_release) = http_read(fd);
    cr_assert_eq(answer.status, 200);
}

static bool open_still(int fd)
{
    struct pollfd event = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&event, 1, 0) == 0;
}

/* In the order they came: the listener takes them in that order, and the last is seen to be in. */
static void fill(int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fds[i] = http_connect_unix(fake.path);
        expect_fast(fds[i]);
    }
}

static void close_all(const int *fds, size_t count)
{
    for (size_t i = 0; i < count; i++)
        close(fds[i]);
}

Test(server_crowd, the_one_that_kept_us_waiting_longest_makes_room)
{
    int fds[ROOM];
    fill(fds, ROOM);
    expect_fast(fds[0]); /* so that the second has waited longest */
    cleanup_close int late = http_connect_unix(fake.path);
    expect_fast(late);
    cr_assert(http_closed(fds[1]));
    for (size_t i = 0; i < ROOM; i++)
        cr_assert_eq(open_still(fds[i]), i != 1, "%zu", i);
    close_all(fds, ROOM);
}

Test(server_crowd, ten_times_as_many_silent_ones_keep_nobody_out)
{
    int fds[10 * ROOM];
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = http_connect_tcp(fake.port);
        cr_assert_geq(fds[i], 0);
        cleanup_close int other = http_connect_unix(fake.path);
        expect_fast(other);
    }
    cleanup_close int late = http_connect_tcp(fake.port);
    cr_assert(http_send(late, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
    struct http_answer answer cleanup(http_release) = http_read(late);
    cr_assert_eq(answer.status, 200);
    for (size_t i = 0; i + ROOM < COUNT_OF(fds); i++)
        cr_assert(http_closed(fds[i]), "%zu", i);
    close_all(fds, COUNT_OF(fds));
}

Test(server_crowd, whose_request_is_under_way_is_not_cut_and_others_are_told)
{
    char retry[16];
    int fds[ROOM];
    for (size_t i = 0; i < ROOM; i++) {
        fds[i] = http_connect_unix(fake.path);
        cr_assert(http_send(fds[i], slow));
    }
    cr_assert(fake_wait_inside(&fake, ROOM));
    cleanup_close int late = http_connect_unix(fake.path);
    struct http_answer refused cleanup(http_release) = http_read(late);
    http_header(&refused, "Retry-After", retry, sizeof(retry));
    cr_assert_eq(refused.status, 503);
    cr_assert_str_eq(retry, "1");
    cr_assert_not_null(strstr(refused.body, "\"code\":\"busy\""), "%s", refused.body);
    cr_assert(http_closed(late));
    fake_open(&fake);
    for (size_t i = 0; i < ROOM; i++) {
        struct http_answer answer cleanup(http_release) = http_read(fds[i]);
        cr_assert_eq(answer.status, 200, "%zu", i);
    }
    expect_fast(fds[0]);
    close_all(fds, ROOM);
}

/* ---- no descriptors ---- */

static atomic_uint looks;

/* In the place of libc's. Counted, since a processor that others use hides what spins. */
int accept4(int fd, __SOCKADDR_ARG address, socklen_t *len, int flags)
{
    atomic_fetch_add(&looks, 1);
    return (int)syscall(SYS_accept4, fd, address.__sockaddr__, len, flags);
}

static int64_t cpu_ms(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* In a child, which keeps its own descriptors. Goes on when `go` is written to; exits with 0 if the
 * answer to `request` was `wanted`. */
static pid_t make_client(const char *request, unsigned wanted, int *ret_go)
{
    int go[2];
    cr_assert_eq(pipe2(go, O_CLOEXEC), 0);
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        char byte;
        if (read(go[0], &byte, 1) != 1)
            _exit(3);
        cleanup_close int fd = http_connect_unix(fake.path);
        (void)http_send(fd, request);
        struct http_answer answer = http_read(fd);
        _exit(answer.status == wanted ? 0 : answer.status == 0 ? 1 : 2);
    }
    close(go[0]);
    *ret_go = go[1];
    return pid;
}

static void limit_files(rlim_t count)
{
    struct rlimit limit;
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = count == 0 ? limit.rlim_max : count;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Nobody is connected: that is where libmicrohttpd's own accept would spin. */
Test(server_crowd, without_descriptors_clients_are_told_and_nothing_spins)
{
    int taken[64], go = -1, status = -1;
    size_t count = 0;
    pid_t client = make_client("", 503, &go);
    limit_files((rlim_t)go + FILES_FREE);
    while (count < COUNT_OF(taken) && (taken[count] = dup(go)) >= 0)
        count++;
    cr_assert_lt(count, COUNT_OF(taken));
    int64_t before = cpu_ms(), begin = clock_mono_ms();
    cr_assert_eq(write(go, "", 1), 1);
    cr_assert_eq(waitpid(client, &status, 0), client);
    poll(NULL, 0, LOOK_MS);
    cr_assert_lt(cpu_ms() - before, (clock_mono_ms() - begin) / 4, "something spins");
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", WEXITSTATUS(status));
    close_all(taken, count);
    limit_files(0);
    cleanup_close int after = http_connect_unix(fake.path);
    expect_fast(after);
    close(go);
}

/* Not even for an answer: the client waits, and the door looks now and then whether there is one. */
Test(server_crowd, without_its_reserve_the_door_rests_and_finds_the_way_back)
{
    enum { BELOW_THE_DOORS = 8 }; /* and enough for its poll */
    int taken[BELOW_THE_DOORS], go = -1, status = -1;
    size_t count = 0;
    pid_t client = make_client(fast, 200, &go);
    limit_files(BELOW_THE_DOORS);
    while (count < COUNT_OF(taken) && (taken[count] = dup(go)) >= 0)
        count++;
    unsigned before = atomic_load(&looks);
    cr_assert_eq(write(go, "", 1), 1);
    poll(NULL, 0, LOOK_MS);
    unsigned seen = atomic_load(&looks) - before;
    cr_expect(seen > 0 && seen < LOOK_MS / 10, "it looked %u times", seen);
    close_all(taken, count);
    limit_files(0);
    cr_assert_eq(waitpid(client, &status, 0), client);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%d", WEXITSTATUS(status));
    close(go);
}
