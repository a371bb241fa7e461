#include "support.h"
#include "vsock/vsock.h"
#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* The host's exec against the real agent's session code in a process of its own. */
struct bench {
    struct support_agent agent;
    struct vsock_conn *conn;
};

static struct bench bench_new(void)
{
    struct error err = {0};
    struct bench bench = {.agent = support_agent_start("")};
    bench.conn = vsock_conn_new(TAKE_FD(bench.agent.fd), &err);
    cr_assert(bench.conn != NULL);
    return bench;
}

static void bench_free(struct bench *bench)
{
    int alive = support_agent_stop(&bench->agent);
    vsock_conn_free(bench->conn);
    cr_assert_eq(alive, 0, "the agent died");
}

struct run {
    const char *script; /* for sh -c */
    const char *input, *user, *cwd;
    size_t input_len, output_max;
    uint32_t timeout_ms;
    int cancel; /* 0: none */
};

static int run(struct bench *bench, struct run what, struct vsock_exec_result *ret,
               struct error *err)
{
    cleanup_json cJSON *argv = cJSON_CreateArray();
    const char *const words[] = {"sh", "-c", what.script};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        cJSON_AddItemToArray(argv, cJSON_CreateString(words[i]));
    struct vsock_exec_request request = {.argv = argv,
                                         .cwd = what.cwd,
                                         .user = what.user,
                                         .input = what.input,
                                         .input_len = what.input_len,
                                         .timeout_ms = what.timeout_ms ? what.timeout_ms : 20000,
                                         .output_max = what.output_max ? what.output_max : 65536};
    return vsock_exec(bench->conn, &request, what.cancel ? what.cancel : -1, ret, err);
}

/* Runs it, wants success of the exchange and nothing left over. */
static void expect(struct bench *bench, struct run what, int code, const char *out)
{
    struct vsock_exec_result result = {0};
    struct error err = {0};
    cr_assert_eq(run(bench, what, &result, &err), 0, "%s: %s", what.script, err.msg);
    cr_assert_eq(result.exit_code, code, "%s: %d %s", what.script, result.exit_code,
                 result.err_out.len ? result.err_out.data : "");
    cr_assert_str_eq(result.out.len ? result.out.data : "", out);
    vsock_exec_result_release(&result);
}

Test(vsock_exec, R27_output_code_and_the_next_command_on_one_connection)
{
    struct bench bench = bench_new();
    expect(&bench, (struct run){.script = "echo hi; exit 3"}, 3, "hi\n");
    expect(&bench, (struct run){.script = "pwd", .cwd = "/usr"}, 0, "/usr\n");
    expect(&bench, (struct run){.script = "cd /; echo $HOME $LANG $PATH"}, 0,
           "/root C.UTF-8 /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n");
    expect(&bench, (struct run){.script = "id -u; id -g", .user = "1234:55"}, 0, "1234\n55\n");
    expect(&bench, (struct run){.script = "cat"}, 0, ""); /* no input: its end at once */
    expect(&bench, (struct run){.script = "cat", .input = "", .input_len = 0}, 0, "");
    expect(&bench, (struct run){.script = "kill -l 13 >/dev/null; kill -PIPE $$"}, -1, "");
    bench_free(&bench);
}

Test(vsock_exec, R29_input_and_output_flow_at_the_same_time)
{
    enum { SIZE = 8 << 20 };
    struct bench bench = bench_new();
    cleanup_free char *input = malloc(SIZE);
    uint64_t seed = support_seed();
    for (size_t i = 0; i < SIZE; i++)
        input[i] = (char)support_random(&seed, 256);
    struct vsock_exec_result result = {0};
    struct error err = {0};
    struct run cat = {.script = "cat", .input = input, .input_len = SIZE, .output_max = SIZE};
    cr_assert_eq(run(&bench, cat, &result, &err), 0, "%s", err.msg);
    cr_assert_eq(result.out.len, SIZE);
    cr_assert_eq(memcmp(result.out.data, input, SIZE), 0);
    cr_assert_not(result.out_truncated);
    vsock_exec_result_release(&result);
    bench_free(&bench);
}

Test(vsock_exec, R29_input_that_nobody_reads_does_not_hold_the_command)
{
    enum { SIZE = 4 << 20 };
    struct bench bench = bench_new();
    cleanup_free char *input = calloc(1, SIZE);
    for (int i = 0; i < 20; i++) /* what was under way must not reach the next command */
        expect(&bench, (struct run){.script = "echo done", .input = input, .input_len = SIZE}, 0,
               "done\n");
    expect(&bench, (struct run){.script = "wc -c", .input = "abc", .input_len = 3}, 0, "3\n");
    bench_free(&bench);
}

