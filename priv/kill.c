/* KILL, and the undo of everything: names derive from the instance id alone, so it needs no record,
 * may be repeated, and takes "gone" for success. The order is what keeps guards longer than what
 * they guard: processes, their cgroup, the record, and when the instance is forgotten the chain,
 * with it the uid. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { END_TIMEOUT_MS = 10000 };

/* SIGKILL, wait, reap. As pid 1 of its namespace the VMM takes all its descendants with it. */
static int end_process(struct priv_server *server, struct priv_instance_slot *slot,
                       struct priv_reply *reply, struct error *err)
{
    if (slot->pidfd < 0)
        return 0;
    pthread_mutex_lock(&server->lock);
    bool running = slot->hurried ? slot->was_running : !priv_pidfd_ended(slot->pidfd);
    pthread_mutex_unlock(&server->lock);
    syscall(SYS_pidfd_send_signal, slot->pidfd, SIGKILL, NULL, 0);
    struct pollfd p = {.fd = slot->pidfd, .events = POLLIN};
    int ended;
    do
        ended = poll(&p, 1, END_TIMEOUT_MS);
    while (ended < 0 && errno == EINTR);
    if (ended != 1)
        return error_set(err, ERR_HYPERVISOR, 0, "the VMM of %s does not end after SIGKILL",
                         slot->record.instance);
    int status = 0;
    if (slot->child && waitpid(slot->record.pid, &status, 0) == slot->record.pid) {
        slot->has_status = true;
        slot->status = status;
    }
    pthread_mutex_lock(&server->lock); /* should what comes next fail, the next KILL tells this */
    slot->hurried = true;
    slot->was_running = running;
    pthread_mutex_unlock(&server->lock);
    reply->u.kill.was_running = running;
    reply->u.kill.has_status = slot->has_status;
    reply->u.kill.status = slot->status;
    return 0;
}

int priv_undo(struct priv_server *server, struct priv_instance_slot *slot, const char *instance,
              struct priv_reply *ret, struct error *err)
{
    struct priv_reply reply = {0};
    struct priv_usage usage;
    /* Nothing was done before GUARD. */
    if (slot != NULL && slot->record.state == PRIV_RESERVED)
        return 0;
    if (slot != NULL && end_process(server, slot, &reply, err) < 0)
        return -1;
    priv_cgroup_usage(&server->cgroups, instance, 0, &usage);
    reply.u.kill.oom_kills = usage.oom_kills;
    if (slot != NULL && slot->oom_kills < usage.oom_kills)
        slot->oom_kills = usage.oom_kills;
    if (slot != NULL)
        reply.u.kill.oom_kills = slot->oom_kills;
    if (server->cgroups.count > 0 && priv_cgroup_destroy(&server->cgroups, instance, err) < 0)
        return -1;
    if (server->firewall != NULL)
        priv_firewall_unguard(server->firewall, instance);
    unlinkat(server->scratch, instance, 0);
    if (priv_staged_drop(server, slot, err) < 0 ||
        priv_record_remove(server->records, instance, err) < 0)
        return -1;
    if (slot != NULL)
        priv_slot_close(server, slot);
    if (ret != NULL)
        ret->u.kill = reply.u.kill;
    return 0;
}

int priv_op_kill(struct priv_server *server, struct priv_instance_slot *slot,
                 const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    if (priv_undo(server, slot, request->instance, &answer->reply, err) < 0)
        return -1;
    if (slot != NULL)
        priv_slot_forget(server, slot);
    priv_memory_prune(server, NULL);
    return 0;
}
