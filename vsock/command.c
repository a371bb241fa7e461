/* One command on a service connection: the request, then frames both ways until its exit. */
#include "vsock/internal.h"

#include <sys/eventfd.h>

static int add_pty(cJSON *json, const struct vsock_exec_request *request)
{
    return request->pty &&
           (json_add_bool(json, "pty", true) || json_add_number(json, "rows", request->size.rows) ||
            json_add_number(json, "cols", request->size.cols));
}

/* NULL: out of memory; json_add() takes that for such. */
static cJSON *copy(const cJSON *json)
{
    return cJSON_Duplicate(json, true);
}

static int add_words(cJSON *json, const struct vsock_exec_request *request)
{
    return json_add(json, "argv", copy(request->argv)) ||
           (request->env && json_add(json, "env", copy(request->env))) ||
           (request->cwd && json_add_string(json, "cwd", request->cwd)) ||
           (request->user && json_add_string(json, "user", request->user));
}

static int send_request(struct vsock_command *command, const struct vsock_exec_request *request,
                        struct error *err)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    if (!json || json_add_number(json, "id", (double)command->id) ||
        json_add_string(json, "op", "exec") ||
        json_add_number(json, "timeout_ms", request->timeout_ms) ||
        json_add_bool(json, "stdin", !command->input_ended) || add_pty(json, request) ||
        add_words(json, request))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    return vsock_message_queue(command->conn, json, err);
}

/* Sends what the connection takes: one chunk at a time and only when the last one went, so that the
 * command's pace is ours. */
static int send_some(struct vsock_command *command, struct error *err)
{
    char chunk[VSOCK_CHUNK];
    for (;;) {
        if (vsock_conn_flush(command->conn, err))
            return -1;
        if (!command->accepted || command->input_ended || vsock_conn_sending(command->conn))
            return 0;
        ssize_t len = command->io.input(command->io.context, chunk, sizeof chunk);
        if (len < 0)
            return 0;
        if (vsock_conn_queue(command->conn, WIRE_STDIN, chunk, (size_t)len, err))
            return -1;
        command->input_sent += (uint64_t)len;
        command->input_ended = len == 0;
    }
}

struct exit_fields {
    char *op;
    int64_t id, code, signal, duration_ms;
    bool timed_out, oom_killed;
};

static int take_exit(struct vsock_command *command, const cJSON *message, struct error *err)
{
    static const struct json_field TABLE[] = {
        {"op", JSON_STRING, offsetof(struct exit_fields, op), true, 4, 4},
        {"id", JSON_I64, offsetof(struct exit_fields, id), true, 1, INT64_C(1) << 53},
        {"code", JSON_I64, offsetof(struct exit_fields, code), false, 0, 255},
        {"signal", JSON_I64, offsetof(struct exit_fields, signal), false, 1, 64},
        {"duration_ms", JSON_I64, offsetof(struct exit_fields, duration_ms), true, 0,
         INT64_C(1) << 53},
        {"timed_out", JSON_BOOL, offsetof(struct exit_fields, timed_out), true, 0, 0},
        {"oom_killed", JSON_BOOL, offsetof(struct exit_fields, oom_killed), false, 0, 0},
    };
    struct exit_fields fields = {.code = -1};
    struct error inner = {0};
    int bad = json_decode(message, TABLE, COUNT_OF(TABLE), &fields, &inner);
    bool ours = !bad && strcmp(fields.op, "exit") == 0 && (uint64_t)fields.id == command->id &&
                (fields.code >= 0) != (fields.signal > 0);
    free(fields.op);
    if (!ours)
        return vsock_blame(
            &inner, "the guest broke the protocol: its word on how the command ended is wrong",
            err);
    command->exit = (struct vsock_exit){.code = (int)fields.code,
                                        .signal = (int)fields.signal,
                                        .timed_out = fields.timed_out,
                                        .oom_killed = fields.oom_killed};
    command->done = true;
    return 0;
}

static int take_control(struct vsock_command *command, const struct vsock_frame *frame,
                        struct error *err)
{
    cleanup_json cJSON *message = NULL;
    if (vsock_message_parse(frame, &message, err))
        return -1;
    if (command->accepted)
        return take_exit(command, message, err);
    if (vsock_message_id(message) != command->id)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer to a request never made");
    command->accepted = true;
    return vsock_reply_check(message, err);
}

static int take_frame(struct vsock_command *command, const struct vsock_frame *frame,
                      struct error *err)
{
    if (frame->kind == WIRE_CONTROL)
        return take_control(command, frame, err);
    if (command->accepted && (frame->kind == WIRE_STDOUT || frame->kind == WIRE_STDERR))
        return command->io.output(command->io.context, frame->kind, frame->data, frame->len, err);
    return error_set(err, ERR_GUEST_PROTOCOL, 0,
                     "the guest broke the protocol: data that belongs to no command");
}

/* ---- orders ---- */

