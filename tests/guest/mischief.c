#include "mischief.h"

enum {
    CHATTER_STEP = 512, /* characters between two looks at the connections */
    LINE = 80,
    PAGE = 4096,
    MIB = 1 << 20,
    HOG_FROM_MIB = 32, /* guest.ld holds the guest below */
};

/* The next argument as text behind `at` of guest->text; false when there is none. */
static bool word(const struct command_call *call, struct json *args, size_t at, size_t *ret_len)
{
    bool first = false;
    char *text = call->guest->text;
    return json_next(args, ']', &first) == JSON_ELEMENT &&
           json_string(args, text + at, sizeof(call->guest->text) - 1 - at, ret_len);
}

static bool number(const struct command_call *call, struct json *args, uint64_t *ret)
{
    size_t len;
    const char *text = call->guest->text;
    if (!word(call, args, 0, &len)) {
        return false;
    }
    call->guest->text[len] = '\0';
    *ret = guest_number(&text);
    return true;
}

void mischief_start_say(const struct command_call *call, struct json *args)
{
    char *text = call->guest->text;
    size_t at = 0, len;
    while (word(call, args, at, &len)) {
        at += len;
        text[at++] = ' ';
    }
    text[at ? at - 1 : 0] = '\0';
    guest_say(text);
    guest_say("\n");
    command_end(call->command, 0);
}

void mischief_start_chatter(const struct command_call *call, struct json *args)
{
    struct guest *guest = call->guest;
    (void)number(call, args, &guest->chatter_left);
    (void)number(call, args, &guest->hog_mib);
    char *at = guest_put_text(guest_put_number(guest->text, guest->chattered), "\n");
    session_send(call->conn, WIRE_STDOUT, guest->text, (size_t)(at - guest->text));
    command_end(call->command, 0);
}

static void touch(uint64_t mib)
{
    volatile uint8_t *at = (volatile uint8_t *)(uintptr_t)((uint64_t)HOG_FROM_MIB * MIB);
    for (uint64_t i = 0; i < mib * MIB; i += PAGE) {
        at[i] = 1;
    }
}

bool mischief_chatter(struct guest *guest)
{
    bool any = guest->chatter_left > 0;
    for (unsigned i = 0; i < CHATTER_STEP && guest->chatter_left; i++, guest->chatter_left--) {
        guest_trap(++guest->chattered % LINE ? 'c' : '\n', 0);
    }
    if (any && !guest->chatter_left) {
        touch(guest->hog_mib);
    }
    return any;
}

void mischief_start_hog(const struct command_call *call, struct json *args)
{
    uint64_t mib = 0;
    (void)number(call, args, &mib);
    touch(mib);
    command_end(call->command, 0);
}
