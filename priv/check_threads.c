/* Guards that each thread of a VMM has for itself. */
#include "priv/check_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

enum { THREADS_MAX = 1024 };

struct view {
    const struct priv_record *record;
    unsigned own_filters;
    struct priv_thread_verdict *verdicts;
};

/* Threads that the kernel makes for itself in the VMM's process (KVM's page recovery, io_uring)
 * never run code of the VMM. */
static int kernel_worker(int task)
{
    enum { FLAGS = 9, AFTER_NAME = 3, PF_IO_WORKER = 0x10, PF_USER_WORKER = 0x4000 };
    char text[1024];
    if (fs_read_at(task, "stat", text, sizeof(text)) < 0)
        return -1;
    char *at = strrchr(text, ')');
    for (int field = AFTER_NAME - 1; at != NULL && field < FLAGS; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    return at != NULL && (strtoul(at, NULL, 10) & (PF_IO_WORKER | PF_USER_WORKER)) != 0 ? 1 : 0;
}

static int look_seccomp(const struct view *view, const char *status, const char *task,
                        struct error *err)
{
    const char *mode = priv_proc_field(status, "Seccomp");
    const char *count = priv_proc_field(status, "Seccomp_filters");
    unsigned filters = count == NULL ? 0 : (unsigned)strtoul(count, NULL, 10);
    /* QEMU adds one of its own for -sandbox, which must not pass for ours. */
    unsigned loaded = view->record->hypervisor == PRIV_QEMU ? 2 : 1;
    if (mode != NULL && mode[0] == '2' && filters == view->own_filters + loaded)
        return 0;
    if (filters <= view->own_filters)
        view->verdicts[PRIV_THREAD_SECCOMP].absent = true;
    return error_set(err, ERR_GUARD, 0,
                     "thread %s of the VMM has %u seccomp filters where %u are inherited and "
                     "%u more had to be loaded",
                     task, filters, view->own_filters, loaded);
}

static int look_privileges(const struct view *view, const char *status, const char *task,
                           struct error *err)
{
    const char *privileges = priv_proc_field(status, "NoNewPrivs");
    if (privileges != NULL && privileges[0] == '1')
        return 0;
    view->verdicts[PRIV_THREAD_NO_NEW_PRIVS].absent = true;
    return error_set(err, ERR_GUARD, 0, "thread %s of the VMM lacks no_new_privs", task);
}

/* The bounding set may be anything: with no_new_privs nothing can be had from it. */
static int look_capabilities(const struct view *view, const char *status, const char *task,
                             struct error *err)
{
    static const char *const sets[] = {"CapEff", "CapPrm", "CapInh", "CapAmb"};
    (void)view;
    for (size_t i = 0; i < COUNT_OF(sets); i++) {
        const char *set = priv_proc_field(status, sets[i]);
        if (set == NULL || strtoull(set, NULL, 16) != 0)
            return error_set(err, ERR_GUARD, 0, "thread %s of the VMM has capabilities (%s)", task,
                             sets[i]);
    }
    return 0;
}

static int look_uid(const struct view *view, const char *status, const char *task,
                    struct error *err)
{
    uint32_t uid = view->record->uid;
    if (priv_proc_ids_are(status, "Uid", uid) && priv_proc_ids_are(status, "Gid", uid))
        return 0;
    return error_set(err, ERR_GUARD, 0, "thread %s of the VMM is not under uid %u", task, uid);
}

/* Of each guard the first thread that lacks it is told. */
static void judge(const struct view *view, const char *status, const char *task)
{
    static int (*const looks[])(const struct view *, const char *, const char *, struct error *) = {
        [PRIV_THREAD_SECCOMP] = look_seccomp,
        [PRIV_THREAD_NO_NEW_PRIVS] = look_privileges,
        [PRIV_THREAD_CAPABILITIES] = look_capabilities,
        [PRIV_THREAD_UID] = look_uid,
    };
    for (size_t i = 0; i < COUNT_OF(looks); i++)
        if (view->verdicts[i].err.code == ERR_NONE)
            (void)looks[i](view, status, task, &view->verdicts[i].err);
}

/* 1: seen; 0: not the VMM's, or gone. */
static int look_at(const struct view *view, int tasks, const char *name, struct error *err)
{
    char status[PRIV_CHECK_TEXT_MAX];
    cleanup_close int task = openat(tasks, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int worker = -1;
    if (task < 0 || fs_read_at(task, "status", status, sizeof(status)) < 0 ||
        (worker = kernel_worker(task)) < 0)
        return errno == ENOENT || errno == ESRCH
                   ? 0
                   : error_set(err, ERR_GUARD, errno, "reading the status of thread %s", name);
    if (worker == 1)
        return 0;
    judge(view, status, name);
    return 1;
}

static int look_at_all(const struct view *view, DIR *dir, struct error *err)
{
    int seen = 0, count = 0;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0) /* what was not seen may lack its guards */
            return error_set(err, ERR_GUARD, errno, "reading the threads of the VMM");
        if (entry == NULL)
            break;
        if (entry->d_name[0] == '.')
            continue;
        if (++count > THREADS_MAX)
            return error_set(err, ERR_GUARD, 0, "the VMM has more than %d threads", THREADS_MAX);
        int result = look_at(view, dirfd(dir), entry->d_name, err);
        if (result < 0)
            return -1;
        seen += result;
    }
    return seen > 0 ? seen : error_set(err, ERR_GUARD, 0, "the VMM has no thread");
}

static int read_threads(const struct view *view, struct error *err)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/task", view->record->pid);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL) {
        error_set(err, ERR_GUARD, errno, "reading the threads of the VMM");
        cleanup_close_func(&fd);
        return -1;
    }
    int seen = look_at_all(view, dir, err);
    closedir(dir);
    return seen;
}

/* What could not be read is wrong of every guard. */
static void look_once(struct priv_look *look)
{
    struct error unread = {0};
    struct view view = {.record = &look->slot->record, .verdicts = look->threads};
    (void)priv_proc_own_filters(&view.own_filters, &look->threads[PRIV_THREAD_SECCOMP].err);
    look->thread_count = read_threads(&view, &unread);
    for (size_t i = 0; look->thread_count < 0 && i < COUNT_OF(look->threads); i++)
        look->threads[i].err = unread;
    look->threads_read = true;
}

int priv_line_threads(struct priv_look *look, int what, struct priv_line *ret, struct error *err)
{
    if (!look->threads_read)
        look_once(look);
    const struct priv_thread_verdict *verdict = &look->threads[what];
    if (verdict->err.code != ERR_NONE) {
        if (verdict->absent)
            ret->state = PRIV_LINE_ABSENT;
        *err = verdict->err;
        return -1;
    }
    priv_line_value(ret,
                    what == PRIV_THREAD_UID ? (int64_t)look->slot->record.uid : look->thread_count);
    return 0;
}
