/* What the commands do; guest.h tells it from outside. */
#include "command.h"
#include "liar.h"
#include "mischief.h"

enum { EXIT_UNKNOWN = 127, PATTERN_PERIOD = 251 };

/* The next argument, decoded into guest->text from `at` on; false when there is no more. */
static bool argument(struct guest *guest, struct json *args, size_t at, size_t *ret_len)
{
    bool first = false;
    return json_next(args, ']', &first) == JSON_ELEMENT &&
           json_string(args, guest->text + at, sizeof(guest->text) - at, ret_len);
}

static uint64_t number_argument(struct guest *guest, struct json *args, uint64_t otherwise)
{
    size_t len;
    const char *text = guest->text;
    return argument(guest, args, 0, &len) ? guest_number(&text) : otherwise;
}

static void send_text(const struct command_call *call, enum wire_kind kind, const char *end_of_text)
{
    session_send(call->conn, kind, call->guest->text, (size_t)(end_of_text - call->guest->text));
}

/* All arguments and a newline. Shorter than the request, for whose length there is room. */
static void send_arguments(const struct command_call *call, enum wire_kind kind, struct json *args)
{
    size_t at = 0, len;
    while (argument(call->guest, args, at, &len)) {
        at += len;
        call->guest->text[at++] = ' ';
    }
    at -= at ? 1 : 0;
    call->guest->text[at++] = '\n';
    session_send(call->conn, kind, call->guest->text, at);
}

static void start_echo(const struct command_call *call, struct json *args)
{
    send_arguments(call, WIRE_STDOUT, args);
    command_end(call->command, 0);
}

static void start_stderr(const struct command_call *call, struct json *args)
{
    send_arguments(call, WIRE_STDERR, args);
    command_end(call->command, 0);
}

static void start_exit(const struct command_call *call, struct json *args)
{
    command_end(call->command, (int)(number_argument(call->guest, args, 0) & 0xff));
}

static void start_true(const struct command_call *call, struct json *args)
{
    (void)args;
    command_end(call->command, 0);
}

static void start_false(const struct command_call *call, struct json *args)
{
    (void)args;
    command_end(call->command, 1);
}

static void start_cat(const struct command_call *call, struct json *args)
{
    (void)args;
    if (!call->command->input_open) {
        command_end(call->command, 0);
    }
}

static void input_cat(const struct command_call *call, const uint8_t *data, size_t len)
{
    if (len) {
        session_send(call->conn, WIRE_STDOUT, data, len);
    } else {
        command_end(call->command, 0);
    }
}

static void start_flood(const struct command_call *call, struct json *args)
{
    struct guest *guest = call->guest;
    call->command->left = number_argument(guest, args, 0);
    if (guest->pattern[1] == 0) { /* not made yet */
        for (size_t i = 0; i < sizeof(guest->pattern); i++) {
            guest->pattern[i] = (uint8_t)(i % PATTERN_PERIOD);
        }
    }
}

static bool step_flood(const struct command_call *call)
{
    struct command *command = call->command;
    bool any = false;
    while (command->left) {
        uint32_t room = vsock_room(call->conn);
        uint64_t len = command->left < SESSION_DATA_MAX ? command->left : SESSION_DATA_MAX;
        if (room < len + SESSION_RESERVE) {
            return any;
        }
        session_send(call->conn, WIRE_STDOUT,
                     call->guest->pattern + command->offset % PATTERN_PERIOD, len);
        command->offset += len;
        command->left -= len;
        any = true;
    }
    command_end(command, 0);
    return true;
}

static void start_sleep(const struct command_call *call, struct json *args)
{
    uint64_t seconds = number_argument(call->guest, args, UINT64_MAX);
    if (seconds < UINT32_MAX) {
        call->command->wake_ms = call->command->started_ms + seconds * 1000 + 1;
    }
}

static struct block_disk *open_disk(const struct command_call *call, struct json *args)
{
    uint64_t n = number_argument(call->guest, args, 0);
    struct block_disk *disk = n < BLOCK_DISKS ? &call->guest->disks[n] : NULL;
    if (disk && block_open(call->guest->cmdline, (unsigned)n, disk)) {
        return disk;
    }
    send_text(call, WIRE_STDERR, guest_put_text(call->guest->text, "no such disk\n"));
    command_end(call->command, 1);
    return NULL;
}

static void start_disk(const struct command_call *call, struct json *args)
{
    struct block_disk *disk = open_disk(call, args);
    char *at = call->guest->text;
    if (!disk) {
        return;
    }
    uint8_t status = block_transfer(disk, false);
    if (status != BLOCK_OK) {
        at = guest_put_number(guest_put_text(at, "status "), status);
        send_text(call, WIRE_STDERR, guest_put_text(at, "\n"));
        command_end(call->command, 1);
        return;
    }
    send_text(call, WIRE_STDOUT, guest_put_text(guest_put_hex(at, disk->data, 16), "\n"));
    command_end(call->command, 0);
}

