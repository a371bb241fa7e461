#include "command.h"
#include "liar.h"
#include "restore.h"

enum { HELLO_ID = 1, LOOK_MS = 10 };

void session_send(struct vsock_conn *conn, enum wire_kind kind, const void *data, size_t len)
{
    uint32_t size = (uint32_t)len + 1;
    uint8_t head[WIRE_HEADER_SIZE + 1] = {(uint8_t)(size >> 24), (uint8_t)(size >> 16),
                                          (uint8_t)(size >> 8), (uint8_t)size, (uint8_t)kind};
    vsock_queue(conn, head, sizeof(head));
    vsock_queue(conn, data, (uint32_t)len);
}

static void send_control(struct vsock_conn *conn, const char *text, const char *end)
{
    session_send(conn, WIRE_CONTROL, text, (size_t)(end - text));
}

static char *put_hello(struct guest *guest, char *at)
{
    at = guest_put_number(guest_put_text(at, ",\"protocol\":"), WIRE_PROTOCOL);
    at = guest_put_text(guest_put_text(at, ",\"instance\":\""), guest->identity.instance);
    at = guest_put_text(at, "\",\"agent\":\"motte-testguest/1\",\"kernel\":\"none\"");
    at = guest_put_number(guest_put_text(at, ",\"generation\":"), guest->identity.generation);
    at = guest_put_number(guest_put_text(at, ",\"boot_ms\":"), guest_clock_ms());
    return guest_put_text(at, "}");
}

static void send_hello(struct guest *guest, struct vsock_conn *conn)
{
    char text[SESSION_REPLY_MAX];
    char *at = guest_put_number(guest_put_text(text, "{\"id\":"), HELLO_ID);
    send_control(conn, text, put_hello(guest, guest_put_text(at, ",\"op\":\"hello\"")));
}

static char *put_ok(char *text, uint64_t id)
{
    char *at = guest_put_number(guest_put_text(text, "{\"id\":"), id);
    return guest_put_text(at, ",\"ok\":true");
}

static void refuse(struct vsock_conn *conn, uint64_t id, const char *code, const char *message)
{
    char text[SESSION_REPLY_MAX];
    char *at = guest_put_number(guest_put_text(text, "{\"id\":"), id);
    at = guest_put_text(guest_put_text(at, ",\"ok\":false,\"error\":{\"code\":\""), code);
    at = guest_put_text(guest_put_text(at, "\",\"message\":\""), message);
    send_control(conn, text, guest_put_text(at, "\"}}"));
}

static bool is_hello_conn(const struct vsock_conn *conn)
{
    return conn->local != WIRE_PORT_SERVICE;
}

static void restore(struct guest *guest, struct vsock_conn *conn, const struct message *message)
{
    struct restored restored;
    char text[SESSION_REPLY_MAX];
    if (!restore_machine(guest, message, &restored)) {
        refuse(conn, message->id, restored.code, restored.why);
    } else if (restored.answered) {
        char *at = guest_put_text(put_ok(text, message->id), ",\"clock_skew_ms\":");
        at = guest_put_text(at, restored.skew_ms < 0 ? "-" : "");
        uint64_t size = (uint64_t)(restored.skew_ms < 0 ? -restored.skew_ms : restored.skew_ms);
        send_control(conn, text, guest_put_text(guest_put_number(at, size), "}"));
        vsock_close_others(&guest->vsock, conn);
        vsock_close_after(conn);
    }
}

static bool is_file_op(const char *op)
{
    return guest_equal(op, "put") || guest_equal(op, "get") || guest_equal(op, "remove") ||
           guest_equal(op, "list") || guest_equal(op, "pack") || guest_equal(op, "unpack");
}

static void request(struct guest *guest, struct vsock_conn *conn, struct session *session,
                    const struct message *message)
{
    char text[SESSION_REPLY_MAX];
    if (session->command.kind || session->transfer.file) {
        refuse(conn, message->id, "busy", "This connection has something to do.");
    } else if (guest_equal(message->op, "ping")) {
        char *at = guest_put_text(put_ok(text, message->id), ",\"uptime_ms\":");
        send_control(conn, text, guest_put_text(guest_put_number(at, guest_clock_ms()), "}"));
    } else if (guest_equal(message->op, "hello")) {
        send_control(conn, text, put_hello(guest, put_ok(text, message->id)));
    } else if (!guest_equal(message->op, "exec") && !guest_equal(message->op, "restore") &&
               !is_file_op(message->op)) {
        refuse(
            conn, message->id, "unknown_op",
            "The guest knows ping, hello, exec, put, get, remove, list, pack, unpack and restore.");
    } else if (is_hello_conn(conn)) {
        refuse(conn, message->id, "wrong_connection",
               "Commands, files and restores need a connection to the service port.");
    } else if (is_file_op(message->op)) {
        const char *words;
        const char *code = file_request(guest, conn, &session->transfer, message, &words);
        if (code) {
            refuse(conn, message->id, code, words);
        }
    } else if (guest_equal(message->op, "restore")) {
        restore(guest, conn, message);
    } else if (!command_start(guest, conn, &session->command, message)) {
        refuse(conn, message->id, "invalid_request",
               "argv must be an array of strings with at least one, the first up to 255 bytes.");
    }
}

/* The answer to our hello; false: nobody asked, or the host does not want us. */
static bool reply(struct vsock_conn *conn, struct session *session, const struct message *message)
{
    if (!is_hello_conn(conn) || session->answered || message->id != HELLO_ID) {
        return false;
    }
    session->answered = true;
    return message->ok;
}

