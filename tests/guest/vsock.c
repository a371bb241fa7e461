#include "vsock.h"

enum vsock_op {
    OP_REQUEST = 1,
    OP_RESPONSE,
    OP_RST,
    OP_SHUTDOWN,
    OP_RW,
    OP_CREDIT_UPDATE,
    OP_CREDIT_REQUEST,
};

enum { STREAM = 1, HOST_CID = 2, SHUTDOWN_BOTH = 3, TRANSPORT_RESET = 0 };

/* The caller has seen that a slot is free. `conn` may be NULL. Data lies in the connection's ring.
 */
static void send(struct vsock *vsock, struct vsock_conn *conn, struct vsock_header header,
                 const uint8_t *data)
{
    size_t index = vsock->free_slots[--vsock->free_count];
    struct vsock_slot *slot = &vsock->slots[index];
    struct virtio_desc *desc = &vsock->tx_queue.desc[2 * index];
    uint16_t head = (uint16_t)(2 * index);

    header.src_cid = vsock->cid;
    header.dst_cid = HOST_CID;
    header.type = STREAM;
    if (conn) {
        header.buf_alloc = VSOCK_RING;
        header.fwd_cnt = conn->told = conn->consumed;
    }
    slot->header = header;
    slot->conn = header.len ? conn : NULL;
    slot->conn_id = conn ? conn->id : 0;
    desc[0] = (struct virtio_desc){(uintptr_t)&slot->header, sizeof(slot->header),
                                   header.len ? VIRTIO_NEXT : 0, (uint16_t)(head + 1)};
    desc[1] = (struct virtio_desc){(uintptr_t)data, header.len, 0, 0};
    virtio_push(&vsock->tx_queue, head);
}

static void send_op(struct vsock *vsock, struct vsock_conn *conn, enum vsock_op op)
{
    send(vsock, conn,
         (struct vsock_header){.src_port = conn->local, .dst_port = conn->peer, .op = (uint16_t)op},
         NULL);
}

static struct vsock_conn *lookup(struct vsock *vsock, uint32_t local, uint32_t peer)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conns[i];
        if (conn->state != VSOCK_FREE && conn->local == local && conn->peer == peer) {
            return conn;
        }
    }
    return NULL;
}

static struct vsock_conn *conn_open(struct vsock *vsock, enum vsock_state state, uint32_t local,
                                    uint32_t peer)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        struct vsock_conn *conn = &vsock->conns[i];
        if (conn->state == VSOCK_FREE) {
            memset(conn, 0, offsetof(struct vsock_conn, rx));
            conn->state = state;
            conn->id = ++vsock->last_id;
            conn->local = local;
            conn->peer = peer;
            return conn;
        }
    }
    return NULL;
}

static void ring_write(uint8_t *ring, uint32_t position, const uint8_t *data, uint32_t len)
{
    uint32_t at = position % VSOCK_RING;
    uint32_t first = len < VSOCK_RING - at ? len : VSOCK_RING - at;
    memcpy(ring + at, data, first);
    memcpy(ring, data + first, len - first);
}

void vsock_peek(const struct vsock_conn *conn, void *to, uint32_t len)
{
    uint32_t at = conn->consumed % VSOCK_RING;
    uint32_t first = len < VSOCK_RING - at ? len : VSOCK_RING - at;
    memcpy(to, conn->rx + at, first);
    memcpy((uint8_t *)to + first, conn->rx, len - first);
}

void vsock_queue(struct vsock_conn *conn, const void *data, uint32_t len)
{
    ring_write(conn->tx, conn->queued, data, len);
    conn->queued += len;
}

void vsock_close(struct vsock_conn *conn)
{
    if (conn->state != VSOCK_FREE) {
        conn->state = VSOCK_CLOSING;
    }
}

void vsock_close_others(struct vsock *vsock, const struct vsock_conn *but)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        if (&vsock->conns[i] != but) {
            vsock_close(&vsock->conns[i]);
        }
    }
}

