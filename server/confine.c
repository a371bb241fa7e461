/*
 * The front's cage. It parses what users, guests and VMMs say, so it is built as if it were taken
 * over one day: landlock says which files there are, a seccomp filter which system calls.
 *
 * It is closed after everything is opened and before the first thread is made: landlock binds the
 * calling thread alone (TSYNC came with its ABI 8, Linux 7.0), and threads made later inherit both.
 * So what the store, the engine and the listeners do from then on stands in the table.
 */
#include "server/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(MOTTE_VALGRIND)
/* Their runtimes start processes, read programs and map what the table does not know. */
#define CONFINE_FILTERS false
#else
#define CONFINE_FILTERS true
#endif

/* Newer than the oldest headers that this is built with (Linux 6.1). */
enum {
    FS_TRUNCATE = 1 << 14,  /* ABI 3 */
    FS_IOCTL_DEV = 1 << 15, /* ABI 5 */
    NET_BIND_TCP = 1 << 0,  /* ABI 4 */
    NET_CONNECT_TCP = 1 << 1,
    SCOPE_ABSTRACT_UNIX = 1 << 0, /* ABI 6 */
    SCOPE_SIGNAL = 1 << 1,
};

struct ruleset { /* struct landlock_ruleset_attr of ABI 6; older kernels want zeros behind theirs */
    uint64_t fs, net, scoped;
};

#define OWN_PROC "/proc/self"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

enum {
    READ = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    READ_ONE = LANDLOCK_ACCESS_FS_READ_FILE,
    WRITE = READ | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG |
            LANDLOCK_ACCESS_FS_REMOVE_FILE | FS_TRUNCATE,
};

/* ---- files ---- */

/* A listening socket that is shut down, or an accepted one that is disconnected, could be connected
 * anew: no filter sees the address, landlock does. It has no rule, so there is no such place. */
static struct ruleset handled(int abi)
{
    const char *notify = getenv("NOTIFY_SOCKET");
    struct ruleset rules = {.fs = LANDLOCK_ACCESS_FS_REFER - 1}; /* ABI 1: all bits below */
    if (abi >= 2)
        rules.fs |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 3)
        rules.fs |= FS_TRUNCATE;
    if (abi >= 4)
        rules.net = NET_BIND_TCP | NET_CONNECT_TCP;
    if (abi >= 5)
        rules.fs |= FS_IOCTL_DEV;
    if (abi >= 6)
        rules.scoped = SCOPE_SIGNAL;
    if (abi >= 6 && (notify == NULL || notify[0] != '@')) /* else STOPPING=1 would not arrive */
        rules.scoped |= SCOPE_ABSTRACT_UNIX;
    return rules;
}

static int allow(int ruleset, int dirfd, const char *path, uint64_t access, struct error *err)
{
    cleanup_close int fd = openat(dirfd, path, O_PATH | O_CLOEXEC);
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = fd};
    if (fd < 0 || syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
        return error_set(err, ERR_SYSTEM, errno, "confining the front's access to %s", path);
    return 0;
}

static int allow_all(int ruleset, int state_dir, uint64_t handled_fs, struct error *err)
{
    const struct {
        int dirfd;
        const char *path;
        uint64_t access;
    } places[] = {
        {state_dir, "images", READ},          /* manifests */
        {state_dir, "kernels", READ},         /* manifests */
        {state_dir, "front", WRITE},          /* SQLite's files */
        {AT_FDCWD, OWN_PROC, READ},           /* own metrics, own status */
        {AT_FDCWD, BOOT_ID, READ_ONE},        /* which boot is this? */
        {AT_FDCWD, "/dev/urandom", READ_ONE}, /* SQLite's seed */
    };
    for (size_t i = 0; i < COUNT_OF(places); i++)
        if (allow(ruleset, places[i].dirfd, places[i].path, places[i].access & handled_fs, err) < 0)
            return -1;
    return 0;
}

/* The kernel shows nowhere what landlock holds, so one refusal stands for all. */
static int try_outside(struct error *err)
{
    cleanup_close int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 || errno != EACCES)
        return error_set(err, ERR_INTERNAL, 0, "landlock is loaded, yet / can be listed");
    return 0;
}

static int confine_files(int state_dir, int *ret_abi, struct error *err)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 0 && (errno == ENOSYS || errno == EOPNOTSUPP)) {
        *ret_abi = 0;
        return 0;
    }
    if (abi < 0)
        return error_set(err, ERR_SYSTEM, errno, "asking for landlock's version");
    struct ruleset rules = handled((int)abi);
    cleanup_close int ruleset = (int)syscall(SYS_landlock_create_ruleset, &rules, sizeof(rules), 0);
    if (ruleset < 0)
        return error_set(err, ERR_SYSTEM, errno, "making landlock's rules");
    if (allow_all(ruleset, state_dir, rules.fs, err) < 0)
        return -1;
    if (syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        return error_set(err, ERR_SYSTEM, errno, "loading landlock's rules");
    *ret_abi = (int)abi;
    return try_outside(err);
}

