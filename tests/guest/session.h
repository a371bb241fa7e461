/*
 * One session per connection: takes frames apart, answers ping and hello, runs one command at a
 * time. `struct guest` is all the state there is.
 */
#ifndef MOTTE_TESTS_GUEST_SESSION_H
#define MOTTE_TESTS_GUEST_SESSION_H

#include "block.h"
#include "file.h"
#include "identity.h"
#include "json.h"
#include "vsock.h"

/*
 * Room that output leaves in the transmit ring, so that a kill is always taken and the exit frame
 * follows; room for one reply of a request.
 */
enum { SESSION_RESERVE = 2048, SESSION_REPLY_MAX = 512, SESSION_DATA_MAX = WIRE_FRAME_MAX - 1 };

struct command {
    const struct command_kind *kind; /* NULL: none runs */
    uint64_t id, started_ms;
    uint64_t deadline_ms, wake_ms; /* 0: never */
    uint64_t offset, left;         /* flood */
    bool input_open, ended, timed_out;
    bool deaf;        /* neither a kill nor the clock ends it */
    int code, signal; /* how it ended; signal 0: by code */
};

struct session {
    uint32_t conn_id;       /* of the connection it belongs to */
    bool greeted, answered; /* the hello connection's handshake */
    bool has_last_id;
    uint64_t last_id;
    struct command command;
    struct file_transfer transfer;
};

struct guest {
    struct vsock vsock;
    struct block_disk disks[BLOCK_DISKS];
    struct session sessions[VSOCK_CONNECTIONS];
    struct files files;
    const char *cmdline;
    bool greeted;    /* hello was said since boot, or since the last restore */
    uint32_t called; /* connections to the host that it took */
    bool looks;      /* at its clock, every LOOK_MS: `pauses` */
    uint64_t looked_ms, longest_ms;
    uint64_t chatter_left, chattered, hog_mib; /* of chatter */
    struct identity identity;
    struct random random;
    uint64_t wall_offset_ms; /* wall clock less guest_clock_ms(); 0 until a restore sets it */
    unsigned betrayal;       /* enum liar_betrayal, by the command */
    uint8_t frame[WIRE_HEADER_SIZE + WIRE_FRAME_MAX];
    char text[WIRE_FRAME_MAX];               /* what a command puts together */
    uint8_t pattern[SESSION_DATA_MAX + 251]; /* flood; made on first use */
};

/* One step of all sessions; true if any moved. */
bool session_step(struct guest *guest);
/* From now on the clock is looked at now and then, and the longest time between two looks kept; the
 * longest until now. */
uint64_t session_look(struct guest *guest);
/* When the next command ends by the clock, or is looked at it; 0: never. */
uint64_t session_wake_ms(const struct guest *guest);
/* Queues a frame: the caller has seen that there is room for len + 5 bytes. */
void session_send(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len);

#endif
