/* From a packet's bytes to an operation: the table says what each may carry and in which states it
 * may run. All that is not in it is refused with no effect. */
#include "priv/internal.h"

enum { ANY_STATE = 1 << PRIV_RESERVED | 1 << PRIV_GUARDED | 1 << PRIV_LAUNCHED | 1 << PRIV_DEAD };

struct operation {
    const char *name;
    size_t size;     /* bytes of the union in use; the rest must be zero */
    unsigned states; /* bits; 0: takes no instance */
    priv_operation *run;
};

static const struct operation operations[PRIV_OP_END] = {
    [PRIV_HOST] = {"host", 0, 0, priv_op_host},
    [PRIV_RESERVE] = {"reserve", 0, 0, priv_op_reserve},
    [PRIV_GUARD] = {"guard", sizeof(struct priv_shape), 1 << PRIV_RESERVED, priv_op_guard},
    [PRIV_LAUNCH] = {"launch", HASH_SIZE + ID_INSTANCE_SIZE + 1, 1 << PRIV_GUARDED, priv_op_launch},
    [PRIV_OPEN] = {"open", 2 * sizeof(uint32_t), 1 << PRIV_LAUNCHED, priv_op_open},
    [PRIV_CHECK] = {"check", 0, 1 << PRIV_LAUNCHED, priv_op_check},
    [PRIV_REPORT] = {"report", sizeof(uint32_t), 1 << PRIV_LAUNCHED, priv_op_report},
    [PRIV_USAGE] = {"usage", 0, 1 << PRIV_GUARDED | 1 << PRIV_LAUNCHED, priv_op_usage},
    [PRIV_STAGE] = {"stage", 0, 1 << PRIV_LAUNCHED, priv_op_stage},
    [PRIV_CAPTURE] = {"capture", 0, 1 << PRIV_LAUNCHED, priv_op_capture},
    [PRIV_PUBLISH] = {"publish", 0, 1 << PRIV_LAUNCHED, priv_op_publish},
    [PRIV_UNSTAGE] = {"unstage", 0, 1 << PRIV_LAUNCHED | 1 << PRIV_DEAD, priv_op_unstage},
    [PRIV_KILL] = {"kill", 0, ANY_STATE, priv_op_kill},
    [PRIV_LIST] = {"list", sizeof(uint32_t), 0, priv_op_list},
    [PRIV_DROPS] = {"drops", sizeof(uint32_t), 0, priv_op_drops},
    [PRIV_SNAPSHOTS] = {"snapshots", ID_INSTANCE_SIZE, 0, priv_op_snapshots},
    [PRIV_FORGET_SNAPSHOT] = {"forget-snapshot", ID_INSTANCE_SIZE, 0, priv_op_forget_snapshot},
};

const char *priv_operation_name(uint32_t op)
{
    return operations[op].name;
}

static bool all_zero(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint8_t seen = 0;
    for (size_t i = 0; i < len; i++)
        seen |= at[i];
    return seen == 0;
}

static bool id_clean(const char *id)
{
    return memchr(id, '\0', ID_INSTANCE_SIZE) != NULL && id_instance_valid(id) &&
           all_zero(id + ID_INSTANCE_LEN, ID_INSTANCE_SIZE - ID_INSTANCE_LEN);
}

static bool id_clean_or_none(const char *id)
{
    return all_zero(id, ID_INSTANCE_SIZE) || id_clean(id);
}

/* What the operation's own part says, beyond its size. */
static const char *argument_refusal(const struct priv_request *request)
{
    switch (request->op) {
    case PRIV_OPEN:
        return request->u.open.port != 0 && request->u.open.what != PRIV_SOCKET_PORT
                   ? "a port where none belongs"
                   : NULL;
    case PRIV_LAUNCH:
        if (!id_clean_or_none(request->u.launch.snapshot))
            return "bad snapshot id";
        return request->u.launch.as_template > (request->u.launch.snapshot[0] == '\0')
                   ? "a template boots, or is none"
                   : NULL;
    case PRIV_SNAPSHOTS:
        return id_clean_or_none(request->u.snapshots.after) ? NULL : "bad snapshot id";
    case PRIV_FORGET_SNAPSHOT:
        return id_clean(request->u.forget.snapshot) ? NULL : "bad snapshot id";
    default:
        return NULL;
    }
}

const char *priv_request_refusal(const struct priv_request *request)
{
    if (request->protocol != PRIV_PROTOCOL)
        return "another protocol: the two halves of Motte are of different versions";
    if (request->op == 0 || request->op >= PRIV_OP_END)
        return "unknown operation";
    const struct operation *operation = &operations[request->op];
    if (operation->states == 0 ? !all_zero(request->instance, sizeof(request->instance))
                               : !id_clean(request->instance))
        return "bad instance id";
    if (!all_zero(request->u.bytes + operation->size, sizeof(request->u) - operation->size))
        return "an unused byte is not zero";
    return argument_refusal(request);
}

static const char *state_name(uint32_t state)
{
    static const char *const names[] = {[PRIV_RESERVED] = "reserved",
                                        [PRIV_GUARDED] = "guarded",
                                        [PRIV_LAUNCHED] = "launched",
                                        [PRIV_DEAD] = "dead"};
    return state >= PRIV_RESERVED && state <= PRIV_DEAD ? names[state] : "unknown";
}

static int run(struct priv_server *server, const struct priv_request *request,
               struct priv_answer *answer, struct error *err)
{
    const struct operation *operation = &operations[request->op];
    struct priv_instance_slot *slot = NULL;
    if (operation->states != 0) {
        slot = priv_slot_find(server, request->instance);
        if (slot == NULL && request->op != PRIV_KILL)
            return error_set(err, ERR_PRIV_REFUSED, 0, "no such instance");
        if (slot != NULL && !(operation->states & 1u << slot->record.state))
            return error_set(err, ERR_PRIV_REFUSED, 0, "not while the instance is %s",
                             state_name(slot->record.state));
    }
    return operation->run(server, slot, request, answer, err);
}

void priv_dispatch(struct priv_server *server, const struct priv_request *request,
                   struct priv_answer *answer)
{
    struct error err = {0};
    struct priv_reply *reply = &answer->reply;
    if (run(server, request, answer, &err) == 0)
        return;
    memset(&reply->u, 0, sizeof(reply->u));
    for (size_t i = 0; i < answer->fd_count; i++)
        cleanup_close_func(&answer->fds[i]);
    answer->fd_count = 0;
    reply->code = err.code;
    reply->sys = err.sys;
    memcpy(reply->message, err.msg, sizeof(reply->message));
}
