#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOT_CONN, SLOT_OUT, SLOT_ERR, SLOT_IN, SLOT_CHILD, SLOT_PRESSURE, SLOT_COUNT };
enum {
    ABSENT_MAX_MS = 1000,     /* serial ports: then the host is taken for gone */
    IDLE_MAX_MS = 200,        /* silence of output that somebody still holds open */
    AFTERWARDS_MAX = 4 << 20, /* output after the end: what pipes held, not what escapees write */
};

struct run {
    struct guest_session *session;
    struct guest_conn *conn;
    struct guest_cgroup cgroup;
    pid_t pid;
    int fds[SLOT_COUNT]; /* ours: pipes and pidfd; -1 when done with */
    bool terminal;
    uint8_t input[WIRE_FRAME_MAX]; /* of one frame, while the command takes it */
    size_t input_at, input_end;
    int64_t start_ms, deadline_ms, quiet_since;
    size_t afterwards;
    bool timed_out, ended;
    bool thrashed; /* killed because it stood still at its memory limit */
    siginfo_t status;
};

static void drop(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* ---- start ---- */

/* Our end is non-blocking, the command's is not. `read_end`: which one is ours. */
static int make_pipe(int *ours, int *theirs, bool we_read)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    *ours = ends[we_read ? 0 : 1];
    *theirs = ends[we_read ? 1 : 0];
    return fcntl(*ours, F_SETFL, O_NONBLOCK);
}

static int make_stdio(struct run *run, const struct guest_command *command, int theirs[3])
{
    if (command->terminal)
        return guest_terminal_open(command, &run->fds[SLOT_IN], &run->fds[SLOT_OUT], theirs);
    if (make_pipe(&run->fds[SLOT_OUT], &theirs[1], true) ||
        make_pipe(&run->fds[SLOT_ERR], &theirs[2], true))
        return -1;
    if (command->input)
        return make_pipe(&run->fds[SLOT_IN], &theirs[0], false);
    theirs[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    return theirs[0] < 0 ? -1 : 0;
}

static int start(struct run *run, const struct guest_command *command)
{
    int theirs[3] = {-1, -1, -1};
    int pidfd = -1, saved = 0;
    struct clone_args args = {
        .flags = CLONE_PIDFD, .pidfd = (uintptr_t)&pidfd, .exit_signal = SIGCHLD};
    if (make_stdio(run, command, theirs) == 0 &&
        guest_cgroup_make(run->session->facts->cgroups, &run->cgroup) == 0) {
        if (run->cgroup.fd >= 0) {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = (__u64)run->cgroup.fd;
        }
        run->pid = (pid_t)syscall(SYS_clone3, &args, sizeof args);
        if (run->pid == 0)
            guest_command_become(command, theirs);
    }
    saved = errno;
    run->fds[SLOT_CHILD] = pidfd;
    for (size_t i = 0; i < 3; i++)
        drop(&theirs[i]);
    errno = saved;
    return run->pid > 0 ? 0 : -1;
}

static void finish(struct run *run)
{
    if (run->pid > 0)
        guest_cgroup_kill(&run->cgroup, run->pid, run->fds[SLOT_CHILD]);
    if (run->pid > 0 && !run->ended)
        waitid(P_PIDFD, (id_t)run->fds[SLOT_CHILD], &run->status, WEXITED);
    for (size_t i = SLOT_OUT; i <= SLOT_CHILD; i++)
        drop(&run->fds[i]);
    guest_cgroup_remove(&run->cgroup);
}

/* ---- run ---- */

static int take_control(struct run *run, const struct guest_frame *frame)
{
    json_t *message =
        json_loadb((const char *)frame->data, frame->len, JSON_REJECT_DUPLICATES, NULL);
    const char *op = json_string_value(json_object_get(message, "op"));
    bool kill = op && strcmp(op, "kill") == 0;
    bool resize = op && strcmp(op, "resize") == 0 &&
                  guest_terminal_resize(run->terminal ? run->fds[SLOT_OUT] : -1, message);
    json_decref(message);
    if (kill)
        guest_cgroup_kill(&run->cgroup, run->pid, run->fds[SLOT_CHILD]);
    return kill || resize ? 0 : -1;
}

/* A terminal has no end; there a user types ^D. */
static void take_input(struct run *run, const struct guest_frame *frame)
{
    static const uint8_t END_OF_TEXT = 4;
    const uint8_t *data = frame->len > 0 ? frame->data : &END_OF_TEXT;
    size_t len = frame->len > 0 ? frame->len : 1;
    if (run->fds[SLOT_IN] < 0)
        return;
    if (frame->len == 0 && !run->terminal) {
        drop(&run->fds[SLOT_IN]);
        return;
    }
    memcpy(run->input, data, len);
    run->input_at = 0;
    run->input_end = len;
}

/* Frames that came for this command. The next one is taken when the command took the last. */
static int take_frames(struct run *run)
{
    struct guest_frame frame;
    int got = 0;
    while (run->input_at == run->input_end && (got = guest_conn_next(run->conn, &frame)) > 0) {
        if (frame.kind == WIRE_STDIN)
            take_input(run, &frame);
        else if (frame.kind != WIRE_CONTROL || take_control(run, &frame))
            return -1;
    }
    return got < 0 || run->conn->ended ? -1 : 0;
}

static void give_input(struct run *run)
{
    if (run->input_at == run->input_end)
        return;
    ssize_t put = -1;
    if (run->fds[SLOT_IN] >= 0)
        put = write(run->fds[SLOT_IN], run->input + run->input_at, run->input_end - run->input_at);
    else
        errno = EPIPE;
    if (put >= 0) {
        run->input_at += (size_t)put;
    } else if (errno != EAGAIN && errno != EINTR) { /* it reads no more: the rest is dropped */
        drop(&run->fds[SLOT_IN]);
        run->input_at = run->input_end;
    }
}

/* One frame of output, if the last one went: the host's pace is the command's. */
static int take_output(struct run *run, int slot, enum wire_kind kind)
{
    uint8_t bytes[GUEST_CHUNK];
    if (run->fds[slot] < 0 || guest_conn_sending(run->conn))
        return 0;
    ssize_t got = read(run->fds[slot], bytes, sizeof bytes);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got <= 0) {
        drop(&run->fds[slot]);
        return 0;
    }
    run->quiet_since = 0;
    if (run->ended)
        run->afterwards += (size_t)got;
    return guest_conn_queue(run->conn, kind, bytes, (size_t)got);
}

