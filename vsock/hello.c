#include "vsock/internal.h"

struct hello_fields {
    char *op, *instance, *agent, *kernel;
    int64_t id;
    uint32_t protocol, generation;
    int64_t boot_ms;
    bool ok;
};

static void fields_release(struct hello_fields *fields)
{
    free(fields->op);
    free(fields->instance);
    free(fields->agent);
    free(fields->kernel);
}

#define TEXT(member, least, most)                                                                  \
    {                                                                                              \
#member, JSON_STRING, offsetof(struct hello_fields, member), true, least, most             \
    }
#define COMMON                                                                                     \
    {"id", JSON_I64, offsetof(struct hello_fields, id), true, 1, INT64_C(1) << 53},                \
        {"protocol", JSON_U32, offsetof(struct hello_fields, protocol), true, 0, UINT32_MAX},      \
        {"generation", JSON_U32, offsetof(struct hello_fields, generation), true, 0, UINT32_MAX},  \
        {"boot_ms", JSON_I64, offsetof(struct hello_fields, boot_ms), true, 0, INT64_C(1) << 53},  \
        TEXT(instance, 1, ID_INSTANCE_LEN), TEXT(agent, 1, 63), TEXT(kernel, 1, 95)

static const struct json_field CALL[] = {COMMON, TEXT(op, 5, 5)};
static const struct json_field REPLY[] = {
    COMMON, {"ok", JSON_BOOL, offsetof(struct hello_fields, ok), true, 0, 0}};

/* Decodes and checks who speaks which protocol. */
static int hello_check(const cJSON *message, const struct json_field *table, size_t count,
                       const char *instance, int64_t *ret_id, struct vsock_hello *ret,
                       struct error *err)
{
    cleanup(fields_release) struct hello_fields fields = {0};
    struct error inner = {0};
    if (json_decode(message, table, count, &fields, &inner))
        return vsock_blame(&inner, "the guest's hello is wrong", err);
    if (fields.op && strcmp(fields.op, "hello") != 0)
        return error_set(err, ERR_GUEST_PROTOCOL, 0, "the guest's first message is no hello");
    if (fields.protocol != WIRE_PROTOCOL)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest's agent speaks protocol %u, this Motte %d: build the initramfs "
                         "with the agent of this version",
                         fields.protocol, WIRE_PROTOCOL);
    if (strcmp(fields.instance, instance) != 0)
        return error_set(err, ERR_GUEST_PROTOCOL, 0, "the guest says it is another instance");
    struct vsock_hello hello = {
        .protocol = fields.protocol, .generation = fields.generation, .boot_ms = fields.boot_ms};
    snprintf(hello.instance, sizeof hello.instance, "%s", fields.instance);
    vsock_words_copy(hello.agent, sizeof hello.agent, fields.agent);
    vsock_words_copy(hello.kernel, sizeof hello.kernel, fields.kernel);
    *ret_id = fields.id;
    *ret = hello;
    return 0;
}

int vsock_hello_accept(struct vsock_conn *conn, const char *instance, int64_t deadline_ms,
                       struct vsock_hello *ret, struct error *err)
{
    cleanup_json cJSON *message = NULL;
    cleanup_json cJSON *answer = cJSON_CreateObject();
    struct vsock_hello hello;
    int64_t id;
    if (vsock_read_json(conn, deadline_ms, &message, err) ||
        hello_check(message, CALL, COUNT_OF(CALL), instance, &id, &hello, err))
        return -1;
    if (!answer || json_add_number(answer, "id", (double)id) || json_add_bool(answer, "ok", true))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory to answer the guest's hello");
    if (vsock_write_json(conn, answer, deadline_ms, err))
        return -1;
    *ret = hello;
    return 0;
}

int vsock_hello_ask(struct vsock_conn *conn, const char *instance, int64_t deadline_ms,
                    struct vsock_hello *ret, struct error *err)
{
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *ask = cJSON_CreateObject();
    uint64_t id = conn->next_id++;
    if (!ask || json_add_number(ask, "id", (double)id) || json_add_string(ask, "op", "hello"))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory to ask the guest for its hello");
    if (vsock_write_json(conn, ask, deadline_ms, err) ||
        vsock_read_json(conn, deadline_ms, &reply, err))
        return -1;
    if (vsock_message_id(reply) != id) {
        conn->over = true;
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer to a request never made");
    }
    int64_t same;
    if (vsock_reply_check(reply, err))
        return -1;
    return hello_check(reply, REPLY, COUNT_OF(REPLY), instance, &same, ret, err);
}
