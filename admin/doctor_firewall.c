/* The doctor's look at the firewall: our own rules, tried in a network namespace made for it. */
#include "admin/internal.h"
#include "netfilter/netfilter.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/wait.h>

struct verdict {
    enum netfilter_state v4, v6;
    bool owner_match;
    struct error err;
};

static int try_rules(const struct admin *admin, struct verdict *verdict)
{
    struct error *err = &verdict->err;
    if (unshare(CLONE_NEWNET) < 0)
        return error_set(err, ERR_FIREWALL_PRIVILEGE, errno,
                         "Cannot make a network namespace to try in");
    struct netfilter_config config = {.uid_base = admin->uid_base, .uid_count = admin->uid_count};
    struct netfilter_vm vm = {.uid = admin->uid_base};
    struct netfilter *netfilter = NULL;
    if (id_instance_make(vm.instance, err) < 0 || netfilter_open(&config, &netfilter, err) < 0)
        return -1;
    verdict->v4 = netfilter_state(netfilter, false);
    verdict->v6 = netfilter_state(netfilter, true);
    int result = netfilter_add(netfilter, &vm, err);
    if (result == 0)
        result = netfilter_check(netfilter, &vm, err);
    verdict->owner_match = result == 0;
    netfilter_free(netfilter);
    return result;
}

/* In a child, so that this process keeps its own network. */
static int probe(const struct admin *admin, struct verdict *ret)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(&ret->err, ERR_SYSTEM, errno, "Cannot make a pipe");
    cleanup_close int read_end = ends[0];
    cleanup_close int write_end = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return error_set(&ret->err, ERR_SYSTEM, errno, "Cannot fork");
    if (pid == 0) {
        struct verdict verdict = {0};
        try_rules(admin, &verdict);
        _exit(fs_write_all(write_end, &verdict, sizeof(verdict)) == 0 ? 0 : 1);
    }
    close(TAKE_FD(write_end));
    struct verdict verdict = {0};
    ssize_t n = read(read_end, &verdict, sizeof(verdict));
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    if (n != (ssize_t)sizeof(verdict))
        return error_set(&ret->err, ERR_INTERNAL, 0, "The firewall probe ended without a word");
    *ret = verdict;
    return ret->err.code == ERR_NONE ? 0 : -1;
}

static const char *remedy_for(enum error_code code)
{
    if (code == ERR_FIREWALL_PRIVILEGE)
        return "run the doctor as root with CAP_NET_ADMIN and CAP_NET_RAW";
    if (code == ERR_FIREWALL_LOCK)
        return "another program holds /run/xtables.lock: find it with `fuser /run/xtables.lock`";
    return "modprobe iptable_security ip6table_security xt_owner xt_physdev (or iptable_filter "
           "ip6table_filter); without any, only --without=firewall starts";
}

static void check_bridge(struct admin_report *report)
{
    static const char *const names[] = {"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[80], value[16];
        (void)snprintf(path, sizeof(path), "/proc/sys/net/bridge/%s", names[i]);
        ssize_t n = fs_read_at(AT_FDCWD, path, value, sizeof(value));
        if (n < 0)
            admin_report_add(report, names[i], ADMIN_OK, ADMIN_NOBODY, NULL,
                             "no br_netfilter: bridged packets never meet iptables, and no VM is "
                             "on a bridge");
        else if (value[0] == '1')
            admin_report_add(report, names[i], ADMIN_OK, ADMIN_NOBODY, NULL, "1");
        else
            admin_report_add(report, names[i], ADMIN_NOTE, ADMIN_NOBODY,
                             "set it to 1 if you ever bridge a port named mt…: VMs have no network "
                             "card, so nothing needs it now",
                             "%.*s", (int)strcspn(value, "\n"), value);
    }
}

void admin_doctor_firewall(const struct admin *admin, struct admin_report *report)
{
    struct verdict verdict = {0};
    if (probe(admin, &verdict) < 0) {
        admin_report_add(report, "firewall", ADMIN_LACKS, ADMIN_BOTH, remedy_for(verdict.err.code),
                         "%.250s", verdict.err.msg);
        return;
    }
    admin_report_add(report, "firewall", verdict.v4 == NETFILTER_FILTER ? ADMIN_WARN : ADMIN_OK,
                     ADMIN_NOBODY,
                     "modprobe iptable_security: in `filter` a foreign flush reaches our rules",
                     "legacy xtables: IPv4 in %s, IPv6 in %s, owner match works",
                     netfilter_state_name(verdict.v4), netfilter_state_name(verdict.v6));
    check_bridge(report);
}
