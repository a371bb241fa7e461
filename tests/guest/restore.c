#include "restore.h"
#include "liar.h"

enum { INSTANCE_LEN = 20, ID_LEN = 32, ENTROPY_MIN = 32, ENTROPY_MAX = 512 };

struct request {
    struct identity identity;
    uint64_t generation, wall_ms, uptime_ms;
    bool has_wall, has_uptime;
    char entropy[2 * ENTROPY_MAX + 1];
    size_t entropy_len; /* in digits */
};

static bool member(struct json *json, const char *key, struct request *request)
{
    struct identity *identity = &request->identity;
    if (guest_equal(key, "instance")) {
        return json_string(json, identity->instance, sizeof(identity->instance), NULL);
    }
    if (guest_equal(key, "hostname")) {
        return json_string(json, identity->hostname, sizeof(identity->hostname), NULL);
    }
    if (guest_equal(key, "machine_id")) {
        return json_string(json, identity->machine_id, sizeof(identity->machine_id), NULL);
    }
    if (guest_equal(key, "entropy")) {
        return json_string(json, request->entropy, sizeof(request->entropy), &request->entropy_len);
    }
    if (guest_equal(key, "generation")) {
        return json_unsigned(json, &request->generation);
    }
    if (guest_equal(key, "wall_ms")) {
        request->has_wall = true;
        return json_unsigned(json, &request->wall_ms);
    }
    if (guest_equal(key, "uptime_ms")) {
        request->has_uptime = true;
        return json_unsigned(json, &request->uptime_ms);
    }
    return json_skip(json);
}

static bool parse(struct json json, struct request *ret)
{
    bool first = true;
    *ret = (struct request){.has_wall = false};
    if (!json_enter(&json, '{')) {
        return false;
    }
    for (;;) {
        char key[64];
        enum json_step step = json_next(&json, '}', &first);
        if (step != JSON_ELEMENT) {
            return step == JSON_END;
        }
        if (!json_key(&json, key, sizeof(key)) || !member(&json, key, ret)) {
            return false;
        }
    }
}

static size_t length(const char *text)
{
    size_t len = 0;
    while (text[len]) {
        len++;
    }
    return len;
}

static bool all_hex(const char *text)
{
    while (guest_digit(*text) < 16) {
        text++;
    }
    return !*text;
}

static bool complete(const struct request *request)
{
    const struct identity *identity = &request->identity;
    return length(identity->instance) == INSTANCE_LEN && identity->hostname[0] &&
           length(identity->machine_id) == ID_LEN && all_hex(identity->machine_id) &&
           request->has_wall && request->has_uptime && request->generation > 0 &&
           request->generation <= UINT32_MAX && request->entropy_len >= 2 * ENTROPY_MIN &&
           request->entropy_len % 2 == 0 && all_hex(request->entropy);
}

static bool refused(struct restored *ret, const char *code, const char *why)
{
    ret->code = code;
    ret->why = why;
    return false;
}

static void reseed(struct guest *guest, const struct request *request)
{
    for (size_t i = 0; i < request->entropy_len; i += 2) {
        unsigned byte =
            guest_digit(request->entropy[i]) * 16 + guest_digit(request->entropy[i + 1]);
        random_mix(&guest->random, &(uint8_t){(uint8_t)byte}, 1);
    }
}

bool restore_machine(struct guest *guest, const struct message *message, struct restored *ret)
{
    struct request request;
    enum liar_betrayal betrayal = liar_betrayal(guest);
    *ret = (struct restored){.answered = betrayal != LIAR_SILENT};
    if (!parse(message->all, &request) || !complete(&request)) {
        return refused(ret, "bad_request", "A field of restore is missing or wrong.");
    }
    if (request.generation <= guest->identity.generation) {
        return refused(ret, "old_generation", "The generation must be larger than the guest's.");
    }
    if (betrayal == LIAR_REFUSE) {
        return refused(ret, "cannot_restore", "The guest does not want to.");
    }
    if (betrayal == LIAR_SILENT) {
        return true;
    }
    reseed(guest, &request);
    if (betrayal != LIAR_SKEW) {
        uint64_t offset = request.wall_ms - request.uptime_ms;
        ret->skew_ms = (int64_t)(offset - guest->wall_offset_ms);
        guest->wall_offset_ms = offset;
    }
    if (betrayal != LIAR_STAY) {
        guest->identity = request.identity;
        guest->identity.generation = (uint32_t)request.generation;
    }
    guest->greeted = betrayal == LIAR_MUTE;
    return true;
}
