#include "liar.h"

enum {
    CONSOLE_STEP = 512,    /* characters between two looks at the connections */
    STORM_LOCAL = 0x20000, /* a local port of its own for each connection */
    ENDLESS_FRAME = 32768,
};

/* Bytes as they go onto the wire; hello and exec have the same, except where the end matters. */
static const struct lie {
    const char *name;
    const char *bytes; /* NULL: made below */
    uint32_t len;
    bool close;
} lies[] = {
#define LIE(name, bytes, close)                                                                    \
    {                                                                                              \
        name, bytes, sizeof(bytes) - 1, close                                                      \
    }
    LIE("long", "\xff\xff\xff\xff", false),
    LIE("over", "\x00\x01\x00\x01J", false), /* one byte more than a frame may have */
    LIE("empty", "\x00\x00\x00\x00", false),
    LIE("kind", "\x00\x00\x00\x02?x", false),
    LIE("input",
        "\x00\x00\x00\x02"
        "0x",
        false), /* of the kind that only the host sends */
    LIE("json", "\x00\x00\x00\x08J{\"id\":1", false),
    LIE("number", "\x00\x00\x00\x03J17", false),
    LIE("nul", "\x00\x00\x00\x0aJ{\"id\0\":1}", false),
    LIE("id", "\x00\x00\x00\x16J{\"id\":99999,\"ok\":true}", false),
    LIE("negative", "\x00\x00\x00\x13J{\"id\":-1,\"ok\":true}", false),
    LIE("early", "\x00\x00\x10\x00J{\"id\":1,", true), /* the end in the middle of a frame */
    LIE("close", "", true),
    LIE("silent", "", false),
#undef LIE
    {"deep", NULL, 0, false},
    {"endless", NULL, 0, false},
};

/* `text` begins with this word. */
static bool begins(const char *text, const char *name)
{
    size_t at = 0;
    while (name[at] && name[at] == text[at]) {
        at++;
    }
    return !name[at] && (text[at] == '\0' || text[at] == ' ');
}

static const struct lie *lie_find(const char *text)
{
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        if (begins(text, lies[i].name)) {
            return &lies[i];
        }
    }
    return NULL;
}

static enum liar_betrayal betrayal_find(const char *text)
{
    static const char *const names[] = {[LIAR_REFUSE] = "refuse",
                                        [LIAR_SILENT] = "silent",
                                        [LIAR_SKEW] = "skew",
                                        [LIAR_MUTE] = "mute",
                                        [LIAR_STAY] = "stay"};
    for (unsigned i = LIAR_REFUSE; i < sizeof(names) / sizeof(*names); i++) {
        if (begins(text, names[i])) {
            return (enum liar_betrayal)i;
        }
    }
    return LIAR_HONEST;
}

enum liar_betrayal liar_betrayal(const struct guest *guest)
{
    const char *word = guest_find(guest->cmdline, "motte.betray=");
    return guest->betrayal || !word ? (enum liar_betrayal)guest->betrayal : betrayal_find(word);
}

/* False: it goes on for ever, and is to be told again when there is room. */
static bool tell(struct guest *guest, struct vsock_conn *conn, const struct lie *lie)
{
    if (lie->bytes) {
        vsock_queue(conn, lie->bytes, lie->len);
        if (lie->close && lie->len == 0) {
            vsock_close(conn);
        }
        return true;
    }
    bool endless = guest_equal(lie->name, "endless");
    memset(guest->text, endless ? ' ' : '[', ENDLESS_FRAME);
    while (vsock_room(conn) >= ENDLESS_FRAME + SESSION_RESERVE) {
        session_send(conn, endless ? WIRE_STDOUT : WIRE_CONTROL, guest->text, ENDLESS_FRAME);
        if (!endless) {
            return true;
        }
    }
    return false;
}

bool liar_hello(struct guest *guest, struct vsock_conn *conn, bool *greeted)
{
    const char *word = guest_find(guest->cmdline, "motte.lie=");
    const struct lie *lie = word ? lie_find(word) : NULL;
    if (lie) {
        *greeted = tell(guest, conn, lie);
        if (*greeted && lie->close) {
            vsock_close_after(conn);
        }
    }
    return lie;
}

/* The next argument as text; empty when there is none. */
static const char *word(const struct command_call *call, struct json *args)
{
    bool first = false;
    size_t len = 0;
    char *text = call->guest->text;
    bool there = json_next(args, ']', &first) == JSON_ELEMENT &&
                 json_string(args, text, sizeof(call->guest->text) - 1, &len);
    text[there ? len : 0] = '\0';
    return text;
}

static uint64_t number(const struct command_call *call, struct json *args)
{
    const char *text = word(call, args);
    return guest_number(&text);
}

static void say(const struct command_call *call, const char *text, uint64_t value)
{
    char *at = guest_put_number(guest_put_text(call->guest->text, text), value);
    at = guest_put_text(at, "\n");
    session_send(call->conn, WIRE_STDOUT, call->guest->text, (size_t)(at - call->guest->text));
}

/* ---- betray WHAT ---- */

void liar_start_betray(const struct command_call *call, struct json *args)
{
    call->guest->betrayal = betrayal_find(word(call, args));
    command_end(call->command, call->guest->betrayal ? 0 : 2);
}

/* ---- lie WHAT ---- */

void liar_start_lie(const struct command_call *call, struct json *args)
{
    const struct lie *lie = lie_find(word(call, args));
    if (!lie) {
        command_end(call->command, 2);
        return;
    }
    call->command->deaf = true;
    call->command->left = (uint64_t)(lie - lies) + 1;
}

bool liar_step_lie(const struct command_call *call)
{
    struct command *command = call->command;
    if (!command->left) {
        return false;
    }
    const struct lie *lie = &lies[command->left - 1];
    if (!tell(call->guest, call->conn, lie)) {
        return false; /* goes on when the host has taken some */
    }
    command->left = 0;
    if (lie->close) {
        vsock_close_after(call->conn);
    }
    return true;
}

/* ---- storm COUNT [PORT] ---- */

void liar_start_storm(const struct command_call *call, struct json *args)
{
    call->command->left = number(call, args);
    call->command->offset = number(call, args); /* the port; 0: each in turn */
    call->guest->called = 0;
}

static bool connecting(const struct guest *guest)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS; i++) {
        if (guest->vsock.conns[i].state == VSOCK_CONNECTING) {
            return true;
        }
    }
    return false;
}

bool liar_step_storm(const struct command_call *call)
{
    struct command *command = call->command;
    struct vsock *vsock = &call->guest->vsock;
    bool any = false;
    while (command->left && vsock->free_count) {
        uint32_t turn = (uint32_t)command->left;
        uint32_t port = command->offset ? (uint32_t)command->offset : turn;
        if (!vsock_connect_from(vsock, STORM_LOCAL + turn, port)) {
            break;
        }
        command->left--;
        any = true;
    }
    /* Over too when every connection is taken and none is on its way. */
    if (!any && !connecting(call->guest) && vsock->free_count) {
        say(call, "opened ", call->guest->called);
        command_end(command, 0);
    }
    return any;
}

/* ---- console COUNT ---- */

void liar_start_console(const struct command_call *call, struct json *args)
{
    call->command->left = number(call, args);
}

bool liar_step_console(const struct command_call *call)
{
    struct command *command = call->command;
    for (unsigned i = 0; i < CONSOLE_STEP && command->left; i++, command->left--) {
        guest_trap(command->left % 80 ? 'x' : '\n', 0);
    }
    if (!command->left) {
        command_end(command, 0);
    }
    return true;
}
