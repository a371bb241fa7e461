/* R18: a firewall that cannot be set says why, in time, and changes nothing. */
#include "inject.h"
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>

static void drop_capability(unsigned capability)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    cr_assert(syscall(SYS_capget, &header, data) == 0);
    data[capability / 32].effective &= ~(1U << capability % 32);
    data[capability / 32].permitted &= ~(1U << capability % 32);
    cr_assert(syscall(SYS_capset, &header, data) == 0);
}

/* In a child each, since what is dropped does not come back. */
struct deprived {
    struct support *support;
    unsigned capability;
};

static int code_of_open(const void *context)
{
    const struct deprived *deprived = context;
    drop_capability(deprived->capability);
    struct netfilter_config config = support_config(deprived->support);
    struct netfilter *netfilter;
    struct error err = {0};
    return netfilter_open(&config, &netfilter, &err) == 0 ? 0 : (int)err.code;
}

static int code_of_add(const void *context)
{
    const struct deprived *deprived = context;
    drop_capability(deprived->capability);
    struct netfilter_vm vm = support_vm(1);
    struct error err = {0};
    return netfilter_add(deprived->support->netfilter, &vm, &err) == 0 ? 0 : (int)err.code;
}

Test(netfilter_failures, R18_no_privilege)
{
    static const unsigned capabilities[] = {CAP_NET_ADMIN, CAP_NET_RAW};
    cleanup_support struct support support = support_enter();
    support_open(&support);
    cleanup_free char *before = support_all_rules();
    for (size_t i = 0; i < COUNT_OF(capabilities); i++) {
        struct deprived deprived = {&support, capabilities[i]};
        cr_expect(support_as(0, code_of_open, &deprived) == ERR_FIREWALL_PRIVILEGE);
        cr_expect(support_as(0, code_of_add, &deprived) == ERR_FIREWALL_PRIVILEGE);
    }
    cleanup_free char *after = support_all_rules();
    cr_expect_str_eq(before, after);
}

Test(netfilter_failures, R18_lock_held_too_long)
{
    enum { TIMEOUT_MS = 300 };
    cleanup_support struct support support = support_enter();
    struct netfilter_config config = support_config(&support);
    config.lock_timeout_ms = TIMEOUT_MS;
    struct error err = {0};
    cr_assert(netfilter_open(&config, &support.netfilter, &err) == 0, "%s", err.msg);
    cleanup_free char *before = support_all_rules();

    cleanup_close int holder = open(support.lock, O_RDONLY | O_CLOEXEC);
    cr_assert(holder >= 0 && flock(holder, LOCK_EX) == 0);
    struct netfilter_vm vm = support_vm(1);
    int64_t start = clock_mono_ms();
    cr_assert(netfilter_add(support.netfilter, &vm, &err) == -1);
    int64_t waited = clock_mono_ms() - start;
    cr_expect(err.code == ERR_FIREWALL_LOCK, "%s", err.msg);
    cr_expect(strstr(err.msg, support.lock) != NULL, "%s", err.msg);
    cr_expect(waited >= TIMEOUT_MS && waited < TIMEOUT_MS + 2000, "waited %ld ms", (long)waited);
    err = (struct error){0};
    cr_expect(netfilter_remove_all(support.netfilter, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_LOCK, "%s", err.msg);

    cr_assert(flock(holder, LOCK_UN) == 0);
    cleanup_free char *after = support_all_rules();
    cr_expect_str_eq(before, after);
    support_add(&support, 1);
}

Test(netfilter_failures, R18_a_lock_that_is_let_go_in_time_is_waited_for)
{
    cleanup_support struct support support = support_enter();
    support_open(&support);
    int ready[2];
    cr_assert(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(support.lock, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || flock(fd, LOCK_EX) < 0 || write(ready[1], "", 1) != 1)
            _exit(1);
        usleep(300 * 1000);
        _exit(0); /* the kernel lets the lock of a dead process go */
    }
    char byte;
    cr_assert(read(ready[0], &byte, 1) == 1);
    int64_t start = clock_mono_ms();
    support_add(&support, 1);
    cr_expect(clock_mono_ms() - start >= 100);
    cr_assert(support_wait(pid) == 0);
    close(ready[0]);
    close(ready[1]);
}

Test(netfilter_failures, R18_a_lock_that_is_no_file)
{
    cleanup_support struct support support = support_enter();
    struct netfilter_config config = support_config(&support);
    char link[80];
    snprintf(link, sizeof(link), "%s.link", support.lock);
    cr_assert(symlink(support.lock, link) == 0);
    config.lock_path = link;
    struct error err = {0};
    cr_expect(netfilter_open(&config, &support.netfilter, &err) == -1);
    cr_expect(err.code == ERR_FIREWALL_LOCK && err.sys == ELOOP, "%s", err.msg);
    cr_assert(unlink(link) == 0);
}

/* The kernel's own answers, given by a filter: no such option (no ip_tables), no such family. */
static int refuse_socket(int family, int type_errno)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO((unsigned)type_errno), SCMP_SYS(socket), 1,
                                  SCMP_A0(SCMP_CMP_EQ, (unsigned)family));
    failed |= seccomp_load(filter);
    seccomp_release(filter);
    return failed;
}

