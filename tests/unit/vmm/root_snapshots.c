/* The scripted root half's snapshots: names, and how far each VM's is. */
#include "tests/unit/vmm/root.h"

bool root_does_snapshots(enum priv_op op)
{
    return op == PRIV_STAGE || op == PRIV_CAPTURE || op == PRIV_PUBLISH || op == PRIV_UNSTAGE ||
           op == PRIV_SNAPSHOTS || op == PRIV_FORGET_SNAPSHOT;
}

/* From one phase to the next, or to none. The real one refuses steps out of order, too. */
static enum error_code step(struct guest *guest, enum moment moment, enum phase from, enum phase to)
{
    if (guest == NULL || guest->phase != (int)from)
        return ERR_PRIV_REFUSED;
    if (guest->plan.die == moment)
        guest_die(guest);
    bool fail = guest_moment(guest, moment);
    if (guest_ended(guest) || fail) {
        guest->phase = PHASE_NONE;
        return guest_ended(guest) ? ERR_VMM_EXITED : ERR_DISK_FULL;
    }
    guest->phase = to;
    return ERR_NONE;
}

/* What the VMM wrote is a snapshot of it as it stood: it has to stand. */
static enum error_code standing(struct guest *guest, enum moment moment, enum phase from,
                                enum phase to)
{
    CHECK(guest == NULL || guest_ended(guest) || guest->paused);
    return step(guest, moment, from, to);
}

static enum error_code publish(struct root *root, struct guest *guest, struct priv_reply *reply)
{
    enum error_code code = step(guest, AT_PUBLISH, PHASE_CAPTURED, PHASE_NONE);
    struct error err = {0};
    if (code != ERR_NONE)
        return code;
    struct snapshot *made = calloc(1, sizeof(*made));
    CHECK(made != NULL && id_instance_make(made->id, &err) == 0);
    memcpy(made->instance, guest->instance, sizeof(made->instance));
    made->generation = guest->generation;
    memcpy(reply->u.publish.snapshot, made->id, ID_INSTANCE_SIZE);
    reply->u.publish.bytes = 4096;
    pthread_mutex_lock(&root->lock);
    struct snapshot **at = &root->snapshots;
    while (*at != NULL && strcmp((*at)->id, made->id) < 0)
        at = &(*at)->next;
    made->next = *at;
    *at = made;
    pthread_mutex_unlock(&root->lock);
    return ERR_NONE;
}

static enum error_code list(struct root *root, const char *after, struct priv_snapshot *ret)
{
    pthread_mutex_lock(&root->lock);
    const struct snapshot *snapshot = root->snapshots;
    bool refused = root->no_snapshots;
    while (snapshot != NULL && strcmp(snapshot->id, after) <= 0)
        snapshot = snapshot->next;
    if (snapshot != NULL && !refused) {
        memcpy(ret->snapshot, snapshot->id, ID_INSTANCE_SIZE);
        memcpy(ret->instance, snapshot->instance, ID_INSTANCE_SIZE);
        ret->generation = snapshot->generation;
    }
    pthread_mutex_unlock(&root->lock);
    return refused ? ERR_SYSTEM : ERR_NONE;
}

static enum error_code forget(struct root *root, const char *id)
{
    pthread_mutex_lock(&root->lock);
    bool refused = root->no_forget;
    struct snapshot **at = &root->snapshots;
    while (*at != NULL && strcmp((*at)->id, id) != 0)
        at = &(*at)->next;
    struct snapshot *gone = refused ? NULL : *at;
    if (gone != NULL)
        *at = gone->next;
    pthread_mutex_unlock(&root->lock);
    free(gone);
    return refused ? ERR_SYSTEM : ERR_NONE;
}

enum error_code root_snapshot_op(struct root *root, struct guest *guest,
                                 const struct priv_request *request, struct priv_reply *reply)
{
    switch (request->op) {
    case PRIV_STAGE:
        return standing(guest, AT_STAGE, PHASE_NONE, PHASE_STAGED);
    case PRIV_CAPTURE:
        return standing(guest, AT_CAPTURE, PHASE_STAGED, PHASE_CAPTURED);
    case PRIV_PUBLISH:
        return publish(root, guest, reply);
    case PRIV_SNAPSHOTS:
        return list(root, request->u.snapshots.after, &reply->u.snapshots);
    case PRIV_FORGET_SNAPSHOT:
        return forget(root, request->u.forget.snapshot);
    default: /* UNSTAGE */
        if (guest == NULL)
            return ERR_PRIV_REFUSED;
        guest->phase = PHASE_NONE;
        return ERR_NONE;
    }
}

uint32_t root_generation(struct root *root, const char *snapshot)
{
    pthread_mutex_lock(&root->lock);
    const struct snapshot *at = root->snapshots;
    while (at != NULL && strcmp(at->id, snapshot) != 0)
        at = at->next;
    uint32_t generation = at != NULL ? at->generation + 1 : 0;
    pthread_mutex_unlock(&root->lock);
    return generation;
}

void root_unstage_all(struct root *root)
{
    pthread_mutex_lock(&root->lock);
    for (struct guest *guest = root->guests; guest != NULL; guest = guest->next)
        guest->phase = PHASE_NONE;
    pthread_mutex_unlock(&root->lock);
}

void root_forget_all(struct root *root)
{
    while (root->snapshots != NULL) {
        struct snapshot *first = root->snapshots;
        root->snapshots = first->next;
        free(first);
    }
}

size_t root_snapshots(struct root *root)
{
    size_t count = 0;
    pthread_mutex_lock(&root->lock);
    for (const struct snapshot *at = root->snapshots; at != NULL; at = at->next)
        count++;
    pthread_mutex_unlock(&root->lock);
    return count;
}
