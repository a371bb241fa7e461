/* CHECK and REPORT: every guard of a launched VMM, read back from the kernel. One table serves
 * both, so that what a VM is started on and what its report says cannot differ. For Firecracker it
 * makes sense after InstanceStart only: its main thread loads its filter there. */
#include "priv/check_internal.h"

struct kind {
    const char *name;
    uint32_t guard; /* enum priv_guard: what the operator can leave out; 0: nothing */
    int what;
    priv_line_look *look;
};

/* clang-format off */
static const struct kind kinds[] = {
    {"seccomp",          PRIV_GUARD_SECCOMP,  PRIV_THREAD_SECCOMP,      priv_line_threads},
    {"no_new_privs",     0,                   PRIV_THREAD_NO_NEW_PRIVS, priv_line_threads},
    {"capabilities",     0,                   PRIV_THREAD_CAPABILITIES, priv_line_threads},
    {"uid",              0,                   PRIV_THREAD_UID,          priv_line_threads},
    {"namespace_net",    0,                   PRIV_NS_NET,              priv_line_namespace},
    {"namespace_mnt",    0,                   PRIV_NS_MNT,              priv_line_namespace},
    {"namespace_pid",    0,                   PRIV_NS_PID,              priv_line_namespace},
    {"namespace_ipc",    0,                   PRIV_NS_IPC,              priv_line_namespace},
    {"namespace_uts",    0,                   PRIV_NS_UTS,              priv_line_namespace},
    {"core_dumps",       0,                   PRIV_RLIMIT_CORE,         priv_line_rlimit},
    {"file_size",        0,                   PRIV_RLIMIT_FSIZE,        priv_line_rlimit},
    {"open_files",       0,                   PRIV_RLIMIT_NOFILE,       priv_line_rlimit},
    {"locked_memory",    0,                   PRIV_RLIMIT_MEMLOCK,      priv_line_rlimit},
    {"image_read_only",  0,                   0,                        priv_line_image_readonly},
    {"kernel_read_only", 0,                   0,                        priv_line_kernel_readonly},
    {"image_digest",     0,                   0,                        priv_line_image_digest},
    {"snapshot_read_only", 0,                 0,                        priv_line_snapshot_readonly},
    {"snapshot_digest",  0,                   0,                        priv_line_snapshot_digest},
    {"cgroup_member",    PRIV_GUARD_CGROUP,   0,                        priv_line_cgroup_member},
    {"cgroup_memory",    PRIV_GUARD_CGROUP,   PRIV_LIMIT_MEMORY,        priv_line_cgroup_limit},
    {"cgroup_swap",      PRIV_GUARD_CGROUP,   PRIV_LIMIT_SWAP,          priv_line_cgroup_limit},
    {"cgroup_cpu",       PRIV_GUARD_CGROUP,   PRIV_LIMIT_CPU,           priv_line_cgroup_limit},
    {"cgroup_pids",      PRIV_GUARD_CGROUP,   PRIV_LIMIT_PIDS,          priv_line_cgroup_limit},
    {"cgroup_io",        PRIV_GUARD_CGROUP,   PRIV_LIMIT_IO,            priv_line_cgroup_io},
    {"firewall_ipv4",    PRIV_GUARD_FIREWALL, 0,                        priv_line_firewall},
    {"firewall_ipv6",    PRIV_GUARD_FIREWALL, 1,                        priv_line_firewall},
};
/* clang-format on */
_Static_assert(COUNT_OF(kinds) <= PRIV_LINES_MAX, "clients stop reading there");

/* A VM keeps the guards it was made with, but a service that was started without one has no way to
 * look at its cgroup or rules any more. A filter can be seen all the same. */
static uint32_t left_out(const struct priv_look *look)
{
    const uint32_t needs_service = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP;
    return look->slot->record.without | (look->server->config.without & needs_service);
}

static int evaluate(struct priv_look *look, const struct kind *kind, struct priv_line *ret,
                    struct error *err)
{
    memset(ret, 0, sizeof(*ret));
    snprintf(ret->name, sizeof(ret->name), "%s", kind->name);
    ret->state = PRIV_LINE_OK;
    if (kind->guard & left_out(look)) {
        ret->state = PRIV_LINE_NOT_APPLICABLE;
        snprintf(ret->detail, sizeof(ret->detail), "started without this guard");
        return 0;
    }
    if (kind->look(look, kind->what, ret, err) == 0)
        return 0;
    if (ret->state != PRIV_LINE_ABSENT)
        ret->state = PRIV_LINE_WRONG;
    snprintf(ret->detail, sizeof(ret->detail), "%.*s", (int)sizeof(ret->detail) - 1, err->msg);
    return -1;
}

/* What was read under a pid is the VMM's only if the VMM still has that pid afterwards. */
static int still_there(const struct priv_look *look, struct error *err)
{
    if (!priv_pidfd_ended(look->slot->pidfd))
        return 0;
    *err = (struct error){0};
    return priv_slot_exited(look->slot, err);
}

int priv_op_check(struct priv_server *server, struct priv_instance_slot *slot,
                  const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    (void)request;
    (void)answer;
    struct priv_look look = {.server = server, .slot = slot};
    int result = still_there(&look, err);
    if (result < 0)
        return result;
    for (size_t i = 0; result == 0 && i < COUNT_OF(kinds); i++) {
        struct priv_line line;
        result = evaluate(&look, &kinds[i], &line, err);
    }
    return still_there(&look, err) < 0 ? -1 : result;
}

int priv_op_report(struct priv_server *server, struct priv_instance_slot *slot,
                   const struct priv_request *request, struct priv_answer *answer,
                   struct error *err)
{
    uint32_t index = request->u.report.index;
    struct priv_look look = {.server = server, .slot = slot, .values = true};
    struct error told = {0}; /* in the line */
    if (still_there(&look, err) < 0)
        return -1;
    if (index < COUNT_OF(kinds))
        (void)evaluate(&look, &kinds[index], &answer->reply.u.report, &told);
    return still_there(&look, err);
}