static void take_end(struct run *run)
{
    if (run->ended ||
        waitid(P_PIDFD, (id_t)run->fds[SLOT_CHILD], &run->status, WEXITED | WNOHANG) ||
        run->status.si_pid == 0)
        return;
    run->ended = true;
    /* Its children would go on, and hold the output open for ever. */
    guest_cgroup_kill(&run->cgroup, run->pid, run->fds[SLOT_CHILD]);
}

static void check_time(struct run *run)
{
    if (run->timed_out || run->ended || guest_mono_ms() < run->deadline_ms)
        return;
    run->timed_out = true;
    guest_cgroup_kill(&run->cgroup, run->pid, run->fds[SLOT_CHILD]);
}

/* All is said: the command ended and its output is drained. A process that left the cgroup (root
 * can) may hold the output open: it gets a moment of silence, and a bounded number of bytes. */
static bool is_done(struct run *run)
{
    if (!run->ended)
        return false;
    if (run->fds[SLOT_OUT] < 0 && run->fds[SLOT_ERR] < 0)
        return true;
    if (guest_conn_sending(run->conn))
        return false;
    if (run->quiet_since == 0)
        run->quiet_since = guest_mono_ms();
    return run->afterwards > AFTERWARDS_MAX || guest_mono_ms() - run->quiet_since > IDLE_MAX_MS;
}

