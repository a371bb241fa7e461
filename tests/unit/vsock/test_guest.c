#include "guest/internal.h"
#include "support.h"
#include <criterion/criterion.h>
#include <elf.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>

/* ---- R28 on the guest's side ---- */

struct pieces {
    const struct buf *bytes;
    int fd;
    uint32_t most; /* bytes in a piece; 0: all at once */
    uint64_t seed;
};

static void *write_pieces(void *context)
{
    struct pieces *pieces = context;
    for (size_t at = 0; at < pieces->bytes->len;) {
        size_t left = pieces->bytes->len - at;
        size_t len = pieces->most ? 1 + support_random(&pieces->seed, pieces->most) : left;
        len = len < left ? len : left;
        support_write(pieces->fd, pieces->bytes->data + at, len);
        at += len;
    }
    return NULL;
}

static void *write_pieces_then_close(void *context)
{
    struct pieces *pieces = context;
    write_pieces(pieces);
    close(pieces->fd);
    return NULL;
}

enum { FRAMES = 40 };

static void same_frames(const struct buf *bytes, const struct buf *payloads, uint32_t most,
                        uint64_t seed)
{
    int fds[2];
    struct guest_conn *conn = calloc(1, sizeof *conn);
    cr_assert(conn && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    cr_assert_eq(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    conn->fd = fds[0];
    struct pieces pieces = {bytes, fds[1], most, seed};
    pthread_t thread;
    pthread_create(&thread, NULL, write_pieces_then_close, &pieces);
    struct guest_frame frame;
    for (int i = 0; i < FRAMES; i++) {
        cr_assert_eq(guest_conn_read(conn, &frame), 0, "frame %d, pieces of %u", i, most);
        cr_assert_eq(frame.len, payloads[i].len, "frame %d, pieces of %u", i, most);
        cr_assert(frame.len == 0 || memcmp(frame.data, payloads[i].data, frame.len) == 0);
    }
    cr_assert_eq(guest_conn_read(conn, &frame), -1);
    pthread_join(thread, NULL);
    close(conn->fd);
    free(conn);
}

Test(vsock_guest, R28_the_agent_reads_the_same_frames_from_any_split)
{
    uint64_t seed = support_seed();
    static struct buf payloads[FRAMES];
    struct buf bytes = {.max = (size_t)16 << 20};
    for (int i = 0; i < FRAMES; i++) {
        static uint8_t data[WIRE_FRAME_MAX];
        size_t len = i == 3 ? WIRE_FRAME_MAX - 1 : support_random(&seed, i % 8 ? 200 : 65000);
        for (size_t k = 0; k < len; k++)
            data[k] = (uint8_t)support_random(&seed, 256);
        payloads[i].max = WIRE_FRAME_MAX;
        cr_assert(len == 0 || buf_append(&payloads[i], data, len) == 0);
        support_frame(&bytes, WIRE_STDIN, data, len);
    }
    same_frames(&bytes, payloads, 0, seed);
    same_frames(&bytes, payloads, 1, seed);
    for (uint64_t round = 0; round < 30; round++)
        same_frames(&bytes, payloads, round % 2 ? 9 : 90000, seed + round);
    for (int i = 0; i < FRAMES; i++)
        buf_release(&payloads[i]);
    buf_release(&bytes);
}

/* ---- what the session answers ---- */

/* Sends frames, then reads until the connection ends or `replies` frames came. */
static int talk(const char *mode, const struct buf *bytes, int replies, struct buf *last)
{
    struct support_agent agent = support_agent_start(mode);
    cr_assert_eq(fs_write_all(agent.fd, bytes->data, bytes->len), 0);
    int got = 0;
    while (got < replies && support_read_frame(agent.fd, last))
        got++;
    support_agent_stop(&agent);
    return got;
}

static void expect_reply(const char *mode, const char *request, const char *part)
{
    struct buf bytes = {.max = 70000}, reply = {.max = 70000};
    support_text_frame(&bytes, WIRE_CONTROL, request);
    cr_assert_eq(talk(mode, &bytes, 1, &reply), 1, "no reply to %s", request);
    cr_assert(strstr(reply.data, part) != NULL, "%s → %s", request, reply.data);
    buf_release(&bytes);
    buf_release(&reply);
}

Test(vsock_guest, R31_a_bad_request_is_refused_with_a_code)
{
#define EXEC "{\"id\":1,\"op\":\"exec\",\"timeout_ms\":1000,\"argv\":"
    expect_reply("", "{\"id\":1,\"op\":\"fly\"}", "unknown_op");
    expect_reply("", "{\"id\":1,\"op\":\"exec\"}", "bad_request");
    expect_reply("", "{\"id\":1,\"op\":\"exec\",\"argv\":[\"true\"]}", "timeout_ms");
    expect_reply("", EXEC "[]}", "bad_request");
    expect_reply("", EXEC "[1]}", "bad_request");
    expect_reply("", EXEC "\"true\"}", "bad_request");
    expect_reply("", EXEC "[\"true\"],\"env\":{\"A=B\":\"c\"}}", "bad_request");
    expect_reply("", EXEC "[\"true\"],\"env\":{\"A\":1}}", "bad_request");
    expect_reply("", EXEC "[\"true\"],\"cwd\":\"relative\"}", "bad_request");
    expect_reply("", EXEC "[\"true\"],\"stdin\":1}", "bad_request");
    expect_reply("", EXEC "[\"true\"],\"user\":\"4294967295\"}", "unknown_user");
    expect_reply("", EXEC "[\"true\"],\"user\":\"0:\"}", "unknown_user");
    expect_reply("", EXEC "[\"true\"],\"colour\":\"red\"}", "colour");
    expect_reply("control", EXEC "[\"true\"]}", "\"hello\""); /* it says hello first */
}

Test(vsock_guest, R27_the_hello_connection_serves_ping_and_hello_but_no_exec)
{
    struct buf bytes = {.max = 70000}, reply = {.max = 70000};
    support_text_frame(&bytes, WIRE_CONTROL, "{\"id\":1,\"ok\":true}");
    support_text_frame(&bytes, WIRE_CONTROL, "{\"id\":1,\"op\":\"ping\"}");
    support_text_frame(&bytes, WIRE_CONTROL, "{\"id\":2,\"op\":\"hello\"}");
    cr_assert_eq(talk("control", &bytes, 3, &reply), 3);
    cr_assert(strstr(reply.data, SUPPORT_INSTANCE) && strstr(reply.data, "\"id\":2"), "%s",
              reply.data);
    support_text_frame(&bytes, WIRE_CONTROL, EXEC "[\"true\"]}");
    bytes.data[bytes.len - 1] = '}';
    cr_assert_eq(talk("control", &bytes, 4, &reply), 3, "an id that does not grow ends it");
    bytes.len = 0;
    support_text_frame(&bytes, WIRE_CONTROL, EXEC "[\"true\"]}");
    cr_assert_eq(talk("control", &bytes, 2, &reply), 2);
    cr_assert(strstr(reply.data, "wrong_connection") != NULL, "%s", reply.data);
    buf_release(&bytes);
    buf_release(&reply);
}

Test(vsock_guest, R31_what_is_no_request_ends_the_connection)
{
    static const struct {
        const char *bytes;
        size_t len;
    } BAD[] = {{"\0\0\0\0J", 5},
               {"\377\0\0\0J", 5},
               {"\0\1\0\1J", 5},
               {"\0\0\0\2Q{", 6},
               {"\0\0\0\2J{", 6},
               {"\0\0\0\3J[]", 7},
               {"\0\0\0\0031ab", 7},
               {"\0\0\0\013J{\"id\":1.5}", 15},
               {"\0\0\0\017J{\"op\":\"ping\"} ", 19}};
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        struct buf bytes = {.max = 100}, reply = {.max = 70000};
        cr_assert_eq(buf_append(&bytes, BAD[i].bytes, BAD[i].len), 0);
        cr_assert_eq(talk("", &bytes, 1, &reply), 0, "bytes %zu were answered", i);
        buf_release(&bytes);
        buf_release(&reply);
    }
}

Test(vsock_guest, R31_deep_nesting_ends_the_connection_and_nothing_else)
{
    struct support_agent agent = support_agent_start("");
    struct buf bytes = {.max = 70000}, reply = {.max = 100};
    static char deep[60001];
    memset(deep, '[', sizeof deep - 1);
    support_text_frame(&bytes, WIRE_CONTROL, deep);
    support_write(agent.fd, bytes.data, bytes.len);
    cr_assert_eq(support_read_frame(agent.fd, &reply), 0);
    int status;
    cr_assert_eq(waitpid(agent.pid, &status, 0), agent.pid);
    cr_assert_eq(status, 0);
    close(agent.fd);
    buf_release(&bytes);
}

static void flip_bit(struct buf *bytes, uint64_t *seed)
{
    char *byte = &bytes->data[support_random(seed, (uint32_t)bytes->len)];
    *byte = (char)(*byte ^ (char)(1u << support_random(seed, 7)));
}

Test(vsock_guest, R31_random_bytes_never_crash_the_session)
{
    uint64_t seed = support_seed();
    for (int round = 0; round < 300; round++) {
        struct support_agent agent = support_agent_start("");
        struct buf bytes = {.max = 4096};
        for (int i = 0; i < 8; i++) {
            static const char *const TEXT[] = {"{\"id\":1,\"op\":\"ping\"}", "{\"op\":\"kill\"}",
                                               "{\"id\":9e99,\"op\":\"hello\"}", "[[[[", "x"};
            support_text_frame(&bytes, "J0J2"[support_random(&seed, 4)],
                               TEXT[support_random(&seed, 5)]);
        }
        for (int i = 0; i < 3; i++)
            flip_bit(&bytes, &seed);
        if (send(agent.fd, bytes.data, bytes.len, MSG_NOSIGNAL) > 0)
            shutdown(agent.fd, SHUT_WR);
        struct buf reply = {.max = 70000};
        while (support_read_frame(agent.fd, &reply))
            continue;
        int status;
        cr_assert_eq(waitpid(agent.pid, &status, 0), agent.pid);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "round %d: status %x", round,
                  status);
        close(agent.fd);
        buf_release(&bytes);
        buf_release(&reply);
    }
}

