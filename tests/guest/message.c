#include "message.h"

static bool member(struct json *json, const char *key, struct message *message)
{
    if (guest_equal(key, "id")) {
        message->has_id = true;
        return json_unsigned(json, &message->id);
    }
    if (guest_equal(key, "op")) {
        return json_string(json, message->op, sizeof(message->op), NULL);
    }
    if (guest_equal(key, "ok")) {
        message->has_ok = true;
        return json_bool(json, &message->ok);
    }
    if (guest_equal(key, "stdin")) {
        return json_bool(json, &message->input);
    }
    if (guest_equal(key, "timeout_ms")) {
        return json_unsigned(json, &message->timeout_ms);
    }
    if (guest_equal(key, "argv")) {
        message->argv = *json;
    }
    return json_skip(json);
}

bool message_parse(const char *text, size_t len, struct message *ret)
{
    struct json json = {text, text + len};
    bool first = true;
    *ret = (struct message){.has_id = false};
    if (!json_enter(&json, '{')) {
        return false;
    }
    for (;;) {
        char key[64];
        enum json_step step = json_next(&json, '}', &first);
        if (step != JSON_ELEMENT) {
            return step == JSON_END && json_done(&json);
        }
        if (!json_key(&json, key, sizeof(key)) || !member(&json, key, ret)) {
            return false;
        }
    }
}
