/*
 * vsock: messages between the host and a guest's agent. Connecting (Firecracker's hybrid vsock over
 * a Unix socket, QEMU's serial ports), frames through one buffered reader per connection for its
 * life, a request/reply channel for many threads, and exec streams. The bytes are in vsock/wire.h.
 *
 * The guest is hostile: everything read from it is bounded and checked. Deadlines are
 * clock_mono_ms() values. Errors: ERR_GUEST_CLOSED (peer gone), ERR_GUEST_TIMEOUT,
 * ERR_GUEST_PROTOCOL (bad frame, bad JSON, unknown reply id), ERR_GUEST_REFUSED (the agent said no;
 * its words).
 */
#ifndef MOTTE_VSOCK_H
#define MOTTE_VSOCK_H

#include "vsock/wire.h"
#include "json/json.h"

/* ---- connections: one thread at a time ------------------------------------------------------ */

struct vsock_conn; /* owns its descriptor (non-blocking) and both buffers */

/* Takes fd in any case. NULL on error. */
struct vsock_conn *vsock_conn_new(int fd, struct error *err);
void vsock_conn_free(struct vsock_conn *conn);
int vsock_conn_fd(const struct vsock_conn *conn); /* borrowed, to poll */

/* `cancel`, here and below, is a descriptor that ends a wait when readable, with ERR_CANCELLED (a
 * pidfd, say), or -1. `uds` is an O_PATH or real descriptor of the VMM's Unix socket (borrowed);
 * connects through /proc/self/fd. Hybrid: sends "CONNECT <port>\n" in one write, wants "OK <n>\n",
 * retries refused or reset attempts until the deadline (a guest without a driver gives neither
 * answer nor close). */
int vsock_connect(int uds, uint32_t port, int cancel, int64_t deadline_ms, struct vsock_conn **ret,
                  struct error *err);
/* Serial: connects, sends the mark, discards up to the answered mark. Returns when the guest's
 * agent is there: with a fresh boot that is the readiness event. Reconnects if QEMU closes. */
int vsock_serial_open(int uds, const uint8_t token[static WIRE_TOKEN_SIZE], int cancel,
                      int64_t deadline_ms, struct vsock_conn **ret, struct error *err);
/* Waits for the guest's hello connection on a listening Unix socket (borrowed). */
int vsock_accept(int listener, int cancel, int64_t deadline_ms, struct vsock_conn **ret,
                 struct error *err);

struct vsock_frame {
    enum wire_kind kind;
    const uint8_t *data; /* borrowed from the connection until its next call */
    size_t len;
};
/* Next frame; blocks until the deadline. */
int vsock_read(struct vsock_conn *conn, int64_t deadline_ms, struct vsock_frame *ret,
               struct error *err);
/* Queues and flushes one frame; reads what arrives meanwhile into the read buffer (up to its
 * bound), so that two peers that write at once do not deadlock. */
int vsock_write(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len,
                int64_t deadline_ms, struct error *err);
/* Control frame from JSON (borrowed). */
int vsock_write_json(struct vsock_conn *conn, const cJSON *json, int64_t deadline_ms,
                     struct error *err);
/* Next frame, which must be a control frame. Caller frees *ret. */
int vsock_read_json(struct vsock_conn *conn, int64_t deadline_ms, cJSON **ret, struct error *err);

/* ---- hello ---------------------------------------------------------------------------------- */

struct vsock_hello {
    char instance[ID_INSTANCE_SIZE];
    char agent[64], kernel[96];
    uint32_t protocol, generation;
    int64_t boot_ms;
};
/* Reads the guest's hello on a fresh hello connection, checks protocol and instance, answers it. */
int vsock_hello_accept(struct vsock_conn *conn, const char *instance, int64_t deadline_ms,
                       struct vsock_hello *ret, struct error *err);
/* Asks {"op":"hello"} on a service connection (adoption) and checks the same. */
int vsock_hello_ask(struct vsock_conn *conn, const char *instance, int64_t deadline_ms,
                    struct vsock_hello *ret, struct error *err);

/* ---- channel: requests from many threads over one connection --------------------------------- */

struct vsock_channel;
/* Called from vsock_channel_readable() for a control message without a pending reply ("bye"). */
typedef void vsock_notify(void *context, const cJSON *message);

/* Takes conn in any case. Nobody reads until vsock_channel_readable() is called; one monitor thread
 * (or poll loop) calls it for all channels. */
struct vsock_channel *vsock_channel_new(struct vsock_conn *conn, vsock_notify *notify,
                                        void *context, struct error *err);
void vsock_channel_free(struct vsock_channel *channel); /* fails the calls still waiting */
int vsock_channel_fd(const struct vsock_channel *channel);
/* Reads what is there without blocking and wakes the callers whose replies came. -1 when the
 * channel is over (closed or broken): all waiting calls have failed, later ones fail at once. */
int vsock_channel_readable(struct vsock_channel *channel, struct error *err);
/* Sends `request` (borrowed; its "id" is set here) and waits for the reply with that id. Any
 * thread; at most 64 at once (ERR_BUSY beyond). A late reply after a timed-out call is dropped, not
 * an error. Caller frees *ret_reply. */
int vsock_channel_call(struct vsock_channel *channel, cJSON *request, int64_t deadline_ms,
                       cJSON **ret_reply, struct error *err);

/* ---- exec ----------------------------------------------------------------------------------- */

struct vsock_exec_request {
    const cJSON *argv;      /* array of strings, ≥ 1; borrowed */
    const cJSON *env;       /* object of strings or NULL; borrowed */
    const char *cwd, *user; /* or NULL: the agent's defaults ("/", root) */
    const char *input;      /* stdin, or NULL: empty */
    size_t input_len;
    uint32_t timeout_ms; /* the guest kills the tree then */
    size_t output_max;   /* per stream; more is read and dropped, and flagged */
};

struct vsock_exec_result {
    struct buf out, err_out; /* owned; vsock_exec_result_release */
    bool out_truncated, err_truncated;
    bool timed_out;
    bool oom_killed;     /* by the guest's word */
    int exit_code;       /* -1 if ended by a signal */
    int exit_signal;     /* 0 if it exited */
    int64_t duration_ms; /* as the host saw it */
};
void vsock_exec_result_release(struct vsock_exec_result *result);

/* Runs one command on a service connection, reading and writing independently. The deadline holds
 * even when the agent is wedged: timeout_ms + grace of 5 s, then ERR_GUEST_TIMEOUT, with what came
 * until then in *ret, and the connection is unusable. When the guest reports timed_out this still
 * returns 0. `cancel` when readable (the VM is gone) → ERR_CANCELLED. */
int vsock_exec(struct vsock_conn *conn, const struct vsock_exec_request *request, int cancel,
               struct vsock_exec_result *ret, struct error *err);

#endif
