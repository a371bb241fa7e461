/* Guards that a VMM's process has as a whole. */
#include "priv/check_internal.h"

#include <errno.h>
#include <fcntl.h>

int priv_line_namespace(struct priv_look *look, int what, struct priv_line *ret, struct error *err)
{
    static const char *const names[] = {[PRIV_NS_NET] = "net",
                                        [PRIV_NS_MNT] = "mnt",
                                        [PRIV_NS_PID] = "pid",
                                        [PRIV_NS_IPC] = "ipc",
                                        [PRIV_NS_UTS] = "uts"};
    const struct priv_record *record = &look->slot->record;
    uint64_t ours = 0, theirs = 0;
    if (priv_proc_namespace(0, names[what], &ours, err) < 0 ||
        priv_proc_namespace(record->pid, names[what], &theirs, err) < 0)
        return -1;
    priv_line_value(ret, (int64_t)theirs);
    if (ours == theirs) {
        ret->state = PRIV_LINE_ABSENT;
        return error_set(err, ERR_GUARD, 0, "the VMM shares our %s namespace", names[what]);
    }
    if (what == PRIV_NS_NET && theirs != record->netns)
        return error_set(err, ERR_GUARD, 0, "the VMM has left its network namespace");
    return 0;
}

static int read_limits(struct priv_look *look, struct error *err)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/limits", look->slot->record.pid);
    if (fs_read_at(AT_FDCWD, path, look->limits, sizeof(look->limits)) < 0)
        return error_set(err, ERR_GUARD, errno, "reading the limits of the VMM");
    look->limits_read = true;
    return 0;
}

/* "Max core file size  0  0  bytes": soft and hard. */
int priv_line_rlimit(struct priv_look *look, int what, struct priv_line *ret, struct error *err)
{
    static const char *const names[PRIV_RLIMITS] = {[PRIV_RLIMIT_CORE] = "Max core file size ",
                                                    [PRIV_RLIMIT_FSIZE] = "Max file size ",
                                                    [PRIV_RLIMIT_NOFILE] = "Max open files ",
                                                    [PRIV_RLIMIT_MEMLOCK] = "Max locked memory "};
    uint64_t wanted[PRIV_RLIMITS];
    priv_rlimits(look->server, &look->slot->record.shape, wanted);
    if (!look->limits_read && read_limits(look, err) < 0)
        return -1;
    const char *at = strstr(look->limits, names[what]);
    at = at == NULL ? "" : at + strlen(names[what]);
    for (int i = 0; i < 2; i++) {
        char *end = NULL;
        if (strtoull(at, &end, 10) != wanted[what] || end == at)
            return error_set(err, ERR_GUARD, 0, "the VMM's \"%.*s\" is not %llu",
                             (int)strlen(names[what]) - 1, names[what],
                             (unsigned long long)wanted[what]);
        at = end;
    }
    if (what != PRIV_RLIMIT_CORE)
        priv_line_value(ret, (int64_t)wanted[what]);
    return 0;
}
