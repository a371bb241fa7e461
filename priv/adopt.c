/* Instances of an earlier run, found by their records when the root half starts. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>

/* -1: it cannot be said. 0 with *ret_pidfd -1: it has ended. */
static int find_process(const struct priv_record *record, int *ret_pidfd, struct error *err)
{
    struct error reading = {0};
    uint64_t start = 0;
    *ret_pidfd = -1;
    cleanup_close int pidfd = (int)syscall(SYS_pidfd_open, record->pid, 0);
    if (pidfd < 0 && errno != ESRCH && errno != EINVAL)
        return error_set(err, ERR_SYSTEM, errno, "looking for the VMM of %s", record->instance);
    if (pidfd < 0)
        return 0;
    int result = priv_proc_start(record->pid, &start, &reading);
    if (priv_pidfd_ended(pidfd))
        return 0;
    if (result < 0 && error_is_shortage(&reading)) {
        *err = reading;
        return -1;
    }
    if (result == 0 && start == record->start_time)
        *ret_pidfd = TAKE_FD(pidfd);
    return 0;
}

/* Its uid, namespace and cgroup. */
static int match_guards(const struct priv_server *server, const struct priv_record *record,
                        struct error *err)
{
    char path[32], status[8192];
    uint64_t netns = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", record->pid);
    if (fs_read_at(AT_FDCWD, path, status, sizeof(status)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading %s", path);
    if (priv_proc_namespace(record->pid, "net", &netns, err) < 0)
        return -1;
    if (!priv_proc_ids_are(status, "Uid", record->uid) || netns != record->netns)
        return error_set(err, ERR_GUARD, 0, "process %d is another one", record->pid);
    return priv_cgroup_holds(&server->cgroups, record->instance, record->pid, err);
}

/* Identity first, then the rest: a process with this pid, start time and boot is the one that was
 * launched and may be killed; only one that also has its uid, namespace and cgroup is alive. Where
 * that cannot be read for our want of something nothing is concluded: the start fails, and the VM
 * runs on. (One that is just dying has lost its namespaces, and cannot be read either.) */
static int match_process(struct priv_server *server, struct priv_instance_slot *slot,
                         struct error *err)
{
    const struct priv_record *record = &slot->record;
    struct error ignored = {0}, wrong = {0};
    if (record->pid <= 0 || strcmp(record->boot_id, server->boot_id) != 0)
        return 0;
    if (find_process(record, &slot->pidfd, err) < 0)
        return -1;
    if (slot->pidfd < 0)
        return 0;
    priv_cgroup_adopt(&server->cgroups, record->instance, record->pid, &ignored); /* CHECK tells */
    int result = match_guards(server, record, &wrong);
    bool ended = priv_pidfd_ended(slot->pidfd);
    if (result < 0 && !ended && error_is_shortage(&wrong)) {
        *err = wrong;
        return error_wrap(err, "instance %s", record->instance);
    }
    slot->matches = result == 0 && !ended;
    return 0;
}

/* One that is damaged, or gone meanwhile, is undone; one that cannot be read now may be a VM's. */
int priv_adopt(void *context, const char *instance, struct error *err)
{
    struct priv_server *server = context;
    struct priv_record record;
    struct error failed = {0};
    if (priv_record_read(server->records, instance, &record, &failed) < 0) {
        if (failed.sys == 0 || failed.sys == ENOENT || failed.sys == ELOOP)
            return priv_undo(server, NULL, instance, NULL, err);
        *err = failed;
        return -1;
    }
    struct priv_instance_slot *slot = priv_slot_adopt(server, &record, err);
    if (slot == NULL)
        return -1;
    if (server->firewall != NULL && priv_firewall_adopt(server->firewall, &record, err) < 0)
        return -1;
    if (match_process(server, slot, err) < 0)
        return -1;
    if (slot->record.state != PRIV_LAUNCHED || !slot->matches)
        slot->record.state = PRIV_DEAD;
    return 0;
}
