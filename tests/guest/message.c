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
    if (guest_equal(key, "path")) {
        return json_string(json, message->path, sizeof(message->path), NULL);
    }
    if (guest_equal(key, "mode")) {
        message->has_mode = true;
        return json_unsigned(json, &message->mode);
    }
    if (guest_equal(key, "parents")) {
        return json_bool(json, &message->parents);
    }
    if (guest_equal(key, "offset")) {
        return json_unsigned(json, &message->offset);
    }
    if (guest_equal(key, "length")) {
        return json_unsigned(json, &message->length);
    }
    if (guest_equal(key, "limit")) {
        return json_unsigned(json, &message->limit);
    }
    if (guest_equal(key, "after")) {
        return json_string(json, message->after, sizeof(message->after), NULL);
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
    *ret = (struct message){.all = json};
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