static int poll_timeout(const struct run *run)
{
    if (run->ended)
        return IDLE_MAX_MS / 4;
    int64_t left = run->deadline_ms - guest_mono_ms();
    return run->timed_out || left > 60000 ? 60000 : (int)(left < 0 ? 0 : left);
}

static void wait_step(struct run *run)
{
    struct pollfd fds[SLOT_COUNT];
    bool room = !guest_conn_sending(run->conn);
    bool feeding = run->input_at < run->input_end;
    for (int i = SLOT_OUT; i <= SLOT_CHILD; i++)
        fds[i] = (struct pollfd){.fd = run->fds[i], .events = POLLIN};
    if (!room) /* POLLHUP comes unasked: leave them out, or this loop spins */
        fds[SLOT_OUT].fd = fds[SLOT_ERR].fd = -1;
    fds[SLOT_IN].events = POLLOUT;
    if (!feeding)
        fds[SLOT_IN].fd = -1;
    if (run->ended)
        fds[SLOT_CHILD].fd = -1;
    fds[SLOT_PRESSURE] =
        (struct pollfd){.fd = run->ended ? -1 : run->cgroup.pressure, .events = POLLPRI};
    guest_conn_poll(run->conn, fds, SLOT_COUNT, poll_timeout(run));
    if (fds[SLOT_PRESSURE].revents & POLLPRI) {
        run->thrashed = true;
        guest_cgroup_kill(&run->cgroup, run->pid, run->fds[SLOT_CHILD]);
    }
}

/* Frames may wait in the buffer when the socket has nothing new to wake us with: take all that can
 * be taken before waiting. */
static int feed(struct run *run)
{
    do {
        if (take_frames(run))
            return -1;
        if (run->input_at == run->input_end)
            return 0;
        give_input(run);
    } while (run->input_at == run->input_end);
    return 0;
}

static int pump(struct run *run)
{
    for (;;) {
        if (feed(run) || guest_conn_absent_ms(run->conn) > ABSENT_MAX_MS) {
            run->conn->ended = true;
            return -1;
        }
        check_time(run);
        if (take_output(run, SLOT_OUT, WIRE_STDOUT) || take_output(run, SLOT_ERR, WIRE_STDERR))
            return -1;
        take_end(run);
        if (is_done(run))
            return 0;
        wait_step(run);
    }
}

static json_t *exit_message(const struct run *run, uint64_t id)
{
    bool exited = run->status.si_code == CLD_EXITED;
    bool oom = run->thrashed || guest_cgroup_oom(&run->cgroup);
    return json_pack("{s:I,s:s,s:i,s:b,s:b,s:I}", "id", (json_int_t)id, "op", "exit",
                     exited ? "code" : "signal", run->status.si_status, "timed_out",
                     run->timed_out ? 1 : 0, "oom_killed", oom ? 1 : 0, "duration_ms",
                     (json_int_t)(guest_mono_ms() - run->start_ms));
}

static int refuse_start(struct guest_session *session, uint64_t id)
{
    return guest_refuse(session, id, "cannot_start", strerror(errno));
}

static int run_command(struct run *run, uint64_t id, const struct guest_command *command)
{
    run->start_ms = guest_mono_ms();
    run->deadline_ms = run->start_ms + command->timeout_ms;
    run->terminal = command->terminal;
    if (start(run, command))
        return refuse_start(run->session, id);
    json_t *accepted = json_pack("{s:I,s:b}", "id", (json_int_t)id, "ok", 1);
    if (guest_conn_send_json(run->conn, accepted) || pump(run))
        return -1;
    return guest_conn_send_json(run->conn, exit_message(run, id));
}

int guest_exec(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_command command = {0};
    struct guest_refusal why;
    struct run run = {.session = session,
                      .conn = session->conn,
                      .cgroup = {.fd = -1, .pressure = -1},
                      .fds = {-1, -1, -1, -1, -1, -1}};
    int result = guest_command_parse(request, &command, &why)
                     ? guest_refuse(session, id, why.code, why.message)
                     : run_command(&run, id, &command);
    finish(&run);
    guest_command_release(&command);
    return result;
}
