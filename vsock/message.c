#include "vsock/internal.h"
#include <math.h>

static const double ID_MAX = 9007199254740992.0; /* 2^53: whole numbers are exact up to here */

int vsock_message_queue(struct vsock_conn *conn, const cJSON *json, struct error *err)
{
    cleanup_free char *text = json_print(json);
    if (!text)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a message to the guest");
    return vsock_conn_queue(conn, WIRE_CONTROL, text, strlen(text), err);
}

int vsock_blame(const struct error *inner, const char *what, struct error *err)
{
    if (inner->code != ERR_NO_MEMORY)
        return error_set(err, ERR_GUEST_PROTOCOL, 0, "%s%s%s", what,
                         inner->code == ERR_NONE ? "" : ": ", inner->msg);
    *err = *inner;
    return -1;
}

int vsock_message_parse(const struct vsock_frame *frame, cJSON **ret, struct error *err)
{
    if (frame->kind != WIRE_CONTROL)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: data where a control message must stand");
    cleanup_json cJSON *json = NULL;
    struct error inner = {0};
    if (json_parse((const char *)frame->data, frame->len, &json, &inner))
        return vsock_blame(&inner, "the guest broke the protocol", err);
    if (!cJSON_IsObject(json))
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: a control message is no object");
    *ret = TAKE_PTR(json);
    return 0;
}

uint64_t vsock_message_id(const cJSON *message)
{
    const cJSON *id = cJSON_GetObjectItemCaseSensitive(message, "id");
    if (!cJSON_IsNumber(id) || !(id->valuedouble >= 1 && id->valuedouble <= ID_MAX))
        return 0;
    return floor(id->valuedouble) < id->valuedouble ? 0 : (uint64_t)id->valuedouble;
}

void vsock_words_copy(char *out, size_t size, const char *words)
{
    size_t len = 0;
    for (; len < size - 1 && words[len]; len++)
        out[len] = (char)(words[len] < ' ' || words[len] > '~' ? '?' : words[len]);
    out[len] = '\0';
}

int vsock_reply_check(const cJSON *reply, struct error *err)
{
    const cJSON *ok = cJSON_GetObjectItemCaseSensitive(reply, "ok");
    if (cJSON_IsTrue(ok))
        return 0;
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(reply, "error");
    const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(why, "code"));
    const char *words = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(why, "message"));
    if (!cJSON_IsFalse(ok) || !code || !words)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer is neither yes nor no");
    char safe_code[33], safe_words[161];
    vsock_words_copy(safe_code, sizeof safe_code, code);
    vsock_words_copy(safe_words, sizeof safe_words, words);
    return error_set(err, ERR_GUEST_REFUSED, 0, "the guest refused (%s): %s", safe_code,
                     safe_words);
}

int vsock_write_json(struct vsock_conn *conn, const cJSON *json, int64_t deadline_ms,
                     struct error *err)
{
    cleanup_free char *text = json_print(json);
    if (!text)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a message to the guest");
    return vsock_write(conn, WIRE_CONTROL, text, strlen(text), deadline_ms, err);
}

int vsock_read_json(struct vsock_conn *conn, int64_t deadline_ms, cJSON **ret, struct error *err)
{
    struct vsock_frame frame;
    if (vsock_read(conn, deadline_ms, &frame, err))
        return -1;
    if (vsock_message_parse(&frame, ret, err) == 0)
        return 0;
    conn->over = true;
    return -1;
}
