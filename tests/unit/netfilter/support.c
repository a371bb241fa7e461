/* See support.h. */
#include "support.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

static ino_t namespace_inode(void)
{
    struct stat st;
    if (stat("/proc/thread-self/ns/net", &st) < 0) {
        perror("/proc/thread-self/ns/net");
        _exit(99);
    }
    return st.st_ino;
}

struct support support_enter(void)
{
    ino_t outside = namespace_inode();
    if (unshare(CLONE_NEWNET) < 0 || namespace_inode() == outside) {
        fputs("refused: no fresh network namespace (run as root)\n", stderr);
        _exit(99);
    }
    struct support support = {0};
    snprintf(support.lock, sizeof(support.lock), "/tmp/motte-test-netfilter.XXXXXX");
    cleanup_close int fd = mkstemp(support.lock);
    cr_assert(fd >= 0);
    setenv("XTABLES_LOCKFILE", support.lock, 1);
    support_do("ip link set lo up");
    return support;
}

void support_leave(struct support *support)
{
    netfilter_free(support->netfilter);
    unlink(support->lock);
}

struct netfilter_config support_config(const struct support *support)
{
    return (struct netfilter_config){
        .uid_base = UID_BASE, .uid_count = UID_COUNT, .lock_path = support->lock};
}

void support_open(struct support *support)
{
    struct netfilter_config config = support_config(support);
    struct error err = {0};
    cr_assert(netfilter_open(&config, &support->netfilter, &err) == 0, "%s", err.msg);
}

struct netfilter_vm support_vm(unsigned n)
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    struct netfilter_vm vm = {.uid = UID_BASE + n};
    for (int i = ID_INSTANCE_LEN; i-- > 0; n /= 32)
        vm.instance[i] = digits[n % 32];
    return vm;
}

void support_add(struct support *support, unsigned n)
{
    struct netfilter_vm vm = support_vm(n);
    struct error err = {0};
    cr_assert(netfilter_add(support->netfilter, &vm, &err) == 0, "VM %u: %s", n, err.msg);
}

uint64_t support_count(struct support *support, unsigned n)
{
    struct netfilter_vm vm = support_vm(n);
    struct error err = {0};
    uint64_t packets = 0;
    cr_assert(netfilter_count(support->netfilter, &vm, &packets, &err) == 0, "%s", err.msg);
    return packets;
}

static char *run(const char *command)
{
    struct buf out = {.max = 64 << 20};
    FILE *pipe = popen(command, "re");
    cr_assert(pipe != NULL);
    char chunk[4096];
    for (size_t n; (n = fread(chunk, 1, sizeof(chunk), pipe)) > 0;)
        cr_assert(buf_append(&out, chunk, n) == 0);
    int status = pclose(pipe);
    cr_assert(status == 0, "`%s` ended with %d", command, status);
    return out.data != NULL ? out.data : strdup("");
}

static void format(char *command, size_t size, const char *fmt, va_list args)
{
    int len = vsnprintf(command, size, fmt, args);
    cr_assert(len > 0 && (size_t)len < size);
}

char *support_run(const char *fmt, ...)
{
    char command[1024];
    va_list args;
    va_start(args, fmt);
    format(command, sizeof(command), fmt, args);
    va_end(args);
    return run(command);
}

void support_do(const char *fmt, ...)
{
    char command[1024];
    va_list args;
    va_start(args, fmt);
    format(command, sizeof(command), fmt, args);
    va_end(args);
    free(run(command));
}

const char *support_iptables(bool ipv6)
{
    return ipv6 ? "ip6tables-legacy -w 5" : "iptables-legacy -w 5";
}

char *support_all_rules(void)
{
    return support_run("for i in iptables-legacy ip6tables-legacy; do "
                       "for t in security filter mangle raw nat; do "
                       "echo $i $t; $i -w 5 -S -t $t || exit 1; done; done");
}

char *support_counted_rules(bool ipv6, const char *table, const char *without)
{
    return support_run("%s-legacy-save -c -t %s | grep '^\\[' | grep -v -e '%s' || true",
                       ipv6 ? "ip6tables" : "iptables", table,
                       without != NULL ? without : "no such line");
}

int support_wait(pid_t pid)
{
    int status;
    cr_assert(waitpid(pid, &status, 0) == pid);
    bool exited = WIFEXITED(status);
    cr_assert(exited, "child ended by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

int support_as(uint32_t uid, int (*body)(const void *context), const void *context)
{
    pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        if (uid != 0 && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 ||
                         setresuid(uid, uid, uid) < 0))
            _exit(98);
        _exit(body(context));
    }
    return support_wait(pid);
}
