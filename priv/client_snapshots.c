/* The operations about snapshots: see client_calls.c. */
#include "priv/client_internal.h"

static int ask(struct priv_client *client, enum priv_op op, const char *instance, int patience_s,
               struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, op);
    call.patience_s = patience_s;
    struct priv_request request = {0};
    if (priv_call_name(request.instance, instance, err) != 0) {
        return -1;
    }
    return priv_call_ask(&call, client, &request, 0, 0, err);
}

int priv_stage(struct priv_client *client, const char *instance, struct error *err)
{
    return ask(client, PRIV_STAGE, instance, PRIV_COPY_SECONDS, err);
}

int priv_capture(struct priv_client *client, const char *instance, struct error *err)
{
    return ask(client, PRIV_CAPTURE, instance, PRIV_COPY_SECONDS, err);
}

int priv_unstage(struct priv_client *client, const char *instance, struct error *err)
{
    return ask(client, PRIV_UNSTAGE, instance, PRIV_COPY_SECONDS, err);
}

int priv_publish(struct priv_client *client, const char *instance, struct priv_published *ret,
                 struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_PUBLISH);
    call.patience_s = PRIV_COPY_SECONDS;
    struct priv_request request = {0};
    if (priv_call_name(request.instance, instance, err) != 0 ||
        priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const char *snapshot = call.reply.u.publish.snapshot;
    if (snapshot[0] == '\0' || !priv_id_sound(snapshot)) {
        return priv_call_nonsense(&call, err);
    }
    memcpy(ret->snapshot, snapshot, ID_INSTANCE_SIZE);
    memcpy(ret->digest, call.reply.u.publish.digest, HASH_SIZE);
    ret->bytes = call.reply.u.publish.bytes;
    return 0;
}

int priv_snapshots(struct priv_client *client, const char *after, struct priv_snapshot *ret,
                   struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_SNAPSHOTS);
    struct priv_request request = {0};
    if ((after != NULL && priv_call_name(request.u.snapshots.after, after, err) != 0) ||
        priv_call_ask(&call, client, &request, 0, 0, err) != 0) {
        return -1;
    }
    const struct priv_snapshot *snapshot = &call.reply.u.snapshots;
    /* Each is greater than the last, or a listing would never end. */
    bool later = snapshot->snapshot[0] == '\0' || after == NULL ||
                 strncmp(snapshot->snapshot, after, ID_INSTANCE_LEN) > 0;
    if (!priv_id_sound(snapshot->snapshot) || !priv_id_sound(snapshot->instance) || !later) {
        return priv_call_nonsense(&call, err);
    }
    *ret = *snapshot;
    return 0;
}

int priv_forget_snapshot(struct priv_client *client, const char *snapshot, struct error *err)
{
    cleanup(priv_call_release) struct priv_call call;
    priv_call_init(&call, PRIV_FORGET_SNAPSHOT);
    struct priv_request request = {0};
    if (priv_call_name(request.u.forget.snapshot, snapshot, err) != 0) {
        return -1;
    }
    return priv_call_ask(&call, client, &request, 0, 0, err);
}