void vsock_close_after(struct vsock_conn *conn)
{
    conn->closing = true;
}

struct vsock_conn *vsock_connect_from(struct vsock *vsock, uint32_t local, uint32_t port)
{
    struct vsock_conn *conn = conn_open(vsock, VSOCK_CONNECTING, local, port);
    if (conn && vsock->free_count) {
        send_op(vsock, conn, OP_REQUEST);
    }
    return conn;
}

struct vsock_conn *vsock_connect(struct vsock *vsock, uint32_t port)
{
    /* A port of its own for each call: a late answer to the last one does not fit. */
    return vsock_connect_from(vsock, 0x10000 + vsock->called++ % 0x10000, port);
}

/* A packet of a connection we know; false if it breaks the rules. */
static bool conn_packet(struct vsock *vsock, struct vsock_conn *conn,
                        const struct vsock_header *header)
{
    conn->peer_alloc = header->buf_alloc;
    conn->peer_consumed = header->fwd_cnt;
    switch (header->op) {
    case OP_RESPONSE:
        if (conn->state != VSOCK_CONNECTING) {
            return false;
        }
        conn->state = VSOCK_OPEN;
        return true;
    case OP_RW:
        if (conn->state != VSOCK_OPEN || header->len > VSOCK_RING - vsock_readable(conn)) {
            return false;
        }
        ring_write(conn->rx, conn->received, (const uint8_t *)(header + 1), header->len);
        conn->received += header->len;
        return true;
    case OP_CREDIT_UPDATE:
        return true;
    case OP_CREDIT_REQUEST:
        send_op(vsock, conn, OP_CREDIT_UPDATE);
        return true;
    case OP_SHUTDOWN: /* half closed: the other direction goes on */
        return (header->flags & SHUTDOWN_BOTH) != SHUTDOWN_BOTH;
    default:
        return false;
    }
}

static void packet(struct vsock *vsock, const struct vsock_header *header, uint32_t used)
{
    if (used < sizeof(*header) || header->type != STREAM || header->src_cid != HOST_CID ||
        header->len > used - sizeof(*header)) {
        return;
    }
    struct vsock_conn *conn = lookup(vsock, header->dst_port, header->src_port);
    if (header->op == OP_RST) {
        if (conn) {
            conn->state = VSOCK_FREE;
        }
        return;
    }
    if (conn) {
        if (conn->state != VSOCK_CLOSING && !conn_packet(vsock, conn, header)) {
            conn->state = VSOCK_CLOSING;
        }
        return;
    }
    if (header->op == OP_REQUEST && header->dst_port == WIRE_PORT_SERVICE) {
        conn = conn_open(vsock, VSOCK_OPEN, header->dst_port, header->src_port);
        if (conn) {
            conn->peer_alloc = header->buf_alloc;
            conn->peer_consumed = header->fwd_cnt;
            send_op(vsock, conn, OP_RESPONSE);
            return;
        }
    }
    send(vsock, NULL,
         (struct vsock_header){
             .src_port = header->dst_port, .dst_port = header->src_port, .op = OP_RST},
         NULL);
}

static bool events(struct vsock *vsock)
{
    uint32_t index, len;
    bool any = false;
    while (virtio_pop(&vsock->event_queue, &index, &len)) {
        any = true;
        if (vsock->events[index] == TRANSPORT_RESET) {
            for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
                vsock->conns[i].state = VSOCK_FREE;
            }
            vsock->cid = virtio_config(&vsock->device);
        }
        virtio_push(&vsock->event_queue, (uint16_t)index);
    }
    virtio_notify(&vsock->device, &vsock->event_queue);
    return any;
}