static void start_diskwrite(const struct command_call *call, struct json *args)
{
    struct block_disk *disk = open_disk(call, args);
    if (!disk) {
        return;
    }
    memset(disk->data, 0xa5, sizeof(disk->data));
    char *at = guest_put_text(call->guest->text, "status ");
    at = guest_put_number(at, block_transfer(disk, true));
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

static void start_generation(const struct command_call *call, struct json *args)
{
    (void)args;
    char *at = guest_put_number(call->guest->text, call->guest->identity.generation);
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

static void start_identity(const struct command_call *call, struct json *args)
{
    (void)args;
    const struct identity *identity = &call->guest->identity;
    char *at = guest_put_text(call->guest->text, identity->instance);
    at = guest_put_number(guest_put_text(at, " "), identity->generation);
    at = guest_put_text(at, identity->hostname[0] ? " " : " -");
    at = guest_put_text(at, identity->hostname);
    at = guest_put_text(at, identity->machine_id[0] ? " " : " -");
    at = guest_put_text(at, identity->machine_id);
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

static void start_random(const struct command_call *call, struct json *args)
{
    (void)args;
    const uint64_t next[] = {random_next(&call->guest->random), random_next(&call->guest->random)};
    char *at = guest_put_hex(call->guest->text, (const uint8_t *)next, sizeof(next));
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

static void start_wall(const struct command_call *call, struct json *args)
{
    (void)args;
    uint64_t now = guest_clock_ms() + call->guest->wall_offset_ms;
    char *at = guest_put_number(call->guest->text, now);
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

static void start_pauses(const struct command_call *call, struct json *args)
{
    (void)args;
    char *at = guest_put_number(call->guest->text, session_look(call->guest));
    send_text(call, WIRE_STDOUT, guest_put_text(at, "\n"));
    command_end(call->command, 0);
}

/* The accidents wait until the device has the reply. */
static bool step_accident(const struct command_call *call)
{
    static const struct {
        const char *name;
        enum guest_trap trap;
    } accidents[] = {{"reboot", TRAP_RESET}, {"crash", TRAP_CRASH}, {"hang", TRAP_HANG}};
    for (size_t i = 0; i < sizeof(accidents) / sizeof(*accidents); i++) {
        if (call->conn->done == call->conn->queued &&
            guest_equal(call->command->kind->name, accidents[i].name)) {
            guest_trap(accidents[i].trap, 0);
        }
    }
    return false;
}

static void start_unknown(const struct command_call *call, struct json *args)
{
    (void)args;
    send_text(call, WIRE_STDERR,
              guest_put_text(call->guest->text, "command not found: the test guest has only "
                                                "what tests/guest/guest.h lists\n"));
    command_end(call->command, EXIT_UNKNOWN);
}

/* The table ends in what stands for every other name. */
static const struct command_kind kinds[] = {
    {"echo", start_echo, NULL, NULL},
    {"cat", start_cat, NULL, input_cat},
    {"exit", start_exit, NULL, NULL},
    {"true", start_true, NULL, NULL},
    {"false", start_false, NULL, NULL},
    {"stderr", start_stderr, NULL, NULL},
    {"flood", start_flood, step_flood, NULL},
    {"sleep", start_sleep, NULL, NULL},
    {"disk", start_disk, NULL, NULL},
    {"diskwrite", start_diskwrite, NULL, NULL},
    {"identity", start_identity, NULL, NULL},
    {"generation", start_generation, NULL, NULL},
    {"random", start_random, NULL, NULL},
    {"wall", start_wall, NULL, NULL},
    {"betray", liar_start_betray, NULL, NULL},
    {"pauses", start_pauses, NULL, NULL},
    {"lie", liar_start_lie, liar_step_lie, NULL},
    {"storm", liar_start_storm, liar_step_storm, NULL},
    {"console", liar_start_console, liar_step_console, NULL},
    {"say", mischief_start_say, NULL, NULL},
    {"chatter", mischief_start_chatter, NULL, NULL},
    {"hog", mischief_start_hog, NULL, NULL},
    {"reboot", NULL, step_accident, NULL},
    {"crash", NULL, step_accident, NULL},
    {"hang", NULL, step_accident, NULL},
    {NULL, start_unknown, NULL, NULL},
};

const struct command_kind *command_find(const char *path)
{
    const char *name = path;
    for (const char *p = path; *p; p++) {
        name = *p == '/' ? p + 1 : name;
    }
    const struct command_kind *kind = kinds;
    while (kind->name && !guest_equal(kind->name, name)) {
        kind++;
    }
    return kind;
}
