/* A command that somebody feeds, watches and ends, against the real agent's session code. */
#include "support.h"
#include "vsock/internal.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <time.h>

enum { OUT_MAX = 1 << 16 };

/* The other end: what it gives and wants is set by the test, from its own thread. */
struct end {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct vsock_orders orders;
    const char *input; /* what is left of it */
    bool eof;
    char out[OUT_MAX + 1];
    size_t out_len;
    int wake;
    /* The command's thread. */
    pthread_t thread;
    struct vsock_command command;
    struct vsock_exit exit;
    struct error err;
    int result;
};

struct bench {
    struct support_agent agent;
    struct vsock_conn *conn;
    struct end end;
};

static int take_output(void *context, enum wire_kind kind, const uint8_t *data, size_t len,
                       struct error *err)
{
    struct end *end = context;
    (void)kind, (void)err;
    pthread_mutex_lock(&end->lock);
    size_t room = OUT_MAX - end->out_len;
    memcpy(end->out + end->out_len, data, len < room ? len : room);
    end->out_len += len < room ? len : room;
    end->out[end->out_len] = '\0';
    pthread_cond_broadcast(&end->changed);
    pthread_mutex_unlock(&end->lock);
    return 0;
}

static ssize_t give_input(void *context, char *out, size_t size)
{
    struct end *end = context;
    pthread_mutex_lock(&end->lock);
    size_t left = strlen(end->input), len = left < size ? left : size;
    memcpy(out, end->input, len);
    end->input += len;
    ssize_t result = len > 0 ? (ssize_t)len : end->eof ? 0 : -1;
    pthread_mutex_unlock(&end->lock);
    return result;
}

static struct vsock_orders take_orders(void *context)
{
    struct end *end = context;
    pthread_mutex_lock(&end->lock);
    struct vsock_orders orders = end->orders;
    end->orders.resize = false;
    pthread_mutex_unlock(&end->lock);
    return orders;
}

static void *run(void *context)
{
    struct end *end = context;
    end->result =
        vsock_command_run(&end->command, -1, clock_mono_ms() + 20000, &end->exit, &end->err);
    return NULL;
}

static void begin(struct bench *bench, const char *script, bool pty)
{
    struct end *end = &bench->end;
    struct error err = {0};
    const char *const words[] = {"sh", "-c", script};
    cleanup_json cJSON *argv = cJSON_CreateStringArray(words, COUNT_OF(words));
    *bench = (struct bench){.agent = support_agent_start("")};
    bench->conn = vsock_conn_new(TAKE_FD(bench->agent.fd), &err);
    cr_assert_not_null(bench->conn);
    pthread_mutex_init(&end->lock, NULL);
    pthread_cond_init(&end->changed, NULL);
    end->input = "";
    end->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    const struct vsock_exec_request request = {
        .argv = argv, .timeout_ms = 15000, .pty = pty, .size = {.rows = 33, .cols = 77}};
    const struct vsock_command_io io = {.context = end,
                                        .output = take_output,
                                        .input = give_input,
                                        .orders = take_orders,
                                        .wake = end->wake};
    cr_assert_eq(vsock_command_begin(bench->conn, &request, &io, -1, clock_mono_ms() + 10000,
                                     &end->command, &err),
                 0, "%s", err.msg);
    cr_assert_eq(pthread_create(&end->thread, NULL, run, end), 0);
}

static void comes(struct end *end, const char *text)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 15;
    int late = 0;
    pthread_mutex_lock(&end->lock);
    while (strstr(end->out, text) == NULL && late == 0)
        late = pthread_cond_timedwait(&end->changed, &end->lock, &until);
    pthread_mutex_unlock(&end->lock);
    cr_assert_eq(late, 0, "no \"%s\" in \"%s\"", text, end->out);
}

static void give(struct end *end, const char *input, bool eof)
{
    pthread_mutex_lock(&end->lock);
    end->input = input;
    end->eof = eof;
    pthread_mutex_unlock(&end->lock);
    eventfd_write(end->wake, 1);
}

/* Waits until its input is sent up to there. */
static void takes(struct end *end, const char *to)
{
    const char *at = NULL;
    int64_t deadline = clock_mono_ms() + 20000;
    while (at < to && clock_mono_ms() < deadline) {
        sched_yield();
        pthread_mutex_lock(&end->lock);
        at = end->input;
        pthread_mutex_unlock(&end->lock);
    }
    cr_assert(at >= to);
}

static void order(struct end *end, struct vsock_orders orders)
{
    pthread_mutex_lock(&end->lock);
    end->orders = orders;
    pthread_mutex_unlock(&end->lock);
    eventfd_write(end->wake, 1);
}

static void finish(struct bench *bench)
{
    pthread_join(bench->end.thread, NULL);
    vsock_conn_free(bench->conn);
    (void)support_agent_stop(&bench->agent); /* its session may have ended with the connection */
    close(bench->end.wake);
}

