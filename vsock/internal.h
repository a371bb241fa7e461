/* vsock, inside: the two halves of a connection, and what several files say about messages. */
#ifndef MOTTE_VSOCK_INTERNAL_H
#define MOTTE_VSOCK_INTERNAL_H

#include "vsock/vsock.h"
#include <poll.h>

enum {
    VSOCK_FRAME_SIZE = WIRE_HEADER_SIZE + WIRE_FRAME_MAX,
    VSOCK_QUEUE_MIN = 4096,
    VSOCK_READ_AHEAD = 16 * VSOCK_FRAME_SIZE, /* most that is kept unread while we write */
    VSOCK_CHUNK = 32768,                      /* of stdin in a frame */
    VSOCK_GRACE_MS = 5000,                    /* for the guest to say that a command has ended */
    VSOCK_MARK_SIZE = WIRE_TOKEN_SIZE + WIRE_NONCE_SIZE,
};

/* The bytes between `at` and `end` wait. */
struct vsock_queue {
    uint8_t *data; /* owned */
    size_t at, end, cap;
};

/* The reading half (in, taken, ended) and the writing half (out) share nothing but fd, so that one
 * thread may read while another writes: the channel does. */
struct vsock_conn {
    int fd;
    int cancel; /* borrowed; reading ends when it is readable; -1: nothing does */
    struct vsock_queue in, out;
    size_t taken;     /* bytes of `in` that the frame handed out last occupies */
    bool ended;       /* the peer sent its last byte */
    bool over;        /* where the next frame begins is not known any more */
    uint64_t next_id; /* of our next request */
};

/* Takes what is there, up to `max` unread bytes. 1: bytes came. 0: nothing now, or no room. -1: the
 * peer is gone. */
int vsock_conn_fill(struct vsock_conn *conn, size_t max, struct error *err);
/* 1 and the next whole frame; 0: bytes are missing; -1: what came is no frame. */
int vsock_conn_next(struct vsock_conn *conn, struct vsock_frame *ret, struct error *err);
/* Appends one frame to what is still to be sent. */
int vsock_conn_queue(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len,
                     struct error *err);
/* Sends what the socket takes now. */
int vsock_conn_flush(struct vsock_conn *conn, struct error *err);
bool vsock_conn_sending(const struct vsock_conn *conn);
/* poll() until the deadline, then ERR_GUEST_TIMEOUT. Fills revents. */
int vsock_poll(struct pollfd *fds, nfds_t count, int64_t deadline_ms, struct error *err);
/* Gives the read buffer's memory back when nothing is in it. */
void vsock_conn_trim(struct vsock_conn *conn);
/* Forgets the first `len` unread bytes (connecting only: they are no frames yet). */
void vsock_queue_drop(struct vsock_queue *queue, size_t len);

/* Waits a little, longer each time (*pause_ms from 1), but not past the deadline. -1: the VM has
 * ended. */
int vsock_pause(int *pause_ms, int cancel, int64_t deadline_ms, struct error *err);
/* Firecracker's answer to CONNECT. 1: "OK <number>\n" was there and is taken. 0: not whole yet. */
int vsock_answer_take(struct vsock_conn *conn, struct error *err);
/* 1: the mark was found and is taken, with all that stood before it. 0: not yet. */
int vsock_mark_take(struct vsock_conn *conn, const uint8_t mark[static VSOCK_MARK_SIZE]);

/* JSON as one control frame into the queue. ERR_BODY_TOO_LARGE if it does not fit a frame. */
int vsock_message_queue(struct vsock_conn *conn, const cJSON *json, struct error *err);
/* The object in a control frame. Caller frees. */
int vsock_message_parse(const struct vsock_frame *frame, cJSON **ret, struct error *err);
/* For a message that could not be read (`inner`; nothing set: it was, and is wrong): ERR_NO_MEMORY
 * if that was our want, else ERR_GUEST_PROTOCOL with `what` in front. Returns -1. */
int vsock_blame(const struct error *inner, const char *what, struct error *err);
/* "id" of a message; 0 if there is none that is a whole number ≥ 1. */
uint64_t vsock_message_id(const cJSON *message);
/* {"ok":true} → 0; {"ok":false} → ERR_GUEST_REFUSED with the agent's words, made harmless. */
int vsock_reply_check(const cJSON *reply, struct error *err);
/* The guest's words go to logs and answers: cut to size, anything but printable ASCII becomes '?'.
 */
void vsock_words_copy(char *out, size_t size, const char *words);

/* file.c, for all that is about files. */
/* As long as a guest may take for the next bytes. */
int64_t vsock_file_patience(void);
/* {"id":…,"op":…,"path":…}; NULL: out of memory, which vsock_file_send() tells. */
cJSON *vsock_file_request(const char *op, uint64_t id, const char *path);
int vsock_file_send(struct vsock_conn *conn, const cJSON *json, struct error *err);
/* Is it the answer to request `id`, and says yes? Refusals become what they mean. */
int vsock_file_check(const cJSON *reply, uint64_t id, struct error *err);
/* Waits for that answer. */
int vsock_file_answer(struct vsock_conn *conn, uint64_t id, cJSON **ret, struct error *err);
/* Until the source has no more. A guest that answers before has refused, and takes no more: then
 * *ret_size is -1, what no answer that says yes can name. */
int vsock_file_send_all(struct vsock_conn *conn, const struct vsock_source *source,
                        int64_t *ret_size, struct error *err);
/* Up to the frame that ends it; exactly `length` bytes, or any number where that is -1. */
int vsock_file_take_all(struct vsock_conn *conn, int64_t length, const struct vsock_sink *sink,
                        struct error *err);
/* What goes wrong in the middle leaves bytes that belong to nothing; only a refusal does not. Returns
 * `result`. */
int vsock_file_ended(struct vsock_conn *conn, int result, const struct error *err);

#endif
