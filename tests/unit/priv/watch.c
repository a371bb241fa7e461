/* See watch.h. */
#include "watch.h"

#include "snapshots.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { VMMS_MAX = 256, RULES_MAX = 1 << 20 };

static const char *const hierarchies[] = {"memory", "cpu", "pids"};

/* ---- foreign things ------------------------------------------------------------------------- */

static const char *const foreign_commands[] = {
    "-t filter -N STRANGER",
    "-t filter -A STRANGER -p tcp --dport 81 -j ACCEPT",
    "-t filter -A INPUT -j STRANGER",
    "-t filter -A OUTPUT -m owner --uid-owner 1000 -j ACCEPT",
    "-t security -A OUTPUT -p udp --dport 53 -j ACCEPT",
    "-t security -A FORWARD -i stranger0 -j DROP",
};

static void foreign_rules(char *out, size_t size)
{
    static const char *const tables[] = {"filter", "security"};
    size_t len = 0;
    for (size_t i = 0; i < 2 * COUNT_OF(tables); i++) {
        char command[128], line[512];
        snprintf(command, sizeof(command), "ip%stables-legacy -S -t %s", i % 2 == 0 ? "" : "6",
                 tables[i / 2]);
        FILE *rules = popen(command, "re");
        CHECK(rules != NULL);
        while (fgets(line, sizeof(line), rules) != NULL) {
            bool ours = strstr(line, "MOTTE_") != NULL;
            CHECK(len + strlen(line) < size);
            len += ours ? 0 : (size_t)snprintf(out + len, size - len, "%s", line);
        }
        CHECK(pclose(rules) == 0);
    }
}

static void plant_rules(struct watch *watch)
{
    for (size_t i = 0; i < 2 * COUNT_OF(foreign_commands); i++) {
        char command[256];
        snprintf(command, sizeof(command), "ip%stables-legacy %s", i % 2 == 0 ? "" : "6",
                 foreign_commands[i / 2]);
        CHECK(system(command) == 0);
    }
    watch->rules = calloc(1, RULES_MAX);
    CHECK(watch->rules != NULL);
    foreign_rules(watch->rules, RULES_MAX);
    CHECK(strstr(watch->rules, "STRANGER") != NULL);
}

static void foreign_path(const struct watch *watch, size_t at, char *out, size_t size)
{
    snprintf(out, size, "/sys/fs/cgroup/%s/stranger-of-%s", hierarchies[at], watch->bench->cgroup);
}

static void plant_cgroups(struct watch *watch)
{
    watch->foreign = fork();
    CHECK(watch->foreign >= 0);
    if (watch->foreign == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            pause();
    }
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        char path[160], pid[16];
        foreign_path(watch, i, path, sizeof(path));
        CHECK(mkdir(path, 0755) == 0);
        snprintf(pid, sizeof(pid), "%d", watch->foreign);
        cleanup_close int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        CHECK(fs_write_at(fd, "cgroup.procs", pid) == 0);
        CHECK(i != 2 || fs_write_at(fd, "pids.max", "77") == 0);
    }
}

void watch_foreign(const struct watch *watch)
{
    cleanup_free char *rules = calloc(1, RULES_MAX);
    CHECK(rules != NULL);
    foreign_rules(rules, RULES_MAX);
    CHECK(strcmp(rules, watch->rules) == 0);
    CHECK(waitpid(watch->foreign, NULL, WNOHANG) == 0);
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        char path[160], text[64];
        foreign_path(watch, i, path, sizeof(path));
        cleanup_close int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        CHECK(fd >= 0 && fs_read_at(fd, "cgroup.procs", text, sizeof(text)) > 0);
        CHECK(strtol(text, NULL, 10) == watch->foreign);
        CHECK(i != 2 ||
              (fs_read_at(fd, "pids.max", text, sizeof(text)) > 0 && strcmp(text, "77\n") == 0));
    }
}

/* ---- VMMs ----------------------------------------------------------------------------------- */

struct vmm {
    pid_t pid;
    uint64_t start;
    struct netfilter_vm vm; /* its uid and instance */
};

