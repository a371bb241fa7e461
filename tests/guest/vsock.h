/*
 * The transport: stream connections over virtio-vsock (virtio 1.1, section 5.10) with credit in
 * both directions. Each connection has a ring for what came and a ring for what goes, both larger
 * than the largest frame. What is not taken from the first holds the peer back; the second is sent
 * from where it lies. So one slow connection does not stop another.
 */
#ifndef MOTTE_TESTS_GUEST_VSOCK_H
#define MOTTE_TESTS_GUEST_VSOCK_H

#include "virtio.h"
#include "vsock/wire.h"

enum {
    VSOCK_CONNECTIONS = 64,
    VSOCK_RING = 131072, /* a power of two */
    VSOCK_PACKET_MAX = 65536,
    VSOCK_RX_BUFFERS = 16,
    VSOCK_TX_SLOTS = VIRTIO_QUEUE_MAX / 2, /* two descriptors each: header and data */
    VSOCK_EVENTS = 4,
};

struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));
_Static_assert(sizeof(struct vsock_header) == 44, "virtio 1.1, section 5.10.6");

enum vsock_state {
    VSOCK_FREE,
    VSOCK_CONNECTING,
    VSOCK_OPEN,
    VSOCK_CLOSING, /* its reset waits for a transmit slot */
};

/* The counters are of bytes since the start and wrap. */
struct vsock_conn {
    enum vsock_state state;
    uint32_t id; /* never used again, so that a late completion does not touch a successor */
    uint32_t local, peer;
    uint32_t received, consumed, told; /* told: the value of consumed that the peer knows */
    uint32_t queued, sent, done;       /* by us, to the device, by the device */
    uint32_t peer_alloc, peer_consumed;
    bool closing; /* once all is sent */
    uint8_t rx[VSOCK_RING], tx[VSOCK_RING];
};

struct vsock_slot {
    struct vsock_header header;
    struct vsock_conn *conn; /* borrowed; NULL: no data */
    uint32_t conn_id;
};

struct vsock {
    struct virtio_device device;
    uint64_t cid;
    uint32_t called;         /* connections to the host that were tried */
    uint32_t last_id, first; /* first: whose turn it is to send */
    unsigned free_count;
    uint8_t free_slots[VSOCK_TX_SLOTS];
    struct vsock_slot slots[VSOCK_TX_SLOTS];
    uint32_t events[VSOCK_EVENTS];
    struct virtio_queue rx_queue, tx_queue, event_queue;
    struct vsock_conn conns[VSOCK_CONNECTIONS];
    struct {
        _Alignas(4096) uint8_t bytes[sizeof(struct vsock_header) + VSOCK_PACKET_MAX];
    } buffers[VSOCK_RX_BUFFERS];
};

/* `device` is copied. `vsock` is zeroed memory. */
void vsock_start(struct vsock *vsock, const struct virtio_device *device);
/* Takes in what the device has done; true if that was anything. */
bool vsock_receive(struct vsock *vsock);
/* Sends what is queued, as far as credit and slots allow. */
void vsock_flush(struct vsock *vsock);
/* To the host, from a port of its own. NULL when all connections are in use. */
struct vsock_conn *vsock_connect(struct vsock *vsock, uint32_t port);
struct vsock_conn *vsock_connect_from(struct vsock *vsock, uint32_t local, uint32_t port);
/* Ends all connections but one, which may be NULL. */
void vsock_close_others(struct vsock *vsock, const struct vsock_conn *but);
/* Ends a connection at once; what is queued may be lost. */
void vsock_close(struct vsock_conn *conn);
/* Ends it when the device has what is queued. */
void vsock_close_after(struct vsock_conn *conn);

static inline uint32_t vsock_readable(const struct vsock_conn *conn)
{
    return conn->received - conn->consumed;
}
/* Copies len ≤ vsock_readable() bytes without taking them. */
void vsock_peek(const struct vsock_conn *conn, void *to, uint32_t len);
static inline void vsock_consume(struct vsock_conn *conn, uint32_t len)
{
    conn->consumed += len;
}
static inline uint32_t vsock_room(const struct vsock_conn *conn)
{
    return VSOCK_RING - (conn->queued - conn->done);
}
/* Queues len ≤ vsock_room() bytes. */
void vsock_queue(struct vsock_conn *conn, const void *data, uint32_t len);

#endif
