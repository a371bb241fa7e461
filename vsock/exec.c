/* A command whose input is known and whose output is wanted when it has ended. */
#include "vsock/internal.h"

struct exec_run {
    const struct vsock_exec_request *request;
    struct vsock_exec_result *result;
    size_t input_at;
};

void vsock_exec_result_release(struct vsock_exec_result *result)
{
    buf_release(&result->out);
    buf_release(&result->err_out);
}

static int keep_output(void *context, enum wire_kind kind, const uint8_t *data, size_t len,
                       struct error *err)
{
    struct vsock_exec_result *result = ((struct exec_run *)context)->result;
    struct buf *buf = kind == WIRE_STDOUT ? &result->out : &result->err_out;
    bool *truncated = kind == WIRE_STDOUT ? &result->out_truncated : &result->err_truncated;
    size_t room = buf->max - buf->len;
    size_t kept = len < room ? len : room;
    *truncated = *truncated || kept < len;
    if (kept > 0 && buf_append(buf, data, kept))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a command's output");
    return 0;
}

static ssize_t give_input(void *context, char *out, size_t size)
{
    struct exec_run *run = context;
    size_t left = run->request->input_len - run->input_at;
    size_t len = left < size ? left : size;
    memcpy(out, run->request->input + run->input_at, len);
    run->input_at += len;
    return (ssize_t)len;
}

int vsock_exec(struct vsock_conn *conn, const struct vsock_exec_request *request, int cancel,
               struct vsock_exec_result *ret, struct error *err)
{
    cleanup(vsock_exec_result_release) struct vsock_exec_result result = {
        .out = {.max = request->output_max}, .err_out = {.max = request->output_max}};
    struct exec_run run = {.request = request, .result = &result};
    const struct vsock_command_io io = {
        .context = &run, .output = keep_output, .input = request->input ? give_input : NULL};
    struct vsock_command command;
    struct vsock_exit exit = {0};
    int64_t start_us = clock_mono_us();
    int64_t deadline_ms = clock_mono_ms() + request->timeout_ms + VSOCK_GRACE_MS;
    int ended = vsock_command_begin(conn, request, &io, cancel, deadline_ms, &command, err);
    if (ended == 0)
        ended = vsock_command_run(&command, cancel, deadline_ms, &exit, err);
    if (ended < 0 && err->code != ERR_GUEST_TIMEOUT)
        return -1;
    result.exit_code = exit.code;
    result.exit_signal = exit.signal;
    result.timed_out = exit.timed_out;
    result.oom_killed = exit.oom_killed;
    result.duration_ms = (clock_mono_us() - start_us) / 1000;
    *ret = result;
    result = (struct vsock_exec_result){0};
    return ended;
}
