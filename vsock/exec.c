#include "vsock/internal.h"

enum { GRACE_MS = 5000 };

struct exec_run {
    struct vsock_conn *conn;
    const struct vsock_exec_request *request;
    struct vsock_exec_result *result;
    uint64_t id;
    size_t input_at;
    bool accepted, input_ended, done;
};

void vsock_exec_result_release(struct vsock_exec_result *result)
{
    buf_release(&result->out);
    buf_release(&result->err_out);
}

static int send_request(struct exec_run *run, struct error *err)
{
    const struct vsock_exec_request *request = run->request;
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *argv = cJSON_Duplicate(request->argv, true);
    bool failed = !json || json_add_number(json, "id", (double)run->id) ||
                  json_add_string(json, "op", "exec") ||
                  json_add_number(json, "timeout_ms", request->timeout_ms) ||
                  json_add_bool(json, "stdin", request->input != NULL);
    if (failed || !argv) {
        cJSON_Delete(argv);
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    }
    failed = json_add(json, "argv", argv) ||
             (request->cwd && json_add_string(json, "cwd", request->cwd)) ||
             (request->user && json_add_string(json, "user", request->user));
    if (!failed && request->env) {
        cJSON *env = cJSON_Duplicate(request->env, true);
        failed = !env || json_add(json, "env", env);
    }
    if (failed)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    return vsock_message_queue(run->conn, json, err);
}

/* Sends what the connection takes: one chunk at a time and only when the last one went, so that the
 * command's pace is ours. */
static int send_some(struct exec_run *run, struct error *err)
{
    const struct vsock_exec_request *request = run->request;
    for (;;) {
        if (vsock_conn_flush(run->conn, err))
            return -1;
        if (!run->accepted || !request->input || run->input_ended || vsock_conn_sending(run->conn))
            return 0;
        size_t left = request->input_len - run->input_at;
        size_t len = left < VSOCK_CHUNK ? left : VSOCK_CHUNK;
        if (vsock_conn_queue(run->conn, WIRE_STDIN, request->input + run->input_at, len, err))
            return -1;
        run->input_at += len;
        run->input_ended = len == 0;
    }
}

static int keep_output(struct buf *buf, bool *truncated, const struct vsock_frame *frame,
                       struct error *err)
{
    size_t room = buf->max - buf->len;
    size_t len = frame->len < room ? frame->len : room;
    *truncated = *truncated || len < frame->len;
    if (len > 0 && buf_append(buf, frame->data, len))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a command's output");
    return 0;
}

struct exit_fields {
    char *op;
    int64_t id, code, signal, duration_ms;
    bool timed_out, oom_killed;
};

static int take_exit(struct exec_run *run, const cJSON *message, struct error *err)
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
    bool ours = !bad && strcmp(fields.op, "exit") == 0 && (uint64_t)fields.id == run->id &&
                (fields.code >= 0) != (fields.signal > 0);
    free(fields.op);
    if (!ours)
        return vsock_blame(
            &inner, "the guest broke the protocol: its word on how the command ended is wrong",
            err);
    run->result->exit_code = (int)fields.code;
    run->result->exit_signal = (int)fields.signal;
    run->result->timed_out = fields.timed_out;
    run->result->oom_killed = fields.oom_killed;
    run->done = true;
    return 0;
}

static int take_control(struct exec_run *run, const struct vsock_frame *frame, struct error *err)
{
    cleanup_json cJSON *message = NULL;
    if (vsock_message_parse(frame, &message, err))
        return -1;
    if (run->accepted)
        return take_exit(run, message, err);
    if (vsock_message_id(message) != run->id)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer to a request never made");
    run->accepted = true;
    return vsock_reply_check(message, err);
}

static int take_frame(struct exec_run *run, const struct vsock_frame *frame, struct error *err)
{
    struct vsock_exec_result *result = run->result;
    if (frame->kind == WIRE_CONTROL)
        return take_control(run, frame, err);
    if (run->accepted && frame->kind == WIRE_STDOUT)
        return keep_output(&result->out, &result->out_truncated, frame, err);
    if (run->accepted && frame->kind == WIRE_STDERR)
        return keep_output(&result->err_out, &result->err_truncated, frame, err);
    return error_set(err, ERR_GUEST_PROTOCOL, 0,
                     "the guest broke the protocol: data that belongs to no command");
}

/* Waits for either direction; a guest that never stops sending does not get past the deadline. */
static int wait_step(struct exec_run *run, int cancel, int64_t deadline_ms, struct error *err)
{
    short events = vsock_conn_sending(run->conn) ? POLLIN | POLLOUT : POLLIN;
    struct pollfd fds[] = {{.fd = run->conn->fd, .events = events},
                           {.fd = cancel, .events = POLLIN}};
    if (clock_left_ms(deadline_ms) == 0)
        return error_set(err, ERR_GUEST_TIMEOUT, 0,
                         "the guest did not end the command in the time it had");
    if (vsock_poll(fds, COUNT_OF(fds), deadline_ms, err))
        return -1;
    if (fds[1].revents)
        return error_set(err, ERR_CANCELLED, 0, "the VM ended before its command did");
    return 0;
}

static int pump(struct exec_run *run, int cancel, int64_t deadline_ms, struct error *err)
{
    for (;;) {
        struct vsock_frame frame;
        int got;
        while ((got = vsock_conn_next(run->conn, &frame, err)) > 0) {
            if (take_frame(run, &frame, err))
                return -1;
            if (run->done)
                return 0;
        }
        if (got < 0 || send_some(run, err) || wait_step(run, cancel, deadline_ms, err) ||
            vsock_conn_fill(run->conn, VSOCK_FRAME_SIZE, err) < 0)
            return -1;
    }
}

int vsock_exec(struct vsock_conn *conn, const struct vsock_exec_request *request, int cancel,
               struct vsock_exec_result *ret, struct error *err)
{
    cleanup(vsock_exec_result_release) struct vsock_exec_result result = {
        .out = {.max = request->output_max}, .err_out = {.max = request->output_max}};
    struct exec_run run = {
        .conn = conn, .request = request, .result = &result, .id = conn->next_id++};
    int64_t start_us = clock_mono_us();
    int64_t deadline_ms = clock_mono_ms() + request->timeout_ms + GRACE_MS;
    if (send_request(&run, err))
        return -1;
    int ended = pump(&run, cancel, deadline_ms, err);
    if (ended < 0 && err->code != ERR_GUEST_REFUSED)
        conn->over = true;
    if (ended < 0 && err->code != ERR_GUEST_TIMEOUT)
        return -1;
    result.duration_ms = (clock_mono_us() - start_us) / 1000;
    *ret = result;
    result = (struct vsock_exec_result){0};
    return ended;
}