/* False ends the connection. */
static bool control(struct guest *guest, struct vsock_conn *conn, struct session *session,
                    const char *text, size_t len)
{
    struct message message;
    if (!message_parse(text, len, &message)) {
        return false;
    }
    if (guest_equal(message.op, "kill") && !message.has_id) {
        if (session->command.kind) {
            command_kill(&session->command);
        }
        return true;
    }
    if (guest_equal(message.op, "send") && !message.has_id) {
        return file_send(&session->transfer, &message);
    }
    if (!message.has_id) {
        return false;
    }
    if (message.has_ok) {
        return reply(conn, session, &message);
    }
    if (session->has_last_id && message.id <= session->last_id) {
        return false;
    }
    session->has_last_id = true;
    session->last_id = message.id;
    request(guest, conn, session, &message);
    return true;
}

/* Room that the answer to a frame of `len` bytes may need. A kill is taken in any case: nothing but
 * the refusals of requests during a command uses up the reserve. */
static uint32_t room_needed(const struct session *session, uint8_t kind, uint32_t len)
{
    bool small = session->command.kind && kind == WIRE_CONTROL;
    return small ? SESSION_REPLY_MAX : len + SESSION_RESERVE;
}

/* Of a file. */
static void input(struct guest *guest, struct vsock_conn *conn, struct session *session,
                  const uint8_t *data, size_t len)
{
    const char *words;
    uint64_t id = session->transfer.id;
    const char *code = file_input(guest, conn, &session->transfer, data, len, &words);
    if (code) {
        refuse(conn, id, code, words);
    }
}

/* Takes one frame; false when there is none, or no room for what follows from it. */
static bool take_frame(struct guest *guest, struct vsock_conn *conn, struct session *session)
{
    uint8_t head[WIRE_HEADER_SIZE + 1] = {0};
    uint32_t there = vsock_readable(conn);
    if (there < WIRE_HEADER_SIZE) {
        return false;
    }
    vsock_peek(conn, head, there < sizeof(head) ? there : sizeof(head));
    uint32_t len =
        (uint32_t)head[0] << 24 | (uint32_t)head[1] << 16 | (uint32_t)head[2] << 8 | head[3];
    uint8_t kind = head[WIRE_HEADER_SIZE];
    bool known = there < sizeof(head) || kind == WIRE_CONTROL || kind == WIRE_STDIN;
    if (!len || len > WIRE_FRAME_MAX || !known) {
        vsock_close(conn);
        return true;
    }
    if (there < WIRE_HEADER_SIZE + len || vsock_room(conn) < room_needed(session, kind, len)) {
        return false;
    }
    vsock_peek(conn, guest->frame, WIRE_HEADER_SIZE + len);
    vsock_consume(conn, WIRE_HEADER_SIZE + len);
    const uint8_t *data = guest->frame + sizeof(head);
    if (kind == WIRE_CONTROL) {
        if (!control(guest, conn, session, (const char *)data, len - 1)) {
            vsock_close(conn);
        }
    } else if (session->command.kind) { /* else it comes too late: the command has ended */
        command_input(guest, conn, &session->command, data, len - 1);
    } else {
        input(guest, conn, session, data, len - 1);
    }
    return true;
}

static bool conn_step(struct guest *guest, struct vsock_conn *conn, struct session *session)
{
    bool any = false;
    if (session->conn_id != conn->id) {
        file_abandon(&guest->files, &session->transfer);
        *session = (struct session){.conn_id = conn->id};
    }
    if (is_hello_conn(conn) && !session->greeted) {
        session->greeted = true;
        guest->called++;
        if (!liar_hello(guest, conn, &session->greeted)) {
            send_hello(guest, conn);
        }
        any |= session->greeted;
    }
    while (conn->state == VSOCK_OPEN && take_frame(guest, conn, session)) {
        any = true;
    }
    if (conn->state == VSOCK_OPEN && session->command.kind) {
        any |= command_step(guest, conn, &session->command);
    }
    if (conn->state == VSOCK_OPEN) {
        any |= file_step(guest, conn, &session->transfer);
    }
    return any;
}

uint64_t session_look(struct guest *guest)
{
    uint64_t longest = guest->longest_ms;
    guest->looks = true;
    guest->looked_ms = guest_clock_ms();
    guest->longest_ms = 0;
    return longest;
}

static void look(struct guest *guest)
{
    uint64_t now = guest_clock_ms();
    if (guest->looks && now - guest->looked_ms > guest->longest_ms) {
        guest->longest_ms = now - guest->looked_ms;
    }
    guest->looked_ms = now;
}

bool session_step(struct guest *guest)
{
    bool any = false;
    look(guest);
    if (!guest->greeted && guest->vsock.free_count &&
        vsock_connect(&guest->vsock, WIRE_PORT_HELLO)) {
        guest->greeted = true;
        any = true;
    }
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        struct vsock_conn *conn = &guest->vsock.conns[i];
        if (conn->state == VSOCK_OPEN) {
            any |= conn_step(guest, conn, &guest->sessions[i]);
        }
    }
    return any;
}

static void earlier(uint64_t *wake, uint64_t candidate)
{
    if (candidate && (!*wake || candidate < *wake)) {
        *wake = candidate;
    }
}

uint64_t session_wake_ms(const struct guest *guest)
{
    uint64_t wake = guest->looks ? guest->looked_ms + LOOK_MS : 0;
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        const struct session *session = &guest->sessions[i];
        if (guest->vsock.conns[i].state == VSOCK_OPEN && session->command.kind &&
            session->conn_id == guest->vsock.conns[i].id && !session->command.ended &&
            !session->command.deaf) {
            earlier(&wake, session->command.deadline_ms);
            earlier(&wake, session->command.wake_ms);
        }
    }
    return wake;
}