/* A host's own devpts may have no room or be nowhere: this process gets one of its own. */
static void own_terminals(void)
{
    cr_assert_eq(unshare(CLONE_NEWNS), 0);
    cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    cr_assert_eq(mount("pts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666"), 0);
    cr_assert_eq(mount("/dev/pts/ptmx", "/dev/ptmx", NULL, MS_BIND, NULL), 0);
}

TestSuite(vsock_command, .timeout = 60);

Test(vsock_command, R29_input_comes_when_it_comes_and_ends_when_it_ends)
{
    struct bench bench;
    begin(&bench, "cat", false);
    give(&bench.end, "first ", false);
    comes(&bench.end, "first ");
    give(&bench.end, "second", true);
    comes(&bench.end, "first second");
    finish(&bench);
    cr_assert_eq(bench.end.result, 0, "%s", bench.end.err.msg);
    cr_assert_eq(bench.end.exit.code, 0);
}

Test(vsock_command, R31_killed_by_our_word)
{
    struct bench bench;
    begin(&bench, "echo begun; sleep 600", false);
    comes(&bench.end, "begun");
    order(&bench.end, (struct vsock_orders){.kill = true});
    finish(&bench);
    cr_assert_eq(bench.end.result, 0, "%s", bench.end.err.msg);
    cr_assert_eq(bench.end.exit.signal, SIGKILL);
    cr_assert_not(bench.end.exit.timed_out);
}

Test(vsock_command, R31_one_that_takes_no_input_is_given_up_when_it_is_to_die)
{
    enum { PIPE_SIZE = 64 * 1024 };
    static char much[4 << 20];
    struct bench bench;
    memset(much, 'x', sizeof(much) - 1);
    begin(&bench, "echo begun; sleep 600", false);
    comes(&bench.end, "begun");
    give(&bench.end, much, false);
    takes(&bench.end, much + 2 * PIPE_SIZE);
    int64_t began = clock_mono_ms();
    order(&bench.end, (struct vsock_orders){.kill = true});
    finish(&bench);
    cr_assert_lt(clock_mono_ms() - began, VSOCK_GRACE_MS / 2);
    cr_assert(bench.end.result == 0 || bench.end.err.code == ERR_GUEST_TIMEOUT, "%s",
              bench.end.err.msg);
}

static int64_t thread_cpu_ms(void)
{
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    return used.tv_sec * 1000 + used.tv_nsec / 1000000;
}

Test(vsock_command, R31_an_order_before_its_time_keeps_nobody_busy)
{
    enum { SILENT_MS = 400 };
    int ends[2];
    struct bench bench = {.end = {.input = "", .wake = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)}};
    struct error err = {0};
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends), 0);
    bench.conn = vsock_conn_new(ends[0], &err);
    const struct vsock_exec_request request = {.argv = argv, .timeout_ms = 15000};
    const struct vsock_command_io io = {.context = &bench.end,
                                        .output = take_output,
                                        .orders = take_orders,
                                        .wake = bench.end.wake};
    int64_t before = thread_cpu_ms();
    cr_assert_lt(vsock_command_begin(bench.conn, &request, &io, -1, clock_mono_ms() + SILENT_MS,
                                     &bench.end.command, &err),
                 0);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_lt(thread_cpu_ms() - before, SILENT_MS / 4);
    vsock_conn_free(bench.conn);
    close(ends[1]);
    close(bench.end.wake);
}

Test(vsock_command, left_at_once_when_the_service_stops)
{
    struct bench bench;
    begin(&bench, "echo begun; sleep 600", false);
    comes(&bench.end, "begun");
    order(&bench.end, (struct vsock_orders){.leave = true});
    finish(&bench);
    cr_assert_eq(bench.end.err.code, ERR_SHUTTING_DOWN);
}

Test(vsock_command, R29_a_terminal_has_its_size_echoes_and_takes_control_characters)
{
    struct bench bench;
    own_terminals();
    begin(&bench,
          "tty; stty size; echo $TERM; trap 'stty size' WINCH; trap 'echo INT; exit 5' INT; "
          "echo ready; while :; do sleep 0.05; done",
          true);
    comes(&bench.end, "/dev/pts/");
    comes(&bench.end, "33 77\r\nxterm\r\n");
    comes(&bench.end, "ready");
    order(&bench.end, (struct vsock_orders){.resize = true, .size = {.rows = 40, .cols = 100}});
    comes(&bench.end, "40 100\r\n");
    give(&bench.end, "\x03", false);
    comes(&bench.end, "INT");
    finish(&bench);
    cr_assert_eq(bench.end.result, 0, "%s", bench.end.err.msg);
    cr_assert_eq(bench.end.exit.code, 5);
}

Test(vsock_command, R29_the_end_of_input_is_typed_on_a_terminal)
{
    struct bench bench;
    own_terminals();
    begin(&bench, "cat; echo after", true);
    give(&bench.end, "line\n", true);
    comes(&bench.end, "line\r\nline\r\nafter\r\n");
    finish(&bench);
    cr_assert_eq(bench.end.exit.code, 0);
}
