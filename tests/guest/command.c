/* The life of a command: start, input, the clock, the exit frame. */
#include "command.h"

enum { SIGNAL_KILL = 9, PATH_MAX_LEN = 255 };

void command_end(struct command *command, int code)
{
    if (!command->ended) {
        command->ended = true;
        command->code = code;
    }
}

void command_kill(struct command *command)
{
    if (!command->ended && !command->deaf) {
        command->ended = true;
        command->signal = SIGNAL_KILL;
    }
}

static bool all_strings(struct json json)
{
    bool first = true;
    for (;;) {
        enum json_step step = json_next(&json, ']', &first);
        if (step != JSON_ELEMENT) {
            return step == JSON_END;
        }
        if (!json_string(&json, NULL, 0, NULL)) {
            return false;
        }
    }
}

bool command_start(struct guest *guest, struct vsock_conn *conn, struct command *command,
                   const struct message *message)
{
    struct json args = message->argv;
    char path[PATH_MAX_LEN + 1];
    bool first = true;
    if (!args.at || !json_enter(&args, '[') || !all_strings(args) ||
        json_next(&args, ']', &first) != JSON_ELEMENT ||
        !json_string(&args, path, sizeof(path), NULL)) {
        return false;
    }
    uint64_t now = guest_clock_ms();
    *command = (struct command){
        .kind = command_find(path),
        .id = message->id,
        .started_ms = now,
        .deadline_ms = message->timeout_ms ? now + message->timeout_ms : 0,
        .input_open = message->input,
    };
    char *at = guest_put_number(guest_put_text(guest->text, "{\"id\":"), message->id);
    at = guest_put_text(at, ",\"ok\":true}");
    session_send(conn, WIRE_CONTROL, guest->text, (size_t)(at - guest->text));
    if (command->kind->start) {
        command->kind->start(&(struct command_call){guest, conn, command}, &args);
    }
    return true;
}

void command_input(struct guest *guest, struct vsock_conn *conn, struct command *command,
                   const uint8_t *data, size_t len)
{
    if (!command->input_open || command->ended) {
        return;
    }
    command->input_open = len > 0;
    if (command->kind->input) {
        command->kind->input(&(struct command_call){guest, conn, command}, data, len);
    }
}

static void look_at_clock(struct command *command, uint64_t now)
{
    if (command->wake_ms && now >= command->wake_ms) {
        command_end(command, 0);
    }
    if (!command->ended && !command->deaf && command->deadline_ms && now >= command->deadline_ms) {
        command->timed_out = true;
        command_kill(command);
    }
}

bool command_step(struct guest *guest, struct vsock_conn *conn, struct command *command)
{
    struct command_call call = {guest, conn, command};
    bool any = !command->ended && command->kind->step && command->kind->step(&call);
    uint64_t now = guest_clock_ms();
    look_at_clock(command, now);
    if (!command->ended || vsock_room(conn) < SESSION_REPLY_MAX) {
        return any;
    }
    char *at = guest_put_number(guest_put_text(guest->text, "{\"id\":"), command->id);
    at = guest_put_text(at, command->signal ? ",\"op\":\"exit\",\"signal\":"
                                            : ",\"op\":\"exit\",\"code\":");
    at = guest_put_number(at, (uint64_t)(command->signal ? command->signal : command->code));
    at = guest_put_text(at, command->timed_out ? ",\"timed_out\":true" : ",\"timed_out\":false");
    at = guest_put_number(guest_put_text(at, ",\"duration_ms\":"), now - command->started_ms);
    at = guest_put_text(at, "}");
    session_send(conn, WIRE_CONTROL, guest->text, (size_t)(at - guest->text));
    command->kind = NULL;
    return true;
}