/* Neither gone nor on its way out: a process that exits has no namespaces or cgroups any more. */
static bool still_runs(const struct vmm *vmm)
{
    enum { FLAGS = 9, STATE = 3, EXITING = 0x4 /* PF_EXITING */ };
    char path[32], text[1024];
    uint64_t start = 0;
    struct error err = {0};
    snprintf(path, sizeof(path), "/proc/%d/stat", vmm->pid);
    if (priv_proc_start(vmm->pid, &start, &err) < 0 || start != vmm->start ||
        fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return false;
    const char *at = strrchr(text, ')');
    for (int field = STATE - 1; at != NULL && field < FLAGS; field++)
        at = strchr(at + 1, ' ');
    return at != NULL && (strtoul(at, NULL, 10) & EXITING) == 0;
}

/* A VMM that lacks a guard, unless it ended while we looked. */
#define GUARDED(vmm, condition) CHECK((condition) || !still_runs(vmm))

static bool own_namespace(pid_t pid, const char *name)
{
    uint64_t ours = 0, theirs = 0;
    struct error err = {0};
    return priv_proc_namespace(0, name, &ours, &err) == 0 &&
           priv_proc_namespace(pid, name, &theirs, &err) == 0 && ours != theirs;
}

/* In the same instance's cgroup of every hierarchy; which instance is the result. */
static bool in_cgroups(const struct watch *watch, pid_t pid, char instance[static ID_INSTANCE_SIZE])
{
    char path[32], text[4096], wanted[96];
    snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    if (fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return false;
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        snprintf(wanted, sizeof(wanted), ":%s:/%s/", hierarchies[i], watch->bench->cgroup);
        const char *at = strstr(text, wanted);
        if (at == NULL)
            return false;
        at += strlen(wanted);
        if (i > 0 && strncmp(at, instance, ID_INSTANCE_LEN) != 0)
            return false;
        snprintf(instance, ID_INSTANCE_SIZE, "%.*s", ID_INSTANCE_LEN, at);
    }
    return id_instance_valid(instance);
}

static void check_vmm(struct watch *watch, struct vmm *vmm, const char *status)
{
    static const char *const namespaces[] = {"net", "mnt", "pid", "ipc", "uts"};
    struct error err = {0};
    const char *capabilities = priv_proc_field(status, "CapEff");
    const char *privileges = priv_proc_field(status, "NoNewPrivs");
    GUARDED(vmm, in_cgroups(watch, vmm->pid, vmm->vm.instance));
    GUARDED(vmm, privileges != NULL && privileges[0] == '1');
    GUARDED(vmm, capabilities != NULL && strtoull(capabilities, NULL, 16) == 0);
    for (size_t i = 0; i < COUNT_OF(namespaces); i++)
        GUARDED(vmm, own_namespace(vmm->pid, namespaces[i]));
    GUARDED(vmm, netfilter_check(watch->firewall, &vmm->vm, &err) == 0);
    watch->seen++;
}

/* True when the process runs under a uid of the range; fills in `vmm` and the status text. */
static bool is_vmm(const struct watch *watch, const char *name, struct vmm *vmm, char *status,
                   size_t size)
{
    char path[300];
    struct error err = {0};
    *vmm = (struct vmm){.pid = (pid_t)strtol(name, NULL, 10)};
    snprintf(path, sizeof(path), "/proc/%s/status", name);
    if (vmm->pid <= 0 || fs_read_at(AT_FDCWD, path, status, size) < 0)
        return false;
    const char *uid = priv_proc_field(status, "Uid");
    vmm->vm.uid = uid == NULL ? 0 : (uint32_t)strtoul(uid, NULL, 10);
    return vmm->vm.uid - watch->bench->config.uid_base < watch->bench->config.uid_count &&
           priv_proc_start(vmm->pid, &vmm->start, &err) == 0 && still_runs(vmm);
}

static size_t find_vmms(struct watch *watch, struct vmm out[static VMMS_MAX], bool check)
{
    size_t count = 0;
    char status[8192];
    DIR *dir = opendir("/proc");
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (!is_vmm(watch, entry->d_name, &out[count], status, sizeof(status)))
            continue;
        if (check)
            check_vmm(watch, &out[count], status);
        CHECK(++count < VMMS_MAX);
    }
    closedir(dir);
    return count;
}

void watch_guards(struct watch *watch)
{
    struct vmm vmms[VMMS_MAX];
    size_t count = find_vmms(watch, vmms, true);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < i; j++)
            CHECK(vmms[i].vm.uid != vmms[j].vm.uid || !still_runs(&vmms[i]) ||
                  !still_runs(&vmms[j]));
}

/* ---- the end -------------------------------------------------------------------------------- */

static size_t count_entries(const char *path, bool directories)
{
    size_t count = 0;
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count += entry->d_name[0] != '.' && (!directories || entry->d_type == DT_DIR);
    closedir(dir);
    return count;
}

void watch_nothing_left(struct watch *watch)
{
    struct vmm vmms[VMMS_MAX];
    struct error err = {0};
    char path[160];
    cleanup_free netfilter_name *chains = NULL;
    size_t chain_count = 1;
    CHECK(find_vmms(watch, vmms, false) == 0);
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup/%s/%s", hierarchies[i], watch->bench->cgroup);
        CHECK(count_entries(path, true) == 0);
    }
    CHECK(netfilter_list(watch->firewall, &chains, &chain_count, &err) == 0 && chain_count == 0);
    snprintf(path, sizeof(path), "%s/priv", watch->bench->run);
    CHECK(count_entries(path, false) == 0);
    snprintf(path, sizeof(path), "%s/scratch", watch->bench->state);
    CHECK(count_entries(path, false) == 0);
    char rest[320];
    snapshot_rest(watch->bench, rest, sizeof(rest));
    CHECK(rest[0] == '\0');
    cleanup_free char *mounts = malloc(RULES_MAX);
    CHECK(mounts != NULL && fs_read_at(AT_FDCWD, "/proc/self/mountinfo", mounts, RULES_MAX) > 0);
    CHECK(strstr(mounts, watch->bench->directory) == NULL);
}

void watch_open(struct watch *watch, const struct bench *bench)
{
    struct netfilter_config config = {.uid_base = bench->config.uid_base,
                                      .uid_count = bench->config.uid_count};
    struct error err = {0};
    *watch = (struct watch){.bench = bench};
    plant_rules(watch);
    plant_cgroups(watch);
    CHECK(netfilter_open(&config, &watch->firewall, &err) == 0);
}

void watch_close(struct watch *watch)
{
    kill(watch->foreign, SIGKILL);
    waitpid(watch->foreign, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(hierarchies); i++) {
        char path[160];
        foreign_path(watch, i, path, sizeof(path));
        CHECK(rmdir(path) == 0);
    }
    netfilter_free(watch->firewall);
    free(watch->rules);
}