bool vsock_receive(struct vsock *vsock)
{
    uint32_t index, len;
    bool any = false;
    while (virtio_pop(&vsock->tx_queue, &index, &len)) {
        struct vsock_slot *slot = &vsock->slots[index / 2];
        if (slot->conn && slot->conn->id == slot->conn_id) {
            slot->conn->done += slot->header.len;
        }
        vsock->free_slots[vsock->free_count++] = (uint8_t)(index / 2);
        any = true;
    }
    /* Before the packets: after a snapshot those belong to new connections. */
    any |= events(vsock);
    while (vsock->free_count && virtio_pop(&vsock->rx_queue, &index, &len)) {
        packet(vsock, (const struct vsock_header *)vsock->buffers[index].bytes, len);
        virtio_push(&vsock->rx_queue, (uint16_t)index);
        any = true;
    }
    virtio_notify(&vsock->device, &vsock->rx_queue);
    return any;
}

static void conn_flush(struct vsock *vsock, struct vsock_conn *conn)
{
    while (vsock->free_count && conn->queued != conn->sent) {
        uint32_t at = conn->sent % VSOCK_RING;
        uint32_t len = conn->queued - conn->sent;
        uint32_t credit = conn->peer_alloc - (conn->sent - conn->peer_consumed);
        len = len < credit ? len : credit;
        len = len < VSOCK_RING - at ? len : VSOCK_RING - at;
        len = len < VSOCK_PACKET_MAX ? len : VSOCK_PACKET_MAX;
        if (!len) {
            break;
        }
        conn->sent += len;
        send(vsock, conn,
             (struct vsock_header){
                 .src_port = conn->local, .dst_port = conn->peer, .len = len, .op = OP_RW},
             conn->tx + at);
    }
    if (vsock->free_count && conn->consumed - conn->told >= VSOCK_RING / 4) {
        send_op(vsock, conn, OP_CREDIT_UPDATE);
    }
}

void vsock_flush(struct vsock *vsock)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS && vsock->free_count; i++) {
        struct vsock_conn *conn = &vsock->conns[(vsock->first + i) % VSOCK_CONNECTIONS];
        if (conn->state == VSOCK_OPEN) {
            conn_flush(vsock, conn);
            if (conn->closing && conn->done == conn->queued) {
                vsock_close(conn);
            }
        } else if (conn->state == VSOCK_CLOSING) {
            send_op(vsock, conn, OP_RST);
            conn->state = VSOCK_FREE;
        }
    }
    vsock->first++;
    virtio_notify(&vsock->device, &vsock->tx_queue);
}

void vsock_start(struct vsock *vsock, const struct virtio_device *device)
{
    vsock->device = *device;
    virtio_reset(device, 0);
    virtio_queue_init(device, &vsock->rx_queue, 0, VSOCK_RX_BUFFERS);
    virtio_queue_init(device, &vsock->tx_queue, 1, VIRTIO_QUEUE_MAX);
    virtio_queue_init(device, &vsock->event_queue, 2, VSOCK_EVENTS);
    for (unsigned i = 0; i < VSOCK_RX_BUFFERS; i++) {
        vsock->rx_queue.desc[i] = (struct virtio_desc){
            (uintptr_t)vsock->buffers[i].bytes, sizeof(vsock->buffers[i].bytes), VIRTIO_WRITE, 0};
        virtio_push(&vsock->rx_queue, (uint16_t)i);
    }
    for (unsigned i = 0; i < VSOCK_EVENTS; i++) {
        vsock->event_queue.desc[i] = (struct virtio_desc){
            (uintptr_t)&vsock->events[i], sizeof(vsock->events[i]), VIRTIO_WRITE, 0};
        virtio_push(&vsock->event_queue, (uint16_t)i);
    }
    for (unsigned i = 0; i < VSOCK_TX_SLOTS; i++) {
        vsock->free_slots[vsock->free_count++] = (uint8_t)i;
    }
    virtio_ready(device);
    virtio_notify(device, &vsock->rx_queue);
    virtio_notify(device, &vsock->event_queue);
    vsock->cid = virtio_config(device);
}