Test(vsock_exec, R31_a_hundred_megabytes_of_output_are_bounded_and_flagged)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    int64_t before = support_rss_kib();
    struct run flood = {.script = "head -c 100000000 /dev/zero; echo last >&2",
                        .timeout_ms = 60000};
    cr_assert_eq(run(&bench, flood, &result, &err), 0, "%s", err.msg);
    cr_assert_lt(support_rss_kib() - before, 8192);
    cr_assert_eq(result.out.len, 65536);
    cr_assert(result.out_truncated);
    cr_assert_not(result.err_truncated);
    cr_assert_str_eq(result.err_out.data, "last\n");
    cr_assert_eq(result.exit_code, 0);
    vsock_exec_result_release(&result);
    expect(&bench, (struct run){.script = "echo next"}, 0, "next\n");
    bench_free(&bench);
}

Test(vsock_exec, R31_a_command_over_its_time_is_killed_and_said_so)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    struct run slow = {.script = "echo begun; sleep 100", .timeout_ms = 400};
    cr_assert_eq(run(&bench, slow, &result, &err), 0, "%s", err.msg);
    cr_assert(result.timed_out);
    cr_assert_eq(result.exit_signal, SIGKILL);
    cr_assert_eq(result.exit_code, -1);
    cr_assert_str_eq(result.out.data, "begun\n");
    cr_assert_geq(result.duration_ms, 400);
    cr_assert_lt(result.duration_ms, 4000);
    vsock_exec_result_release(&result);
    expect(&bench, (struct run){.script = "echo next"}, 0, "next\n");
    bench_free(&bench);
}

Test(vsock_exec, R31_a_wedged_agent_ends_at_the_deadline)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    expect(&bench, (struct run){.script = "true"}, 0, "");
    cr_assert_eq(kill(bench.agent.pid, SIGSTOP), 0);
    int64_t start = clock_mono_ms();
    cr_assert_eq(run(&bench, (struct run){.script = "true", .timeout_ms = 200}, &result, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_geq(clock_mono_ms() - start, 5200);
    cr_assert_lt(clock_mono_ms() - start, 9000);
    vsock_exec_result_release(&result);
    err = (struct error){0};
    cr_assert_eq(run(&bench, (struct run){.script = "true"}, &result, &err), -1,
                 "unusable from then on");
    cr_assert_eq(err.code, ERR_GUEST_CLOSED);
    bench_free(&bench);
}

/* Accepts whatever comes and never stops sending output, in frames so small and through a buffer so
 * large that there is always something left to read, however the two are scheduled: a reader that
 * looks at the clock only when nothing comes never does. */
static void *flood_output(void *context)
{
    enum { FRAMES = 10000, BUFFER = 64 << 20 };
    const int *fd = context, size = BUFFER;
    cr_assert_eq(setsockopt(*fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size), 0);
    struct buf bytes = {.max = 16 * FRAMES}, request = {.max = 70000};
    support_text_frame(&bytes, WIRE_CONTROL, "{\"id\":1,\"ok\":true}");
    bool going = support_read_frame(*fd, &request) && fs_write_all(*fd, bytes.data, bytes.len) == 0;
    bytes.len = 0;
    for (int i = 0; i < FRAMES; i++)
        support_frame(&bytes, WIRE_STDOUT, "x", 1);
    while (going)
        going = send(*fd, bytes.data, bytes.len, MSG_NOSIGNAL) == (ssize_t)bytes.len;
    buf_release(&bytes);
    buf_release(&request);
    return NULL;
}

Test(vsock_exec, R31_output_without_end_ends_at_the_deadline, .timeout = 25)
{
    struct support_pair pair = support_pair_new(0);
    struct bench bench = {.conn = pair.host};
    struct vsock_exec_result result = {0};
    struct error err = {0};
    pthread_t thread;
    pthread_create(&thread, NULL, flood_output, &pair.guest);
    int64_t start = clock_mono_ms();
    cr_assert_eq(run(&bench, (struct run){.script = "yes", .timeout_ms = 100}, &result, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_TIMEOUT);
    cr_assert_lt(clock_mono_ms() - start, 9000);
    cr_assert_gt(result.out.len, 0, "what came until then");
    cr_assert_geq(result.duration_ms, 100);
    vsock_exec_result_release(&result);
    vsock_conn_free(pair.host);
    pthread_join(thread, NULL);
    close(pair.guest);
}

Test(vsock_exec, R31_the_end_of_the_vm_cancels_a_command)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    int cancel[2];
    cr_assert_eq(pipe2(cancel, O_CLOEXEC), 0);
    close(cancel[1]);
    struct run endless = {.script = "yes", .cancel = cancel[0]};
    cr_assert_eq(run(&bench, endless, &result, &err), -1);
    cr_assert_eq(err.code, ERR_CANCELLED);
    close(cancel[0]);
    bench_free(&bench);
}

Test(vsock_exec, R31_a_refusal_has_the_agents_words_and_the_connection_lives)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    cr_assert_eq(run(&bench, (struct run){.script = "true", .user = "nobody-here"}, &result, &err),
                 -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED);
    cr_assert(strstr(err.msg, "nobody-here") != NULL, "%s", err.msg);
    expect(&bench, (struct run){.script = "echo next"}, 0, "next\n");
    bench_free(&bench);
}

