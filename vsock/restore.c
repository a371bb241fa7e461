/* The host's word to an agent that comes from a snapshot: who it is now, and what time it is. */
#include "vsock/internal.h"
#include <errno.h>
#include <sys/random.h>

enum { ENTROPY = 64, PINGS = 3 };

static const int64_t NUMBER_MAX = INT64_C(1) << 53;

/* Sends a request and takes the answer to it, which says yes. */
static int ask(struct vsock_conn *conn, cJSON *request /* taken */, int64_t deadline_ms,
               cJSON **ret, struct error *err)
{
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *json = request;
    cleanup_json cJSON *reply = NULL;
    if (!json || json_add_number(json, "id", (double)id))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    if (vsock_write_json(conn, json, deadline_ms, err) ||
        vsock_read_json(conn, deadline_ms, &reply, err))
        return -1;
    if (vsock_message_id(reply) != id) {
        conn->over = true;
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer to a request never made");
    }
    if (vsock_reply_check(reply, err)) {
        conn->over = err->code != ERR_GUEST_REFUSED;
        return -1;
    }
    *ret = TAKE_PTR(reply);
    return 0;
}

static void conn_cleanup(struct vsock_conn **conn)
{
    vsock_conn_free(*conn);
}

struct answer {
    int64_t id, number;
    bool ok;
};

/* The whole number called `name`, the only field beside "id" and "ok". */
static int take_number(struct vsock_conn *conn, const cJSON *reply, const char *name, int64_t least,
                       int64_t *ret, struct error *err)
{
    const struct json_field table[] = {
        {"id", JSON_I64, offsetof(struct answer, id), true, 1, NUMBER_MAX},
        {"ok", JSON_BOOL, offsetof(struct answer, ok), true, 0, 0},
        {name, JSON_I64, offsetof(struct answer, number), true, least, NUMBER_MAX},
    };
    struct answer answer = {0};
    struct error inner = {0};
    if (json_decode(reply, table, COUNT_OF(table), &answer, &inner)) {
        conn->over = true;
        return vsock_blame(&inner, "the guest's answer is wrong", err);
    }
    *ret = answer.number;
    return 0;
}

/* The wall clock was wall_ms when the guest's uptime was uptime_ms. */
struct moment {
    int64_t wall_ms, uptime_ms;
};

static cJSON *ping(void)
{
    cJSON *json = cJSON_CreateObject();
    if (!json || json_add_string(json, "op", "ping") == 0)
        return json;
    cJSON_Delete(json);
    return NULL;
}

/* By the ping that came back soonest: what was read in the guest lies in the middle of it. So the
 * way of the restore message itself, which may wait for a processor, does not count. */
static int find_moment(struct vsock_conn *conn, int64_t deadline_ms, struct moment *ret,
                       struct error *err)
{
    int64_t soonest_us = INT64_MAX;
    for (int i = 0; i < PINGS; i++) {
        cleanup_json cJSON *reply = NULL;
        int64_t uptime_ms, start_us = clock_mono_us();
        if (ask(conn, ping(), deadline_ms, &reply, err))
            return -1;
        int64_t took_us = clock_mono_us() - start_us, wall_ms = clock_wall_ms();
        if (take_number(conn, reply, "uptime_ms", 0, &uptime_ms, err))
            return -1;
        if (took_us >= soonest_us)
            continue;
        soonest_us = took_us;
        *ret = (struct moment){.wall_ms = wall_ms - took_us / 2000, .uptime_ms = uptime_ms};
    }
    return 0;
}

static cJSON *make_request(const struct vsock_restore_request *request, const struct moment *moment,
                           const uint8_t entropy[static ENTROPY])
{
    char entropy_hex[2 * ENTROPY + 1], token_hex[2 * WIRE_TOKEN_SIZE + 1];
    cleanup_json cJSON *json = cJSON_CreateObject();
    hash_to_hex(entropy, ENTROPY, entropy_hex);
    if (request->token)
        hash_to_hex(request->token, WIRE_TOKEN_SIZE, token_hex);
    bool failed = !json || json_add_string(json, "op", "restore") ||
                  json_add_string(json, "instance", request->instance) ||
                  json_add_number(json, "generation", request->generation) ||
                  json_add_number(json, "wall_ms", (double)moment->wall_ms) ||
                  json_add_number(json, "uptime_ms", (double)moment->uptime_ms) ||
                  json_add_string(json, "entropy", entropy_hex) ||
                  json_add_string(json, "hostname", request->hostname) ||
                  json_add_string(json, "machine_id", request->machine_id) ||
                  (request->token && json_add_string(json, "token", token_hex));
    return failed ? NULL : TAKE_PTR(json);
}

int vsock_restore(struct vsock_conn *conn, const struct vsock_restore_request *request,
                  int64_t deadline_ms, struct vsock_restored *ret, struct error *err)
{
    uint8_t entropy[ENTROPY];
    struct moment moment = {0};
    int64_t skew_ms;
    if (getrandom(entropy, sizeof entropy, 0) != sizeof entropy)
        return error_set(err, ERR_SYSTEM, errno, "cannot draw random bytes for the guest");
    if (find_moment(conn, deadline_ms, &moment, err))
        return -1;
    cleanup_json cJSON *reply = NULL;
    if (ask(conn, make_request(request, &moment, entropy), deadline_ms, &reply, err) ||
        take_number(conn, reply, "clock_skew_ms", -NUMBER_MAX, &skew_ms, err))
        return -1;
    conn->over = true; /* the agent ends it, and begins anew */
    *ret = (struct vsock_restored){.clock_skew_ms = skew_ms, .skew_known = true};
    return 0;
}

/* An attempt before this one reached the agent, but its answer did not reach us. */
static bool is_restored(struct vsock_conn *conn, const struct vsock_restore_request *request,
                        int64_t deadline_ms)
{
    struct vsock_hello hello;
    struct error ignored = {0};
    return vsock_hello_ask(conn, request->instance, deadline_ms, &hello, &ignored) == 0 &&
           hello.generation == request->generation;
}

int vsock_restore_hybrid(int uds, const struct vsock_restore_request *request, int cancel,
                         int64_t deadline_ms, struct vsock_restored *ret, struct error *err)
{
    int pause_ms = 1;
    for (bool again = false;; again = true) {
        cleanup(conn_cleanup) struct vsock_conn *conn = NULL;
        struct error last = {0};
        if (vsock_connect(uds, WIRE_PORT_SERVICE, cancel, deadline_ms, &conn, err))
            return -1;
        conn->cancel = cancel;
        if (vsock_restore(conn, request, deadline_ms, ret, &last) == 0)
            return 0;
        if (again && last.code == ERR_GUEST_REFUSED && is_restored(conn, request, deadline_ms)) {
            *ret = (struct vsock_restored){.skew_known = false};
            return 0;
        }
        if (last.code != ERR_GUEST_CLOSED || clock_left_ms(deadline_ms) == 0) {
            *err = last;
            return -1;
        }
        if (vsock_pause(&pause_ms, cancel, deadline_ms, err))
            return -1;
    }
}
