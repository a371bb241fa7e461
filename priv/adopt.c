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
    /* The last two: the number is a thread's by now (ENOENT since Linux 6.16). */
    if (pidfd < 0 && errno != ESRCH && errno != EINVAL && errno != ENOENT)
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

struct likeness {
    bool uid, namespace, cgroup;
    bool name;   /* its command line says whose it is */
    bool inside; /* it is where only processes of this instance are */
};

static int look_for_cgroup(const struct priv_server *server, const struct priv_record *record,
                           bool *ret, struct error *err)
{
    struct error wrong = {0};
    *ret = priv_cgroup_holds(&server->cgroups, record->instance, record->pid, &wrong) == 0;
    if (!*ret && wrong.sys != 0) {
        *err = wrong;
        return -1;
    }
    return 0;
}

/* -1: it cannot be read. */
static int look_at(const struct priv_server *server, const struct priv_record *record,
                   struct likeness *ret, struct error *err)
{
    char path[32], text[8192];
    uint64_t netns = 0;
    snprintf(path, sizeof(path), "/proc/%d/status", record->pid);
    if (fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading %s", path);
    ret->uid = priv_proc_ids_are(text, "Uid", record->uid);
    snprintf(path, sizeof(path), "/proc/%d/cmdline", record->pid);
    ssize_t len = fs_read_at(AT_FDCWD, path, text, sizeof(text));
    if (len < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading %s", path);
    ret->name = memmem(text, (size_t)len, record->instance, ID_INSTANCE_LEN) != NULL;
    if (priv_proc_namespace(record->pid, "net", &netns, err) < 0)
        return -1;
    ret->namespace = netns == record->netns;
    return look_for_cgroup(server, record, &ret->cgroup, err);
}

/* One that is inside gets this run's limits, which its cgroup may need to be what it should. */
static int look_and_limit(const struct priv_server *server, const struct priv_record *record,
                          struct likeness *ret, struct error *err)
{
    struct error ignored = {0}; /* CHECK tells */
    if (look_at(server, record, ret, err) < 0)
        return -1;
    ret->inside = ret->namespace || (ret->cgroup && server->cgroups.count > 0);
    if (!ret->inside)
        return 0;
    priv_cgroup_adopt(&server->cgroups, record->instance, record->pid, &ignored);
    return look_for_cgroup(server, record, &ret->cgroup, err);
}

/* Pid, start time and boot name one process. It gets a signal only if it also is where only processes
 * of this instance are (a VMM that got out of its namespace or its cgroup is still in the other), and
 * is adopted only if all is as it was made. Where that cannot be read for our want of something nothing
 * is concluded: the start fails, and the VM runs on. (One that is just dying has lost its namespaces,
 * and cannot be read either.) */
static int match_process(struct priv_server *server, struct priv_instance_slot *slot,
                         struct error *err)
{
    const struct priv_record *record = &slot->record;
    struct error unread = {0};
    struct likeness like = {0};
    cleanup_close int pidfd = -1;
    if (record->pid <= 0 || strcmp(record->boot_id, server->boot_id) != 0)
        return 0;
    if (find_process(record, &pidfd, err) < 0)
        return -1;
    if (pidfd < 0)
        return 0;
    int result = look_and_limit(server, record, &like, &unread);
    if (priv_pidfd_ended(pidfd))
        return 0;
    if (result < 0 && error_is_shortage(&unread)) {
        *err = unread;
        return error_wrap(err, "instance %s", record->instance);
    }
    if (result < 0 || !like.inside)
        return 0;
    slot->matches = like.uid && like.namespace && like.cgroup && like.name;
    slot->pidfd = TAKE_FD(pidfd);
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
    else
        priv_staged_adopt(server, slot);
    return 0;
}