/* ---- system calls ---- */

static void cleanup_filter(scmp_filter_ctx *filter)
{
    if (*filter != NULL)
        seccomp_release(*filter);
}

static int add(scmp_filter_ctx filter, const struct server_rule *rule)
{
    struct scmp_arg_cmp compare[SERVER_RULE_ARGS];
    unsigned used = 0;
    for (size_t i = 0; i < SERVER_RULE_ARGS; i++) {
        const struct server_rule_arg *arg = &rule->args[i];
        if (arg->mask == 0)
            continue;
        uint32_t value = arg->own_pid ? (uint32_t)getpid() : arg->value;
        compare[used++] = (struct scmp_arg_cmp){
            .arg = arg->index, .op = SCMP_CMP_MASKED_EQ, .datum_a = arg->mask, .datum_b = value};
    }
    return seccomp_rule_add_array(filter, rule->action, rule->nr, used, compare);
}

static int confine_calls(struct error *err)
{
    /* The kernel logs each kill (audit type 1326 names the call): a front that needs more than its
     * table is found at once. */
    cleanup(cleanup_filter) scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
    if (filter == NULL)
        return error_set(err, ERR_INTERNAL, 0, "libseccomp cannot start the front's filter");
    /* Other ABIs (int 0x80, x32) number their calls differently: nobody here uses them. */
    int r = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0)
        r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2);
    for (size_t i = 0; r == 0 && i < server_rule_count; i++)
        r = add(filter, &server_rules[i]);
    if (r == 0)
        r = seccomp_load(filter);
    return r == 0 ? 0 : error_set(err, ERR_SYSTEM, -r, "loading the front's seccomp filter");
}

/* ---- what the kernel says of it ---- */

/* The value's text in /proc/PID/status, "" if there is none. */
static const char *field(const char *status, const char *name)
{
    const char *at = strstr(status, name);
    return at == NULL ? "" : at + strlen(name);
}

static int read_status(char *out, size_t size, struct error *err)
{
    if (fs_read_at(AT_FDCWD, "/proc/self/status", out, size) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading how the front is confined");
    return 0;
}

static int check_alone(struct error *err)
{
    char status[4096];
    if (read_status(status, sizeof(status), err) < 0)
        return -1;
    if (strtoul(field(status, "\nThreads:\t"), NULL, 10) != 1)
        return error_set(err, ERR_INTERNAL, 0,
                         "the front has threads already, which landlock would not bind");
    return 0;
}

static int check_confined(struct error *err)
{
    static const struct {
        const char *name, *wanted;
    } expected[] = {
        {"\nNoNewPrivs:\t", "1\n"},
        {"\nCapEff:\t", "0000000000000000\n"},
        {"\nCapPrm:\t", "0000000000000000\n"},
    };
    char status[4096];
    if (read_status(status, sizeof(status), err) < 0)
        return -1;
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        if (strncmp(field(status, expected[i].name), expected[i].wanted,
                    strlen(expected[i].wanted)) != 0)
            return error_set(err, ERR_INTERNAL, 0, "the front is not confined:%s is %.18s",
                             expected[i].name, field(status, expected[i].name));
    if (CONFINE_FILTERS && strncmp(field(status, "\nSeccomp:\t"), "2\n", 2) != 0)
        return error_set(err, ERR_INTERNAL, 0, "the front is not confined: it has no filter");
    const char *uid = field(status, "\nUid:"); /* real, effective, saved, of files */
    for (int i = 0; i < 4; i++) {
        char *end = NULL;
        if (strtoul(uid, &end, 10) == 0)
            return error_set(err, ERR_INTERNAL, 0, "the front must not run as root");
        uid = end;
    }
    return 0;
}

int server_confine(int state_dir, struct server_confined *ret, struct error *err)
{
    struct server_confined confined = {.filtered = CONFINE_FILTERS};
    if (check_alone(err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(err, ERR_SYSTEM, errno, "setting no_new_privs");
    cleanup_close int proc = open(OWN_PROC, O_PATH | O_CLOEXEC);
    cleanup_close int boot_id = open(BOOT_ID, O_PATH | O_CLOEXEC);
    if (proc < 0 || boot_id < 0)
        return error_set(err, ERR_SYSTEM, errno, "opening %s and %s", OWN_PROC, BOOT_ID);
    if (confine_files(state_dir, &confined.landlock_abi, err) < 0 ||
        (CONFINE_FILTERS && confine_calls(err) < 0) || check_confined(err) < 0)
        return -1;
    confined.proc = TAKE_FD(proc);
    confined.boot_id = TAKE_FD(boot_id);
    *ret = confined;
    return 0;
}
