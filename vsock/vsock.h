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

/* ---- restore --------------------------------------------------------------------------------- */

/* Strings and token are borrowed. */
struct vsock_restore_request {
    const char *instance;   /* who the machine is from now on */
    uint32_t generation;    /* larger than the one in the agent's hello, ≥ 1 */
    const char *hostname;   /* 1…63 letters, digits, hyphens */
    const char *machine_id; /* 32 lower-case hexadecimal digits */
    const uint8_t *token;   /* WIRE_TOKEN_SIZE bytes; serial ports: required; vsock: may be NULL */
};
struct vsock_restored {
    int64_t clock_skew_ms; /* by the guest's word: what its clock lacked; negative: was ahead */
    bool skew_known;       /* false: the answer was lost, see vsock_restore_hybrid() */
};
/* Makes a machine that comes from a snapshot one of its own: tells the agent who it is, what time
 * it is (after three pings, by which it knows how old its word is), and fresh randomness (drawn
 * here). Takes a fresh service connection, which is of no use afterwards (only after
 * ERR_GUEST_REFUSED it is as before). The agent has then begun anew and ended all old sessions:
 * take its hello (vsock_hello_accept; serial ports: port 0, opened with the new token) and look at
 * the generation in it before anything else. No other session may be opened between this call and
 * its return. ERR_GUEST_REFUSED: a step failed, or the generation is not larger: the agent is what
 * it was. */
int vsock_restore(struct vsock_conn *conn, const struct vsock_restore_request *request,
                  int64_t deadline_ms, struct vsock_restored *ret, struct error *err);
/* The whole of it under Firecracker: connects to the service port and restores. A connection to a
 * guest that comes from a snapshot may be cut at any time, by the reset of its transport or by what
 * it still sends for an old connection with the same ports: then connects and tries again. If it was
 * the answer that got lost, the agent refuses the repeated request and is known by its hello. */
int vsock_restore_hybrid(int uds, const struct vsock_restore_request *request, int cancel,
                         int64_t deadline_ms, struct vsock_restored *ret, struct error *err);

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

struct vsock_size { /* of a terminal, 1 … 65535 */
    uint16_t rows, cols;
};

struct vsock_exec_request {
    const cJSON *argv;      /* array of strings, ≥ 1; borrowed */
    const cJSON *env;       /* object of strings or NULL; borrowed */
    const char *cwd, *user; /* or NULL: the agent's defaults ("/", root) */
    uint32_t timeout_ms;    /* the guest kills the tree then */
    bool pty;               /* on a terminal of this size; all its output is WIRE_STDOUT */
    struct vsock_size size;
    /* vsock_exec() alone: */
    const char *input; /* stdin, or NULL: empty */
    size_t input_len;
    size_t output_max; /* per stream; more is read and dropped, and flagged */
};

/* What the other end of a command wants of the thread that runs it. */
struct vsock_orders {
    bool kill;   /* end it, and all it started; said once or again */
    bool leave;  /* give it up, with ERR_SHUTTING_DOWN */
    bool resize; /* its terminal */
    struct vsock_size size;
};
/* Called by that thread alone. */
struct vsock_command_io {
    void *context;
    /* Takes what the command wrote, WIRE_STDOUT or WIRE_STDERR, at most WIRE_FRAME_MAX; -1 with err
     * set ends it all. */
    int (*output)(void *context, enum wire_kind kind, const uint8_t *data, size_t len,
                  struct error *err);
    /* Copies what it reads: a count; 0: no more will come; -1: none now, `wake` tells. NULL: its input
     * is empty. */
    ssize_t (*input)(void *context, char *out, size_t size);
    /* Asked when `wake`, an eventfd (borrowed), is readable. NULL: there are none. */
    struct vsock_orders (*orders)(void *context);
    int wake;
};
struct vsock_exit {
    int code;   /* -1 if ended by a signal */
    int signal; /* 0 if it exited */
    bool timed_out;
    bool oom_killed; /* by the guest's word */
};
/* One that the guest has begun with; the members are this folder's. */
struct vsock_command {
    struct vsock_conn *conn; /* borrowed */
    struct vsock_command_io io;
    uint64_t id;
    bool accepted, input_ended, done, kill_sent, resize;
    int64_t killed_ms; /* when that was asked for; 0: it was not */
    uint64_t input_sent;
    struct vsock_size size;
    struct vsock_exit exit;
};
/* Begins a command on a service connection; `request` is not needed any more when it returns.
 * ERR_GUEST_REFUSED: there is none. `cancel` when readable (the VM is gone) → ERR_CANCELLED. */
int vsock_command_begin(struct vsock_conn *conn, const struct vsock_exec_request *request,
                        const struct vsock_command_io *io, int cancel, int64_t deadline_ms,
                        struct vsock_command *ret, struct error *err);
