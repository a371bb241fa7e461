/* From a packet's bytes to an operation: the table says what each may carry and in which states it
 * may run. All that is not in it is refused with no effect. */
#include "priv/internal.h"

enum { ANY_STATE = 1 << PRIV_RESERVED | 1 << PRIV_GUARDED | 1 << PRIV_LAUNCHED | 1 << PRIV_DEAD };

struct operation {
    size_t size;     /* bytes of the union in use; the rest must be zero */
    unsigned states; /* bits; 0: takes no instance */
    priv_operation *run;
};

static const struct operation operations[PRIV_OP_END] = {
    [PRIV_HOST] = {0, 0, priv_op_host},
    [PRIV_RESERVE] = {0, 0, priv_op_reserve},
    [PRIV_GUARD] = {sizeof(struct priv_shape), 1 << PRIV_RESERVED, priv_op_guard},
    [PRIV_LAUNCH] = {HASH_SIZE, 1 << PRIV_GUARDED, priv_op_launch},
    [PRIV_OPEN] = {2 * sizeof(uint32_t), 1 << PRIV_LAUNCHED, priv_op_open},
    [PRIV_CHECK] = {0, 1 << PRIV_LAUNCHED, priv_op_check},
    [PRIV_REPORT] = {sizeof(uint32_t), 1 << PRIV_LAUNCHED, priv_op_report},
    [PRIV_USAGE] = {0, 1 << PRIV_GUARDED | 1 << PRIV_LAUNCHED, priv_op_usage},
    [PRIV_KILL] = {0, ANY_STATE, priv_op_kill},
    [PRIV_LIST] = {sizeof(uint32_t), 0, priv_op_list},
    [PRIV_DROPS] = {sizeof(uint32_t), 0, priv_op_drops},
};

static bool all_zero(const void *bytes, size_t len)
{
    const uint8_t *at = bytes;
    uint8_t seen = 0;
    for (size_t i = 0; i < len; i++)
        seen |= at[i];
    return seen == 0;
}

static bool instance_clean(const char *instance)
{
    return memchr(instance, '\0', ID_INSTANCE_SIZE) != NULL && id_instance_valid(instance) &&
           all_zero(instance + ID_INSTANCE_LEN, ID_INSTANCE_SIZE - ID_INSTANCE_LEN);
}

const char *priv_request_refusal(const struct priv_request *request)
{
    if (request->protocol != PRIV_PROTOCOL)
        return "another protocol: the two halves of Motte are of different versions";
    if (request->op == 0 || request->op >= PRIV_OP_END)
        return "unknown operation";
    const struct operation *operation = &operations[request->op];
    if (operation->states == 0 ? !all_zero(request->instance, sizeof(request->instance))
                               : !instance_clean(request->instance))
        return "bad instance id";
    if (!all_zero(request->u.bytes + operation->size, sizeof(request->u) - operation->size))
        return "an unused byte is not zero";
    return request->op == PRIV_OPEN && request->u.open.port != 0 &&
                   request->u.open.what != PRIV_SOCKET_PORT
               ? "a port where none belongs"
               : NULL;
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