static int send_kill(struct vsock_command *command, struct error *err)
{
    static const char KILL[] = "{\"op\":\"kill\"}";
    command->kill_sent = true;
    return vsock_conn_queue(command->conn, WIRE_CONTROL, KILL, sizeof KILL - 1, err);
}

static int send_size(struct vsock_command *command, struct error *err)
{
    char text[64];
    struct vsock_size size = command->size;
    int len = snprintf(text, sizeof text, "{\"op\":\"resize\",\"rows\":%u,\"cols\":%u}", size.rows,
                       size.cols);
    command->resize = false;
    return vsock_conn_queue(command->conn, WIRE_CONTROL, text, (size_t)len, err);
}

static int take_orders(struct vsock_command *command, struct error *err)
{
    eventfd_t ignored;
    (void)eventfd_read(command->io.wake, &ignored);
    struct vsock_orders orders = command->io.orders(command->io.context);
    if (orders.leave)
        return error_set(err, ERR_SHUTTING_DOWN, 0, "the service stops, and its commands with it");
    if (orders.resize) {
        command->resize = true;
        command->size = orders.size;
    }
    if (orders.kill && command->killed_ms == 0) {
        command->killed_ms = clock_mono_ms();
        command->input_ended = true; /* it would stand before the kill */
    }
    return 0;
}

/* They are sent when the guest has taken what was sent before: it may not take anything any more. */
static int follow(struct vsock_command *command, struct error *err)
{
    if (!command->io.orders)
        return 0;
    if (take_orders(command, err))
        return -1;
    if (command->resize && !vsock_conn_sending(command->conn) && send_size(command, err))
        return -1;
    bool kill = command->killed_ms != 0 && !command->kill_sent;
    return kill && !vsock_conn_sending(command->conn) ? send_kill(command, err) : 0;
}

/* A command that is to die, by our word, is given up when the guest does not say soon that it did:
 * it ends what lost its connection. Sooner when the word may stand behind input that the command does not
 * read: more than a pipe holds, so that the agent reads no more either. */
static int64_t patience(const struct vsock_command *command, int64_t deadline_ms)
{
    enum { PIPE_SIZE = 64 * 1024, STUCK_MS = 1000 };
    if (command->killed_ms == 0)
        return deadline_ms;
    int64_t killed =
        command->killed_ms + (command->input_sent >= PIPE_SIZE ? STUCK_MS : VSOCK_GRACE_MS);
    return killed < deadline_ms ? killed : deadline_ms;
}

/* Waits for either direction; a guest that never stops sending does not get past the deadline. Orders
 * are followed once the command is accepted: before, they wake nobody. */
static int wait_step(struct vsock_command *command, int cancel, int64_t deadline_ms,
                     struct error *err)
{
    short events = vsock_conn_sending(command->conn) ? POLLIN | POLLOUT : POLLIN;
    bool hears = command->accepted && command->io.orders != NULL;
    struct pollfd fds[] = {{.fd = command->conn->fd, .events = events},
                           {.fd = cancel, .events = POLLIN},
                           {.fd = hears ? command->io.wake : -1, .events = POLLIN}};
    if (clock_left_ms(deadline_ms) == 0)
        return error_set(err, ERR_GUEST_TIMEOUT, 0,
                         "the guest did not end the command in the time it had");
    if (vsock_poll(fds, COUNT_OF(fds), deadline_ms, err))
        return -1;
    if (fds[1].revents)
        return error_set(err, ERR_CANCELLED, 0, "the VM ended before its command did");
    return 0;
}

/* Until it is accepted, or until its end. */
static int pump(struct vsock_command *command, bool begins, int cancel, int64_t deadline_ms,
                struct error *err)
{
    for (;;) {
        struct vsock_frame frame;
        int got;
        while ((got = vsock_conn_next(command->conn, &frame, err)) > 0) {
            if (take_frame(command, &frame, err))
                return -1;
            if (begins || command->done)
                return 0;
        }
        if (got < 0 || (!begins && follow(command, err)) || send_some(command, err) ||
            wait_step(command, cancel, patience(command, deadline_ms), err) ||
            vsock_conn_fill(command->conn, VSOCK_FRAME_SIZE, err) < 0)
            return -1;
    }
}

int vsock_command_begin(struct vsock_conn *conn, const struct vsock_exec_request *request,
                        const struct vsock_command_io *io, int cancel, int64_t deadline_ms,
                        struct vsock_command *ret, struct error *err)
{
    *ret = (struct vsock_command){
        .conn = conn, .io = *io, .id = conn->next_id++, .input_ended = io->input == NULL};
    if (send_request(ret, request, err))
        return -1;
    int result = pump(ret, true, cancel, deadline_ms, err);
    if (result < 0 && err->code != ERR_GUEST_REFUSED)
        conn->over = true;
    return result;
}

int vsock_command_run(struct vsock_command *command, int cancel, int64_t deadline_ms,
                      struct vsock_exit *ret, struct error *err)
{
    if (pump(command, false, cancel, deadline_ms, err)) {
        command->conn->over = true;
        return -1;
    }
    *ret = command->exit;
    return 0;
}