/* Until it has ended. The deadline holds also when the agent is wedged, and one that was told to kill
 * has 5 s, or 1 s where input may stand before that word: ERR_GUEST_TIMEOUT. After an error the connection is unusable, and the guest ends the
 * command when it is closed. */
int vsock_command_run(struct vsock_command *command, int cancel, int64_t deadline_ms,
                      struct vsock_exit *ret, struct error *err);

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

/* ---- files ---------------------------------------------------------------------------------- */

/* Each on a service connection. They wait as long as bytes move; a guest that does not take or give
 * 32 KiB in 30 s is ERR_GUEST_TIMEOUT. Of refusals ERR_FILE_UNKNOWN, ERR_ARCHIVE and ERR_GUEST_FULL (no room in the guest)
 * are told apart. `cancel` when readable (the VM is gone) → ERR_CANCELLED. */

/* Where the bytes come from: up to `size` of them; 0: the end. It may block. On -1 nothing is kept. */
struct vsock_source {
    ssize_t (*read)(void *context, void *data, size_t size, struct error *err);
    void *context;
};
/* Where they go. It may block. */
struct vsock_sink {
    int (*write)(void *context, const void *data, size_t len, struct error *err);
    void *context;
};

struct vsock_file_put {
    const char *path; /* absolute, UTF-8 */
    uint32_t mode;    /* ≤ 07777 */
    bool parents;     /* make the directories that lead to it */
};
/* Writes a file, which has its name (or replaces what had it) when all of it is there, or never. The
 * connection is of no use after an error. */
int vsock_file_put(struct vsock_conn *conn, const struct vsock_file_put *file,
                   const struct vsock_source *source, int cancel, struct error *err);

struct vsock_file_info {
    int64_t size; /* below 2^53 */
    uint32_t mode;
    int64_t mtime_ms;
};
/* Opens a file; then vsock_file_read(), once, gives a part of it, which must lie in it. A file that
 * becomes shorter meanwhile is ERR_GUEST_CLOSED. */
int vsock_file_open(struct vsock_conn *conn, const char *path, int cancel,
                    struct vsock_file_info *ret, struct error *err);
int vsock_file_read(struct vsock_conn *conn, int64_t offset, int64_t length,
                    const struct vsock_sink *sink, struct error *err);
/* A file, or a directory that is empty, or with all that is in it. */
int vsock_file_remove(struct vsock_conn *conn, const char *path, bool recursive, int cancel,
                      struct error *err);

enum {
    VSOCK_NAME_MAX = 255,
    VSOCK_NAME_HEX_SIZE = 2 * VSOCK_NAME_MAX + 1,
    VSOCK_LINK_MAX = 4095,
    VSOCK_LIST_MAX = 500
};

/* What is in a directory. Names and targets are the guest's bytes, of any encoding; no NUL. */
struct vsock_entry {
    char name[VSOCK_NAME_MAX + 1];
    const char
        *type; /* "file", "directory", "symlink", "fifo", "socket", "char_device", "block_device" */
    bool link; /* has a target */
    char target[VSOCK_LINK_MAX + 1];
    int64_t size, mtime_ms; /* within ±2^53 */
    uint32_t mode;
};
struct vsock_lister { /* -1 ends it */
    int (*entry)(void *context, const struct vsock_entry *entry, struct error *err);
    void *context;
};
/* Gives at most `limit` (1 … VSOCK_LIST_MAX) entries of a directory, in the order of their names'
 * bytes, after the name that `after` has in hexadecimal digits ("": from the start). `ret_next` is
 * where to go on, "" after the last. */
int vsock_file_list(struct vsock_conn *conn, const char *path, const char *after, uint32_t limit,
                    const struct vsock_lister *lister, int cancel,
                    char ret_next[static VSOCK_NAME_HEX_SIZE], struct error *err);

/* A directory as a tar archive of unknown length: opened, then read once. What is in it is the guest's
 * word. A guest that cannot go on is a refusal at the end, when bytes have come already. */
int vsock_archive_open(struct vsock_conn *conn, const char *path, int cancel, uint64_t *ret_id,
                       struct error *err);
int vsock_archive_read(struct vsock_conn *conn, uint64_t id, const struct vsock_sink *sink,
                       struct error *err);

struct vsock_unpacked {
    int64_t entries, size; /* members; bytes of files */
    bool created;          /* the directory was not there before */
};
/* Unpacks one into a directory. One that was not there is there when all of it is, or never; one that
 * was has each member whole or not. ERR_ARCHIVE: it is none, or would reach out of the directory. The
 * connection is of no use after an error. */
int vsock_archive_put(struct vsock_conn *conn, const char *path, bool parents,
                      const struct vsock_source *source, int cancel, struct vsock_unpacked *ret,
                      struct error *err);

#endif
