#include "guest/internal.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

int guest_refuse(struct guest_session *session, uint64_t id, const char *code, const char *message)
{
    return guest_conn_send_json(session->conn,
                                json_pack("{s:I,s:b,s:{s:s,s:s}}", "id", (json_int_t)id, "ok", 0,
                                          "error", "code", code, "message", message));
}

/* The fields of hello, the same whether we say it or are asked. */
static json_t *hello_fields(const struct guest_session *session, uint64_t id)
{
    const struct guest_facts *facts = session->facts;
    struct utsname system;
    char kernel[96];
    uname(&system);
    snprintf(kernel, sizeof kernel, "%.15s %.64s", system.sysname, system.release);
    return json_pack("{s:I,s:i,s:s,s:s,s:s,s:I,s:I}", "id", (json_int_t)id, "protocol",
                     WIRE_PROTOCOL, "instance", facts->instance, "agent",
                     "motte-agent " MOTTE_VERSION, "kernel", kernel, "generation",
                     (json_int_t)facts->generation, "boot_ms", (json_int_t)facts->boot_ms);
}

static int say_hello(struct guest_session *session)
{
    session->hello_id = 1;
    json_t *hello = hello_fields(session, session->hello_id);
    if (hello)
        json_object_set_new(hello, "op", json_string("hello"));
    return guest_conn_send_json(session->conn, hello);
}

static int answer_hello(struct guest_session *session, uint64_t id, json_t *request)
{
    (void)request;
    json_t *hello = hello_fields(session, id);
    if (hello)
        json_object_set_new(hello, "ok", json_true());
    return guest_conn_send_json(session->conn, hello);
}

static int answer_ping(struct guest_session *session, uint64_t id, json_t *request)
{
    (void)request;
    return guest_conn_send_json(session->conn,
                                json_pack("{s:I,s:b,s:I}", "id", (json_int_t)id, "ok", 1,
                                          "uptime_ms", (json_int_t)guest_boot_ms()));
}

static const struct {
    const char *op;
    bool service; /* needs a connection of its own: on the hello connection pings are answered */
    int (*answer)(struct guest_session *session, uint64_t id, json_t *request);
} OPERATIONS[] = {{"ping", false, answer_ping},        {"hello", false, answer_hello},
                  {"exec", true, guest_exec},          {"put", true, guest_file_put},
                  {"get", true, guest_file_get},       {"remove", true, guest_file_remove},
                  {"list", true, guest_file_list},     {"pack", true, guest_file_pack},
                  {"unpack", true, guest_file_unpack}, {"restore", true, guest_restore}};

static int answer(struct guest_session *session, const char *op, uint64_t id, json_t *request)
{
    char message[80];
    for (size_t i = 0; i < sizeof OPERATIONS / sizeof OPERATIONS[0]; i++) {
        if (strcmp(OPERATIONS[i].op, op) != 0)
            continue;
        if (!OPERATIONS[i].service || !session->control)
            return OPERATIONS[i].answer(session, id, request);
        snprintf(message, sizeof message,
                 "%s needs a service connection, this is the hello connection", op);
        return guest_refuse(session, id, "wrong_connection", message);
    }
    return guest_refuse(
        session, id, "unknown_op",
        "this agent knows ping, hello, exec, put, get, remove, list, pack, unpack and restore");
}

/* The answer to our hello, the only thing we ever ask. */
static int take_answer(struct guest_session *session, json_int_t id)
{
    if (session->hello_id == 0 || id != (json_int_t)session->hello_id)
        return -1;
    session->hello_id = 0;
    return 0;
}

static int take_message(struct guest_session *session, json_t *message)
{
    json_t *id = json_object_get(message, "id");
    json_t *op = json_object_get(message, "op");
    if (!op)
        return take_answer(session, json_integer_value(id));
    if (!json_is_string(op))
        return -1;
    if (!id && (strcmp(json_string_value(op), "kill") == 0 ||
                strcmp(json_string_value(op), "resize") == 0))
        return 0; /* of a command that has just ended */
    if (json_integer_value(id) <= 0 || (uint64_t)json_integer_value(id) <= session->last_id)
        return -1; /* no answer could be told from another */
    session->last_id = (uint64_t)json_integer_value(id);
    return answer(session, json_string_value(op), session->last_id, message);
}

static int take_frame(struct guest_session *session, const struct guest_frame *frame)
{
    if (frame->kind == WIRE_STDIN)
        return 0; /* of a command that has just ended */
    if (frame->kind != WIRE_CONTROL)
        return -1;
    json_t *message =
        json_loadb((const char *)frame->data, frame->len, JSON_REJECT_DUPLICATES, NULL);
    int result = json_is_object(message) ? take_message(session, message) : -1;
    json_decref(message);
    return result;
}

void guest_session_run(struct guest_session *session)
{
    struct guest_frame frame;
    session->last_id = session->hello_id = 0;
    if (session->control && say_hello(session))
        return;
    while (guest_conn_read(session->conn, &frame) == 0)
        if (take_frame(session, &frame))
            return;
}