static int refuse_reading(int level)
{
    scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
    int failed = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOPROTOOPT), SCMP_SYS(getsockopt), 1,
                                  SCMP_A1(SCMP_CMP_EQ, (unsigned)level));
    failed |= seccomp_load(filter);
    seccomp_release(filter);
    return failed;
}

static int open_without_ipv6(const void *context)
{
    struct support *support = *(struct support *const *)context;
    struct netfilter_config config = support_config(support);
    struct netfilter *netfilter;
    struct error err = {0};
    if (refuse_socket(AF_INET6, EAFNOSUPPORT) != 0)
        return 97;
    if (netfilter_open(&config, &netfilter, &err) < 0)
        return (int)err.code;
    struct netfilter_vm vm = support_vm(1);
    if (netfilter_state(netfilter, true) != NETFILTER_NO_STACK ||
        netfilter_state(netfilter, false) != NETFILTER_SECURITY)
        return 96;
    if (netfilter_add(netfilter, &vm, &err) < 0 || netfilter_check(netfilter, &vm, &err) < 0 ||
        netfilter_remove(netfilter, &vm, &err) < 0 || netfilter_add(netfilter, &vm, &err) < 0)
        return (int)err.code;
    return 0;
}

Test(netfilter_failures, R15_a_host_without_ipv6)
{
    cleanup_support struct support support = support_enter();
    struct support *context = &support;
    int code = support_as(0, open_without_ipv6, &context);
    cr_assert_eq(code, 0, "%d", code);
    netfilter_name chain;
    struct netfilter_vm vm = support_vm(1);
    netfilter_chain_name(vm.instance, chain);
    cleanup_free char *v4 = support_run("iptables-legacy -w 5 -t security -S");
    cr_expect(strstr(v4, chain) != NULL, "%s", v4);
    cleanup_free char *v6 = support_run("ip6tables-legacy -w 5 -t security -S");
    cr_expect(strstr(v6, "MOTTE") == NULL, "%s", v6);
    cr_expect_str_eq(netfilter_state_name(NETFILTER_NO_STACK), "no stack");
}

struct missing {
    struct support *support;
    int level; /* of the family without xtables */
};

static int code_without_tables(const void *context)
{
    const struct missing *missing = context;
    struct netfilter_config config = support_config(missing->support);
    struct netfilter *netfilter;
    struct error err = {0};
    if (refuse_reading(missing->level) != 0)
        return 97;
    return netfilter_open(&config, &netfilter, &err) == 0 ? 0 : (int)err.code;
}

/* IPv6 that is there but cannot be guarded is no "no stack". */
Test(netfilter_failures, R18_a_kernel_without_legacy_tables)
{
    static const int levels[] = {IPPROTO_IP, IPPROTO_IPV6};
    cleanup_support struct support support = support_enter();
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct missing missing = {&support, levels[i]};
        cr_expect(support_as(0, code_without_tables, &missing) == ERR_FIREWALL_TABLE);
    }
    cleanup_free char *rules = support_all_rules();
    cr_expect(strstr(rules, "MOTTE") == NULL, "%s", rules);
}