/* ---- exec, what only the guest's side shows ---- */

static void start_exec(int fd, const char *script)
{
    char text[512];
    struct buf bytes = {.max = 1000}, reply = {.max = 70000};
    snprintf(text, sizeof text,
             "{\"id\":1,\"op\":\"exec\",\"argv\":[\"sh\",\"-c\",\"%s\"],\"timeout_ms\":60000,"
             "\"stdin\":true}",
             script);
    support_text_frame(&bytes, WIRE_CONTROL, text);
    cr_assert_eq(fs_write_all(fd, bytes.data, bytes.len), 0);
    cr_assert_eq(support_read_frame(fd, &reply), WIRE_CONTROL);
    cr_assert_str_eq(reply.data, "{\"id\":1,\"ok\":true}");
    buf_release(&bytes);
    buf_release(&reply);
}

/* The pid that the command prints first. */
static pid_t read_pid(int fd)
{
    struct buf out = {.max = 70000};
    cr_assert_eq(support_read_frame(fd, &out), WIRE_STDOUT);
    pid_t pid = (pid_t)strtol(out.data, NULL, 10);
    buf_release(&out);
    cr_assert_gt(pid, 1);
    return pid;
}

static bool gone_within(pid_t pid, int64_t ms)
{
    int64_t deadline = clock_mono_ms() + ms;
    while (kill(pid, 0) == 0 && clock_mono_ms() < deadline)
        usleep(2000);
    return kill(pid, 0) != 0;
}

