/* The operations but those of snapshots: each fills a request, asks, and reads its part of the reply. */
#include "priv/client_internal.h"

int priv_host(struct priv_client *client, struct priv_host *ret, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_HOST);
    struct priv_request request = {0};
    if (priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const struct priv_host *host = &call.reply.u.host;
    if (!priv_text_ends(host->vmm_version, sizeof(host->vmm_version))) {
        return priv_call_nonsense(&call, err);
    }
    *ret = *host;
    return 0;
}

int priv_reserve(struct priv_client *client, char ret_instance[static ID_INSTANCE_SIZE],
                 char ret_chain[static PRIV_CHAIN_SIZE], uint32_t *ret_uid, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_RESERVE);
    struct priv_request request = {0};
    if (priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const char *instance = call.reply.u.reserve.instance;
    const char *chain = call.reply.u.reserve.chain;
    if (!priv_text_ends(instance, ID_INSTANCE_SIZE) || !id_instance_valid(instance) ||
        !priv_text_ends(chain, PRIV_CHAIN_SIZE)) {
        return priv_call_nonsense(&call, err);
    }
    memcpy(ret_instance, instance, ID_INSTANCE_SIZE);
    memcpy(ret_chain, chain, PRIV_CHAIN_SIZE);
    *ret_uid = call.reply.u.reserve.uid;
    return 0;
}

int priv_guard(struct priv_client *client, const char *instance, const struct priv_shape *shape,
               struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_GUARD);
    struct priv_request request = {.u.guard = *shape};
    if (priv_call_name(request.instance, instance, err) != 0) {
        return -1;
    }
    return priv_call_ask(&call, client, &request, 0, 0, err);
}

static int launch(struct priv_call *call, struct priv_client *client, struct priv_request *request,
                  struct priv_launched *ret, struct error *err)
{
    if (priv_call_ask(call, client, request, 2, 4, err) != 0) {
        return -1;
    }
    if (call->fd_count == 3)
        return priv_call_nonsense(call, err);
    ret->pidfd = priv_call_take_fd(call, 0);
    ret->console = priv_call_take_fd(call, 1);
    ret->hello = call->fd_count > 2 ? priv_call_take_fd(call, 2) : -1;
    ret->log = call->fd_count > 3 ? priv_call_take_fd(call, 3) : -1;
    memcpy(ret->token, call->reply.u.launch.token, PRIV_TOKEN_SIZE);
    memcpy(ret->snapshot_token, call->reply.u.launch.snapshot_token, PRIV_TOKEN_SIZE);
    ret->generation = call->reply.u.launch.generation;
    ret->apart = call->reply.u.launch.apart != 0;
    return 0;
}

static int boot(struct priv_client *client, const char *instance, const uint8_t *image,
                bool as_template, struct priv_launched *ret, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_LAUNCH);
    struct priv_request request = {.u.launch.as_template = as_template};
    memcpy(request.u.launch.image, image, HASH_SIZE);
    if (priv_call_name(request.instance, instance, err) != 0) {
        return -1;
    }
    return launch(&call, client, &request, ret, err);
}

int priv_launch(struct priv_client *client, const char *instance,
                const uint8_t image[static HASH_SIZE], struct priv_launched *ret, struct error *err)
{
    return boot(client, instance, image, false, ret, err);
}

int priv_launch_template(struct priv_client *client, const char *instance,
                         const uint8_t image[static HASH_SIZE], struct priv_launched *ret,
                         struct error *err)
{
    return boot(client, instance, image, true, ret, err);
}

int priv_launch_snapshot(struct priv_client *client, const char *instance,
                         const uint8_t image[static HASH_SIZE], const char *snapshot,
                         struct priv_launched *ret, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_LAUNCH);
    call.patience_s = PRIV_COPY_SECONDS;
    struct priv_request request = {0};
    memcpy(request.u.launch.image, image, HASH_SIZE);
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_name(request.u.launch.snapshot, snapshot, err) != 0) {
        return -1;
    }
    return launch(&call, client, &request, ret, err);
}

int priv_open(struct priv_client *client, const char *instance, enum priv_socket what,
              uint32_t port, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_OPEN);
    struct priv_request request = {.u.open = {.what = what, .port = port}};
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_ask(&call, client, &request, 1, 1, err) != 0) {
        return -1;
    }
    return priv_call_take_fd(&call, 0);
}

int priv_check(struct priv_client *client, const char *instance, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_CHECK);
    struct priv_request request = {0};
    if (priv_call_name(request.instance, instance, err) != 0) {
        return -1;
    }
    return priv_call_ask(&call, client, &request, 0, 0, err);
}

int priv_report(struct priv_client *client, const char *instance, uint32_t index,
                struct priv_line *ret, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_REPORT);
    struct priv_request request = {.u.report.index = index};
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const struct priv_line *line = &call.reply.u.report;
    bool end = line->name[0] == '\0';
    if (!end && (!priv_text_ends(line->name, sizeof(line->name)) ||
                 !priv_text_ends(line->detail, sizeof(line->detail)) ||
                 line->state < PRIV_LINE_OK || line->state > PRIV_LINE_NOT_APPLICABLE)) {
        return priv_call_nonsense(&call, err);
    }
    *ret = *line;
    return 0;
}

int priv_usage(struct priv_client *client, const char *instance, struct priv_usage *ret,
               struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_USAGE);
    struct priv_request request = {0};
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    *ret = call.reply.u.usage;
    return 0;
}

int priv_kill(struct priv_client *client, const char *instance, struct priv_killed *ret,
              struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_KILL);
    struct priv_request request = {0};
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    if (ret != NULL) {
        *ret = (struct priv_killed){.was_running = call.reply.u.kill.was_running != 0,
                                    .has_status = call.reply.u.kill.has_status != 0,
                                    .status = call.reply.u.kill.status,
                                    .oom_kills = call.reply.u.kill.oom_kills};
    }
    return 0;
}

int priv_list(struct priv_client *client, uint32_t index, struct priv_instance *ret,
              struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_LIST);
    struct priv_request request = {.u.list.index = index};
    if (priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const struct priv_instance *instance = &call.reply.u.list;
    if (!priv_id_sound(instance->instance) || !priv_id_sound(instance->snapshot)) {
        return priv_call_nonsense(&call, err);
    }
    *ret = *instance;
    return 0;
}

int priv_drops(struct priv_client *client, uint32_t index, struct priv_drops *ret,
               struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_DROPS);
    struct priv_request request = {.u.drops.index = index};
    if (priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const struct priv_drops *drops = &call.reply.u.drops;
    if (!priv_id_sound(drops->instance)) {
        return priv_call_nonsense(&call, err);
    }
    *ret = *drops;
    return 0;
}
