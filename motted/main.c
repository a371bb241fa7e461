/* motted: prepare as root, start the front, give up what is no longer needed, answer the front. */
#include "motted/internal.h"
#include "netfilter/netfilter.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>

static void print_help(void)
{
    printf(
        "motted " MOTTE_VERSION " - one microVM per agent\n\n"
        "  motted [--config=FILE] [--OPTION=VALUE …]   run the service\n"
        "  motted --purge [--OPTION=VALUE …]           kill every VM and remove all of Motte's\n"
        "                                              rules, cgroups and records\n"
        "  motted doctor                               what this host lacks, and what to do\n"
        "  motted image|kernel add|list|remove …       what VMs boot from\n"
        "  motted leftovers                            what VMs that are gone left behind\n"
        "  motted backup FILE                          a copy of the inventory, while it is used\n"
        "  motted restore FILE                         such a copy in its place, while it is not\n"
        "  motted token create|list|revoke …           who may call over TCP, and as what\n\n"
        "The same options stand in FILE as `option = value`, FILE being root's:\n");
    motted_options_print(stdout);
}

static bool is_admin_word(const char *word)
{
    static const char *const words[] = {"doctor", "image",   "kernel", "leftovers",
                                        "backup", "restore", "token"};
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strcmp(word, words[i]) == 0)
            return true;
    return false;
}

static int run_admin(char **argv, struct error *err)
{
    char path[MOTTED_TEXT_MAX];
    if (motted_find_program("motte-admin", path, err) < 0)
        return -1;
    execv(path, argv);
    return error_set(err, ERR_SYSTEM, errno, "executing %s", path);
}

/* auto: the production hypervisor where KVM can run a guest, emulation only when it was allowed. */
static int choose_hypervisor(const struct motted_config *config, struct priv_config *priv,
                             struct error *err)
{
    char reason[160] = "";
    enum motted_hypervisor wanted = config->hypervisor;
    if (wanted == MOTTED_AUTO)
        wanted = priv_kvm_probe(reason) == PRIV_KVM_OK ? MOTTED_FIRECRACKER : MOTTED_QEMU;
    priv->hypervisor = wanted == MOTTED_FIRECRACKER ? PRIV_FIRECRACKER : PRIV_QEMU;
    priv->emulated = wanted == MOTTED_QEMU;
    if (!priv->emulated)
        return 0;
    if (!config->dev)
        return error_set(err, ERR_HYPERVISOR_MISSING, 0,
                         "%s%sonly emulation is left, which is not a security border; "
                         "start with --dev to try Motte all the same, see motted doctor",
                         reason, reason[0] == '\0' ? "" : ": ");
    log_warn("VMs run under QEMU's emulation: emulation is not a security border, for development "
             "only%s%s",
             reason[0] == '\0' ? "" : "; ", reason);
    return 0;
}

static void tell(enum log_level level, const char *text)
{
    log_write(level, "%s", text);
}

static int fill(const struct motted_config *config, const struct motted_front *front,
                struct priv_config *ret, struct error *err)
{
    struct priv_limits limits;
    if (motted_limits(config, &limits, err) < 0)
        return -1;
    *ret = (struct priv_config){
        .run_dir = config->run_dir,
        .state_dir = config->state_dir,
        .cgroup = config->cgroup,
        .firecracker = config->firecracker,
        .jailer = config->jailer,
        .qemu = config->qemu,
        .without = config->without,
        .uid_base = (uint32_t)config->uid_base,
        .uid_count = (uint32_t)config->uid_count,
        .front_gid = front->gid,
        .max_vms = limits.max_vms,
        .max_vcpus = limits.max_vcpus,
        .max_memory_mib = limits.max_memory_mib,
        .max_disk_mib = limits.max_disk_mib,
        .max_snapshots = limits.max_snapshots,
        .image_snapshots = limits.image_snapshots,
        .total_memory_mib = limits.total_memory_mib,
        .tell = tell,
        .max_io_mib_s = (uint32_t)config->max_io_mib_s,
        .max_iops = (uint32_t)config->max_iops,
    };
    if (config->purge) /* needs no hypervisor */
        return 0;
    return choose_hypervisor(config, ret, err);
}