Test(vsock_guest, R31_kill_ends_the_command)
{
    struct support_agent agent = support_agent_start("");
    struct buf bytes = {.max = 100}, reply = {.max = 70000};
    start_exec(agent.fd, "echo $$; sleep 100");
    pid_t pid = read_pid(agent.fd);
    support_text_frame(&bytes, WIRE_CONTROL, "{\"op\":\"kill\"}");
    cr_assert_eq(fs_write_all(agent.fd, bytes.data, bytes.len), 0);
    cr_assert_eq(support_read_frame(agent.fd, &reply), WIRE_CONTROL);
    cr_assert(strstr(reply.data, "\"signal\":9,\"timed_out\":false") != NULL, "%s", reply.data);
    cr_assert(gone_within(pid, 1000));
    cr_assert_eq(support_agent_stop(&agent), 0);
    buf_release(&bytes);
    buf_release(&reply);
}

Test(vsock_guest, R31_a_connection_that_goes_away_ends_the_command)
{
    static const uint8_t data[WIRE_FRAME_MAX - 1];
    /* Closed; closed while its buffers are full; only its sending half, as vsock shows a close. */
    for (int blocked = 0; blocked < 3; blocked++) {
        struct support_agent agent = support_agent_start("");
        start_exec(agent.fd, "echo $$; sleep 100");
        pid_t pid = read_pid(agent.fd);
        struct buf bytes = {.max = WIRE_FRAME_MAX + 10};
        support_frame(&bytes, WIRE_STDIN, data, sizeof data);
        while (blocked && send(agent.fd, bytes.data, bytes.len, MSG_DONTWAIT) > 0)
            continue; /* the agent's buffers are full of input that nobody takes */
        if (blocked < 2)
            close(TAKE_FD(agent.fd));
        else
            shutdown(agent.fd, SHUT_WR);
        cr_assert(gone_within(pid, 5000), "blocked: %d", blocked);
        int status;
        cr_assert_eq(waitpid(agent.pid, &status, 0), agent.pid);
        cr_assert_eq(status, 0);
        if (agent.fd >= 0)
            close(agent.fd);
        buf_release(&bytes);
    }
}