Test(vsock_exec, R31_arguments_over_a_frame_are_refused_before_they_are_sent)
{
    struct bench bench = bench_new();
    struct vsock_exec_result result = {0};
    struct error err = {0};
    cleanup_free char *huge = malloc(70000);
    memset(huge, 'x', 69999);
    huge[69999] = '\0';
    cr_assert_eq(run(&bench, (struct run){.script = huge}, &result, &err), -1);
    cr_assert_eq(err.code, ERR_BODY_TOO_LARGE);
    expect(&bench, (struct run){.script = "echo next"}, 0, "next\n");
    bench_free(&bench);
}

/* ---- a hostile agent: what it says after the request ---- */

static void hostile(const char *const *frames, enum error_code code)
{
    struct support_pair pair = support_pair_new(0);
    struct bench bench = {.conn = pair.host};
    struct vsock_exec_result result = {0};
    struct error err = {0};
    struct buf bytes = {.max = 65536};
    for (size_t i = 0; frames[i]; i++)
        support_frame(&bytes, frames[i][0], frames[i] + 1, strlen(frames[i] + 1));
    cr_assert_eq(fs_write_all(pair.guest, bytes.data, bytes.len), 0);
    shutdown(pair.guest, SHUT_WR);
    cr_assert_eq(run(&bench, (struct run){.script = "true"}, &result, &err), -1);
    cr_assert_eq(err.code, code, "%s: %s", frames[0], err.msg);
    buf_release(&bytes);
    close(pair.guest);
    vsock_conn_free(pair.host);
}

#define OK "J{\"id\":1,\"ok\":true}"
#define END ",\"timed_out\":false,\"duration_ms\":1}"
#define HOSTILE(...) hostile((const char *const[]){__VA_ARGS__, NULL}, ERR_GUEST_PROTOCOL)

Test(vsock_exec, R31_a_hostile_agents_words_are_typed_errors)
{
    HOSTILE("1output before the answer");
    HOSTILE("J{\"id\":2,\"ok\":true}");
    HOSTILE("J{\"id\":1}");
    HOSTILE("J{\"id\":1,\"ok\":false}");
    HOSTILE(OK, "0stdin from the guest");
    HOSTILE(OK, "J{\"id\":1,\"op\":\"exit\"" END);
    HOSTILE(OK, "J{\"id\":1,\"op\":\"exit\",\"code\":0,\"signal\":9" END);
    HOSTILE(OK, "J{\"id\":1,\"op\":\"exit\",\"code\":256" END);
    HOSTILE(OK, "J{\"id\":1,\"op\":\"exit\",\"signal\":0" END);
    HOSTILE(OK, "J{\"id\":2,\"op\":\"exit\",\"code\":0" END);
    HOSTILE(OK, "J{\"id\":1,\"op\":\"quit\",\"code\":0" END);
    hostile((const char *const[]){OK, "1some", NULL}, ERR_GUEST_CLOSED);
}

Test(vsock_exec, R31_a_refusals_words_are_made_harmless)
{
    struct support_pair pair = support_pair_new(0);
    struct bench bench = {.conn = pair.host};
    struct vsock_exec_result result = {0};
    struct error err = {0};
    struct buf bytes = {.max = 65536};
    support_text_frame(&bytes, WIRE_CONTROL,
                       "{\"id\":1,\"ok\":false,\"error\":{\"code\":\"a\\nb\",\"message\":"
                       "\"x\\u001b[2J\\r\\né\"}}");
    cr_assert_eq(fs_write_all(pair.guest, bytes.data, bytes.len), 0);
    cr_assert_eq(run(&bench, (struct run){.script = "true"}, &result, &err), -1);
    cr_assert_eq(err.code, ERR_GUEST_REFUSED);
    for (const char *at = err.msg; *at; at++)
        cr_assert(*at >= ' ' && *at <= '~', "byte %d in \"%s\"", *at, err.msg);
    buf_release(&bytes);
    close(pair.guest);
    vsock_conn_free(pair.host);
}