static int purge(const struct motted_config *config, struct priv_server *server, struct error *err)
{
    static const char *const names[] = {"priv", "jail", "motte.sock", "reloaded", "motted.lock"};
    if (priv_server_purge(server, err) < 0)
        return -1;
    cleanup_close int run = open(config->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (fs_remove_tree(run, names[i]) < 0)
            return error_set(err, ERR_SYSTEM, errno, "removing %s/%s", config->run_dir, names[i]);
    log_info("every VM is killed and all of Motte's rules, cgroups and records are removed");
    return 0;
}

/* Each thread with memory of its own to allocate from would keep a copy of the firewall's tables in it:
 * 50 MiB at a thousand VMs, which every launch would fork. There is little else to allocate. */
static void share_memory(void)
{
    mallopt(M_ARENA_MAX, 1);
}

/* Each spawn passes from thread to thread some twenty times, beside VMs that boot: see
 * docs/performance.md. It costs them nothing; they get the kernel's own slice back. */
static void ask_for_short_waits(void)
{
    const uint64_t least_ns = 100000; /* Linux takes no less */
    if (clock_slice(least_ns) < 0)
        log_warn("the time slice stays as it is: %s; spawns may wait longer", strerror(errno));
}

static void block_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* Both ends above those that the front finds at their numbers. */
static int make_channel(int *ret_ours, int *ret_theirs, struct error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return error_set(err, ERR_SYSTEM, errno, "making a channel to the front");
    *ret_ours = fcntl(pair[0], F_DUPFD_CLOEXEC, MOTTED_FD_MIN);
    *ret_theirs = fcntl(pair[1], F_DUPFD_CLOEXEC, MOTTED_FD_MIN);
    close(pair[0]);
    close(pair[1]);
    if (*ret_ours < 0 || *ret_theirs < 0)
        return error_set(err, ERR_SYSTEM, errno, "making a channel to the front");
    return 0;
}

/* Returns the exit status when the front has ended. */
static int serve(struct motted_reloads *reloads, struct motted_front *front, struct error *err)
{
    cleanup_close int ours = -1;
    cleanup_close int theirs = -1;
    cleanup_close int reload_ours = -1;
    cleanup_close int reload_theirs = -1;
    if (make_channel(&ours, &theirs, err) < 0 ||
        make_channel(&reload_ours, &reload_theirs, err) < 0)
        return -1;
    if (motted_confine(err) < 0)
        return -1;
    if (motted_front_start(reloads->config, front, theirs, reload_theirs, err) < 0)
        return -1;
    close(TAKE_FD(theirs));
    close(TAKE_FD(reload_theirs));
    reloads->channel = reload_ours;
    if (motted_front_watch(front, ours, reloads, err) < 0)
        return -1;
    int result = priv_server_run(reloads->server, ours, err);
    shutdown(ours, SHUT_RDWR); /* after a failure of ours the front has to end */
    int status = motted_front_wait(front);
    return result < 0 ? -1 : status;
}

static int prepare_front(const struct motted_config *config, struct motted_front *front,
                         struct error *err)
{
    if (motted_find_front(config, front, err) < 0 ||
        motted_make_directories(config, front, err) < 0 ||
        motted_listen_all(config, front, err) < 0)
        return -1;
    return motted_secrets_read(config, &front->secrets, err);
}

static void warn_of_bridges(void)
{
    char warning[NETFILTER_WARNING_SIZE];
    netfilter_preflight(warning);
    if (warning[0] != '\0')
        log_warn("%s", warning);
}

static int prepare(const struct motted_config *config, struct motted_front *front,
                   struct priv_server **ret, struct error *err)
{
    struct priv_config priv;
    if (motted_raise_limits(err) < 0 || (!config->purge && prepare_front(config, front, err) < 0))
        return -1;
    if (fill(config, front, &priv, err) < 0)
        return -1;
    motted_load_modules();
    if (!config->purge && !(config->without & PRIV_GUARD_FIREWALL))
        warn_of_bridges();
    return priv_server_open(&priv, ret, err);
}

static int run(int argc, char **argv, struct motted_config *config, struct error *err)
{
    if (geteuid() != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "motted prepares namespaces, firewall and jails: start it as root");
    umask(022);
    share_memory();
    ask_for_short_waits();
    block_signals();
    cleanup_close int lock = motted_lock(config->run_dir, err);
    if (lock < 0)
        return -1;
    struct motted_front front;
    struct priv_server *server = NULL;
    motted_front_init(&front);
    int result = prepare(config, &front, &server, err);
    if (result == 0 && config->purge)
        result = purge(config, server, err);
    struct motted_reloads reloads = {
        .argc = argc, .argv = argv, .config = config, .server = server, .channel = -1};
    if (result == 0 && !config->purge)
        result = serve(&reloads, &front, err);
    priv_server_free(server);
    motted_front_release(&front);
    return result;
}

int main(int argc, char **argv)
{
    struct motted_config config;
    struct error err = {0};
    int result;
    log_open("motted", LOG_LEVEL_INFO, LOG_TEXT);
    if (argc > 1 && is_admin_word(argv[1])) {
        result = run_admin(argv, &err);
    } else {
        result = motted_config_read(&config, argc, argv, &err);
        log_open("motted", config.log_level, config.log_format);
        if (result == 0 && config.help)
            print_help();
        else if (result == 0 && config.version)
            puts("motted " MOTTE_VERSION);
        else if (result == 0)
            result = run(argc, argv, &config, &err);
    }
    if (err.code == ERR_NONE)
        return result;
    log_error("%s [%s]", err.msg, error_code_name(err.code));
    return result > 0 ? result : 1;
}