Test(vsock_guest, R31_output_held_open_by_an_escapee_does_not_hold_the_exit)
{
    struct support_agent agent = support_agent_start("");
    struct buf reply = {.max = 70000};
    /* Without cgroups a new session is an escape, as leaving the cgroup is for root in a guest. The
     * first process ends when its input does. */
    start_exec(agent.fd, "setsid sh -c 'echo $$; exec sleep 20' & read line");
    pid_t pid = read_pid(agent.fd);
    support_write(agent.fd, "\0\0\0\0010", 5);
    int64_t start = clock_mono_ms();
    cr_assert_eq(support_read_frame(agent.fd, &reply), WIRE_CONTROL);
    cr_assert(strstr(reply.data, "\"code\":1") != NULL, "%s", reply.data);
    cr_assert_lt(clock_mono_ms() - start, 5000);
    kill(pid, SIGKILL);
    cr_assert_eq(support_agent_stop(&agent), 0);
    buf_release(&reply);
}

/* ---- serial sessions ---- */

static void send_mark(int fd, uint8_t nonce, const void *before, size_t before_len)
{
    struct buf bytes = {.max = 200000};
    uint8_t mark[GUEST_MARK_SIZE];
    for (size_t i = 0; i < WIRE_TOKEN_SIZE; i++)
        mark[i] = SUPPORT_TOKEN_BYTE(i);
    memset(mark + WIRE_TOKEN_SIZE, nonce, WIRE_NONCE_SIZE);
    if (before_len > 0)
        cr_assert_eq(buf_append(&bytes, before, before_len), 0);
    cr_assert_eq(buf_append(&bytes, mark, sizeof mark), 0);
    uint64_t seed = nonce;
    struct pieces pieces = {&bytes, fd, nonce % 3 ? 30 : 1, seed};
    write_pieces(&pieces);
    buf_release(&bytes);
}

/* Everything up to the answered mark is an older session's. */
static void await_mark(int fd, uint8_t nonce)
{
    int run = 0;
    uint8_t byte;
    while (run < WIRE_NONCE_SIZE && support_read(fd, &byte, 1))
        run = byte == nonce ? run + 1 : 0;
    cr_assert_eq(run, WIRE_NONCE_SIZE, "session %d was not answered", nonce);
}

Test(vsock_guest, R28_each_mark_begins_a_new_session_whatever_was_before)
{
    struct support_agent agent = support_agent_start("serial");
    uint64_t seed = support_seed();
    for (int round = 1; round < 120; round++) {
        uint8_t junk[64];
        size_t len = support_random(&seed, sizeof junk);
        /* A torn frame that swallows the mark's beginning, junk, or a request without its end. */
        for (size_t i = 0; i < len; i++)
            junk[i] = (uint8_t)support_random(&seed, 256);
        const uint8_t torn[] = {0, 0, 0, (uint8_t)(5 + round % 40), '0', 'x'};
        if (round % 2)
            send_mark(agent.fd, (uint8_t)round, torn, sizeof torn);
        else
            send_mark(agent.fd, (uint8_t)round, junk, len);
        await_mark(agent.fd, (uint8_t)round);
        struct buf bytes = {.max = 1000}, reply = {.max = 70000};
        support_text_frame(&bytes, WIRE_CONTROL, "{\"id\":1,\"op\":\"ping\"}");
        cr_assert_eq(fs_write_all(agent.fd, bytes.data, bytes.len), 0);
        cr_assert_eq(support_read_frame(agent.fd, &reply), WIRE_CONTROL, "round %d", round);
        cr_assert(strstr(reply.data, "\"ok\":true") != NULL, "%s", reply.data);
        buf_release(&bytes);
        buf_release(&reply);
    }
    cr_assert_eq(support_agent_stop(&agent), 0);
}

