/* The root half's server: opening it (directories, firewall, cgroups, filters, records of an
 * earlier run), letting it go, and removing everything it ever made. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

enum { FIREWALL_PROBE_MS = 1000, FIREWALL_CHECK_MS = 60000 };

static int real_path(const char *path, char *out, size_t size, enum error_code code,
                     struct error *err)
{
    cleanup_free char *real = realpath(path, NULL);
    if (real == NULL)
        return error_set(err, code, errno, "looking for %s", path);
    if (strlen(real) >= size)
        return error_set(err, code, ENAMETOOLONG, "looking for %s", path);
    snprintf(out, size, "%s", real);
    return 0;
}

/* run/NAME or state/NAME, opened; made with `mode` if it is not there. */
static int open_directory(const char *parent, const char *name, mode_t mode, struct error *err)
{
    char path[PRIV_PATH_MAX];
    struct stat st;
    if (snprintf(path, sizeof(path), "%s/%s", parent, name) >= (int)sizeof(path))
        return error_set(err, ERR_CONFIG, ENAMETOOLONG, "making %s in %s", name, parent);
    cleanup_close int fd = -1;
    if (fs_mkdir_p(path, mode) < 0 ||
        (fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
        fstat(fd, &st) < 0)
        return error_set(err, ERR_CONFIG, errno, "making %s", path);
    if (st.st_uid != 0 || (st.st_mode & 022) != 0)
        return error_set(err, ERR_CONFIG, 0, "%s is not root's alone to write; chown root it",
                         path);
    return TAKE_FD(fd);
}

static int open_directories(struct priv_server *server, struct error *err)
{
    const struct priv_config *config = &server->config;
    if (fs_mkdir_p(config->run_dir, 0755) < 0)
        return error_set(err, ERR_CONFIG, errno, "making %s", config->run_dir);
    if (real_path(config->run_dir, server->run_dir, sizeof(server->run_dir), ERR_CONFIG, err) < 0)
        return -1;
    server->records = open_directory(server->run_dir, "priv", 0700, err);
    if (server->records < 0)
        return -1;
    cleanup_close int jail = open_directory(server->run_dir, "jail", 0755, err);
    if (jail < 0)
        return -1;
    server->state = open(config->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (server->state < 0)
        return error_set(err, ERR_CONFIG, errno, "opening the state directory %s",
                         config->state_dir);
    static const char *const names[] = {"scratch", "staging", "snapshots"};
    int *const places[] = {&server->scratch, &server->staging, &server->snapshots};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if ((*places[i] = open_directory(config->state_dir, names[i], 0700, err)) < 0)
            return -1;
    return 0;
}

/* A level whose file cannot be written for this version is told when it is asked for; minimal is
 * then Firecracker's built-in filter. */
static int compile_firecracker(struct priv_server *server, struct error *err)
{
    for (uint32_t level = PRIV_SECCOMP_MINIMAL; level <= PRIV_SECCOMP_PERMISSIVE; level++) {
        struct error refused = {0};
        struct priv_bytes *file = &server->filters[level];
        if (priv_seccomp_firecracker_file((enum priv_seccomp)level, server->vmm_version,
                                          &file->data, &file->len, &refused) == 0)
            continue;
        if (refused.code != ERR_SECCOMP_LEVEL) {
            *err = refused;
            return error_wrap(err, "compiling the seccomp filter");
        }
    }
    return 0;
}

static int open_hypervisor(struct priv_server *server, struct error *err)
{
    const struct priv_config *config = &server->config;
    if (config->hypervisor == 0)
        return 0;
    if (config->hypervisor == PRIV_QEMU) {
        if (real_path(config->qemu, server->qemu, sizeof(server->qemu), ERR_HYPERVISOR_MISSING,
                      err) < 0)
            return -1;
        if (strncmp(server->qemu, "/usr/", 5) != 0)
            return error_set(err, ERR_CONFIG, 0,
                             "%s lies outside /usr, the one directory QEMU's jail shows",
                             server->qemu);
        server->tsc_khz = priv_tsc_khz();
        for (uint32_t level = PRIV_SECCOMP_MINIMAL; level <= PRIV_SECCOMP_PERMISSIVE; level++)
            if (priv_seccomp_qemu((enum priv_seccomp)level, &server->qemu_filters[level], err) < 0)
                return -1;
        return priv_program_version(server->qemu, server->vmm_version, sizeof(server->vmm_version),
                                    err) < 0
                   ? -1
                   : priv_qemu_machine(server, server->machine, err);
    }
    if (real_path(config->firecracker, server->firecracker, sizeof(server->firecracker),
                  ERR_HYPERVISOR_MISSING, err) < 0 ||
        real_path(config->jailer, server->jailer, sizeof(server->jailer), ERR_HYPERVISOR_MISSING,
                  err) < 0 ||
        priv_program_version(server->firecracker, server->vmm_version, sizeof(server->vmm_version),
                             err) < 0)
        return -1;
    return compile_firecracker(server, err);
}

static int open_guards(struct priv_server *server, struct error *err)
{
    const struct priv_config *config = &server->config;
    if (!(config->without & PRIV_GUARD_CGROUP) &&
        (priv_cgroups_open(&server->cgroups, config->cgroup, err) < 0 ||
         priv_cgroups_limit_io(&server->cgroups, server->state, config->max_io_mib_s,
                               config->max_iops, err) < 0))
        return -1;
    if (!(config->without & PRIV_GUARD_FIREWALL) &&
        priv_firewall_open(server, &server->firewall, err) < 0)
        return -1;
    return 0;
}

/* Names are unlinked as soon as the disk is mounted: what is left is of a launch that was cut off.
 */
static int remove_scratch(void *context, const char *instance, struct error *err)
{
    const struct priv_server *server = context;
    (void)err;
    unlinkat(server->scratch, instance, 0);
    return 0;
}

static struct priv_server *server_new(const struct priv_config *config)
{
    struct priv_server *server = calloc(1, sizeof(*server));
    if (server == NULL)
        return NULL;
    server->config = *config;
    if (config->firewall_probe_ms == 0)
        server->config.firewall_probe_ms = FIREWALL_PROBE_MS;
    if (config->firewall_check_ms == 0)
        server->config.firewall_check_ms = FIREWALL_CHECK_MS;
    server->state = server->records = server->scratch = server->staging = server->snapshots = -1;
    server->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->verified = image_verified_new();
    server->uids = calloc(config->uid_count, 1);
    server->limits = (struct priv_limits){
        .max_vms = config->max_vms,
        .max_vcpus = config->max_vcpus,
        .max_memory_mib = config->max_memory_mib,
        .max_disk_mib = config->max_disk_mib,
        .total_memory_mib = config->total_memory_mib,
        .max_snapshots = config->max_snapshots,
        .image_snapshots = config->image_snapshots,
    };
    pthread_mutex_init(&server->limits_lock, NULL);
    pthread_mutex_init(&server->lock, NULL);
    pthread_mutex_init(&server->memories_lock, NULL);
    priv_cgroups_init(&server->cgroups);
    priv_news_init(server);
    if (server->stop < 0 || server->verified == NULL || server->uids == NULL) {
        priv_server_free(server);
        return NULL;
    }
    return server;
}

void priv_tell(const struct priv_server *server, enum log_level level, const char *fmt, ...)
{
    char text[2 * ERROR_MESSAGE_MAX];
    va_list args;
    if (server->config.tell == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    server->config.tell(level, text);
}

static int open_all(struct priv_server *server, struct error *err)
{
    if (id_boot_read(server->boot_id, err) < 0 || priv_identity_read(&server->identity, err) < 0 ||
        priv_range_check(server->config.uid_base, server->config.uid_count, err) < 0 ||
        open_directories(server, err) < 0 || open_hypervisor(server, err) < 0 ||
        open_guards(server, err) < 0 || priv_news_open(server, err) < 0 ||
        priv_record_sweep(server->records, err) < 0 ||
        priv_each_name(server->records, priv_adopt, server, err) < 0 ||
        (server->firewall != NULL && priv_firewall_settle(server->firewall, err) < 0))
        return -1;
    return priv_each_name(server->scratch, remove_scratch, server, err) < 0
               ? -1
               : priv_snapshots_sweep(server, err);
}

int priv_server_open(const struct priv_config *config, struct priv_server **ret, struct error *err)
{
    struct priv_server *server = server_new(config);
    if (server == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the root half");
    if (open_all(server, err) < 0) {
        priv_server_free(server);
        return -1;
    }
    *ret = server;
    return 0;
}

void priv_server_limit(struct priv_server *server, const struct priv_limits *limits)
{
    pthread_mutex_lock(&server->limits_lock);
    server->limits = *limits;
    pthread_mutex_unlock(&server->limits_lock);
}

struct priv_limits priv_limits_now(struct priv_server *server)
{
    pthread_mutex_lock(&server->limits_lock);
    struct priv_limits limits = server->limits;
    pthread_mutex_unlock(&server->limits_lock);
    return limits;
}

void priv_server_free(struct priv_server *server)
{
    if (server == NULL)
        return;
    priv_firewall_free(server->firewall);
    server->firewall = NULL; /* chains stay */
    while (server->slot_count > 0)
        priv_slot_forget(server, server->slots[0]);
    free(server->slots);
    for (size_t i = 0; i < COUNT_OF(server->filters); i++) {
        free(server->filters[i].data);
        priv_bpf_release(&server->qemu_filters[i]);
    }
    priv_cgroups_close(&server->cgroups);
    image_verified_free(server->verified);
    priv_memories_free(server);
    priv_news_close(server);
    cleanup_close_func(&server->state);
    cleanup_close_func(&server->records);
    cleanup_close_func(&server->scratch);
    cleanup_close_func(&server->staging);
    cleanup_close_func(&server->snapshots);
    cleanup_close_func(&server->stop);
    free(server->uids);
    pthread_mutex_destroy(&server->lock);
    pthread_mutex_destroy(&server->memories_lock);
    pthread_mutex_destroy(&server->limits_lock);
    free(server);
}

static int purge_name(void *context, const char *instance, struct error *err)
{
    struct priv_server *server = context;
    struct priv_instance_slot *slot = priv_slot_find(server, instance);
    if (priv_undo(server, slot, instance, NULL, err) < 0)
        return -1;
    if (slot != NULL)
        priv_slot_forget(server, slot);
    return 0;
}

int priv_server_purge(struct priv_server *server, struct error *err)
{
    if (priv_each_name(server->records, purge_name, server, err) < 0)
        return -1;
    for (size_t i = 0; i < server->cgroups.count; i++)
        if (priv_each_name(server->cgroups.root[i], purge_name, server, err) < 0)
            return -1;
    while (server->slot_count > 0) /* reserved ones have neither */
        priv_slot_forget(server, server->slots[0]);
    if (priv_cgroups_remove(&server->cgroups, err) < 0)
        return -1;
    return server->firewall == NULL ? 0 : priv_firewall_purge(server->firewall, err);
}