Test(vsock_guest, R28_a_mark_while_a_command_runs_ends_it)
{
    struct support_agent agent = support_agent_start("serial");
    send_mark(agent.fd, 1, NULL, 0);
    await_mark(agent.fd, 1);
    start_exec(agent.fd, "echo $$; sleep 100");
    pid_t pid = read_pid(agent.fd);
    send_mark(agent.fd, 2, "\0\0\1\0000torn", 9);
    await_mark(agent.fd, 2);
    cr_assert(gone_within(pid, 2000));
    start_exec(agent.fd, "yes"); /* while it writes, too */
    send_mark(agent.fd, 3, NULL, 0);
    await_mark(agent.fd, 3);
    cr_assert_eq(support_agent_stop(&agent), 0);
}

/* ---- the kernel's command line ---- */

Test(vsock_guest, R11_facts_are_taken_from_whole_words_and_checked)
{
    struct guest_facts facts;
    const char *good = "quiet motte.instance=" SUPPORT_INSTANCE
                       " motte.token=000102030405060708090a0b0c0d0eff motte.ports=3\n";
    cr_assert_eq(guest_facts_parse(good, &facts), 0);
    cr_assert_str_eq(facts.instance, SUPPORT_INSTANCE);
    cr_assert(facts.has_token);
    cr_assert_eq(facts.token[15], 0xff);
    cr_assert_eq(facts.ports, 3);
    cr_assert_eq(guest_facts_parse("motte.instance=" SUPPORT_INSTANCE, &facts), 0);
    cr_assert_not(facts.has_token);
    cr_assert_eq(facts.ports, WIRE_SERIAL_PORTS);
    static const char *const BAD[] = {"",
                                      "motte.instance=abc",
                                      "xmotte.instance=" SUPPORT_INSTANCE,
                                      "motte.instance=ABCDEFGHIJ234567abcd",
                                      "motte.instance=" SUPPORT_INSTANCE "a",
                                      "motte.instance=" SUPPORT_INSTANCE " motte.token=00"};
    for (size_t i = 0; i < COUNT_OF(BAD); i++)
        cr_assert_eq(guest_facts_parse(BAD[i], &facts), -1, "%s", BAD[i]);
}

/* ---- the program itself ---- */

#ifdef MOTTE_AGENT /* sanitizers have no static runtime */
/* A position-independent program has a dynamic section, to relocate itself by. */
static bool names_a_library(int fd, const Elf64_Phdr *dynamic)
{
    for (Elf64_Xword at = 0; at < dynamic->p_filesz; at += sizeof(Elf64_Dyn)) {
        Elf64_Dyn entry;
        cr_assert_eq(pread(fd, &entry, sizeof entry, (off_t)(dynamic->p_offset + at)),
                     sizeof entry);
        if (entry.d_tag == DT_NEEDED)
            return true;
    }
    return false;
}

Test(vsock_guest, R27_the_installed_agent_needs_no_library)
{
    Elf64_Ehdr header;
    Elf64_Phdr segment;
    int fd = open(MOTTE_AGENT, O_RDONLY | O_CLOEXEC);
    cr_assert_eq(read(fd, &header, sizeof header), sizeof header);
    cr_assert_gt(header.e_phnum, 0);
    for (int i = 0; i < header.e_phnum; i++) {
        off_t at = (off_t)header.e_phoff + (off_t)i * header.e_phentsize;
        cr_assert_eq(pread(fd, &segment, sizeof segment, at), sizeof segment);
        cr_assert_neq(segment.p_type, PT_INTERP);
        cr_assert(segment.p_type != PT_DYNAMIC || !names_a_library(fd, &segment));
    }
    close(fd);
}
#endif
