/* Arguments, as motted writes them: anything unexpected is a defect worth stopping for. */
#include "server/internal.h"

#include <fcntl.h>

struct option {
    const char *name;
    int (*take)(struct server_config *config, const char *name, const char *value,
                struct error *err);
};

static int take_fd(const char *name, const char *value, int *ret, struct error *err)
{
    uint64_t fd = 0;
    if (kv_number(name, value, 3, 1 << 20, &fd, err) < 0)
        return -1;
    int flags = fcntl((int)fd, F_GETFD);
    if (flags < 0 || fcntl((int)fd, F_SETFD, flags | FD_CLOEXEC) < 0)
        return error_set(err, ERR_CONFIG, 0, "%s: descriptor %s is not open", name, value);
    *ret = (int)fd;
    return 0;
}

static int take_state_dir(struct server_config *config, const char *name, const char *value,
                          struct error *err)
{
    if (value[0] != '/')
        return error_set(err, ERR_CONFIG, 0, "%s: use an absolute path", name);
    config->state_dir = value;
    return 0;
}

static int take_image(struct server_config *config, const char *name, const char *value,
                      struct error *err)
{
    if (!id_name_valid(value))
        return error_set(err, ERR_CONFIG, 0, "%s: `%s` is no image name", name, value);
    config->default_image = value;
    return 0;
}

static int take_ms(const char *name, const char *value, int *ret, struct error *err)
{
    uint64_t ms = 0;
    if (kv_number(name, value, SERVER_BOOT_MIN_MS, SERVER_BOOT_MAX_MS, &ms, err) < 0)
        return -1;
    *ret = (int)ms;
    return 0;
}

static int take_boot_timeout(struct server_config *config, const char *name, const char *value,
                             struct error *err)
{
    return take_ms(name, value, &config->boot_timeout_ms, err);
}

static int take_answer_timeout(struct server_config *config, const char *name, const char *value,
                               struct error *err)
{
    return take_ms(name, value, &config->answer_timeout_ms, err);
}

static int take_image_snapshots(struct server_config *config, const char *name, const char *value,
                                struct error *err)
{
    uint64_t count = 0;
    if (kv_number(name, value, 0, VMM_IMAGE_SNAPSHOTS_MAX, &count, err) < 0)
        return -1;
    config->image_snapshots = (uint32_t)count;
    return 0;
}

static int take_log_level(struct server_config *config, const char *name, const char *value,
                          struct error *err)
{
    uint64_t level = 0;
    if (kv_number(name, value, LOG_LEVEL_ERROR, LOG_LEVEL_DEBUG, &level, err) < 0)
        return -1;
    config->log_level = (enum log_level)level;
    return 0;
}

static int take_log_format(struct server_config *config, const char *name, const char *value,
                           struct error *err)
{
    uint64_t format = 0;
    if (kv_number(name, value, LOG_TEXT, LOG_JSON, &format, err) < 0)
        return -1;
    config->log_format = (enum log_format)format;
    return 0;
}

static int add_listener(struct server_config *config, const char *name, enum server_kind kind,
                        const char *value, struct error *err)
{
    if (config->listener_count == SERVER_LISTENERS_MAX)
        return error_set(err, ERR_CONFIG, 0, "%s: at most %d listeners", name,
                         SERVER_LISTENERS_MAX);
    struct server_listener *listener = &config->listeners[config->listener_count];
    if (take_fd(name, value, &listener->fd, err) < 0)
        return -1;
    listener->kind = kind;
    config->listener_count++;
    return 0;
}

static int take_listen(struct server_config *config, const char *name, const char *value,
                       struct error *err)
{
    if (strncmp(value, "unix:", 5) == 0)
        return add_listener(config, name, SERVER_UNIX, value + 5, err);
    if (strncmp(value, "tcp:", 4) == 0)
        return add_listener(config, name, SERVER_TCP, value + 4, err);
    if (strncmp(value, "tls:", 4) == 0)
        return add_listener(config, name, SERVER_TLS, value + 4, err);
    return error_set(err, ERR_CONFIG, 0, "%s: use unix:FD, tcp:FD or tls:FD, not `%s`", name,
                     value);
}

static int take_metrics(struct server_config *config, const char *name, const char *value,
                        struct error *err)
{
    return add_listener(config, name, SERVER_METRICS, value, err);
}

static int take_token_fd(struct server_config *config, const char *name, const char *value,
                         struct error *err)
{
    return take_fd(name, value, &config->token_fd, err);
}

static int take_tls_fd(struct server_config *config, const char *name, const char *value,
                       struct error *err)
{
    return take_fd(name, value, &config->tls_fd, err);
}

static int take_number(const char *name, const char *value, uint32_t *ret, struct error *err)
{
    uint64_t number = 0;
    if (kv_number(name, value, 0, UINT32_MAX, &number, err) < 0)
        return -1;
    *ret = (uint32_t)number;
    return 0;
}

static int take_tenant_vms(struct server_config *config, const char *name, const char *value,
                           struct error *err)
{
    return take_number(name, value, &config->quotas.common.vms, err);
}

static int take_tenant_vcpus(struct server_config *config, const char *name, const char *value,
                             struct error *err)
{
    return take_number(name, value, &config->quotas.common.vcpus, err);
}

static int take_tenant_memory(struct server_config *config, const char *name, const char *value,
                              struct error *err)
{
    return take_number(name, value, &config->quotas.common.memory_mib, err);
}

static int take_quota(struct server_config *config, const char *name, const char *value,
                      struct error *err)
{
    (void)name;
    return server_quota_add(&config->quotas, value, err);
}

static int take_tenant_execs(struct server_config *config, const char *name, const char *value,
                             struct error *err)
{
    return take_number(name, value, &config->quotas.common.execs, err);
}

static int take_pool(struct server_config *config, const char *name, const char *value,
                     struct error *err)
{
    (void)name;
    return vmm_pool_add(&config->pools, value, err);
}

static const struct option options[] = {
    {"--state-dir", take_state_dir},
    {"--default-image", take_image},
    {"--boot-timeout-ms", take_boot_timeout},
    {"--answer-timeout-ms", take_answer_timeout},
    {"--image-snapshots", take_image_snapshots},
    {"--log-level", take_log_level},
    {"--log-format", take_log_format},
    {"--listen", take_listen},
    {"--metrics", take_metrics},
    {"--token-fd", take_token_fd},
    {"--tls-fd", take_tls_fd},
    {"--pool", take_pool},
    {"--tenant-vms", take_tenant_vms},
    {"--tenant-vcpus", take_tenant_vcpus},
    {"--tenant-memory-mib", take_tenant_memory},
    {"--tenant-execs", take_tenant_execs},
    {"--quota", take_quota},
};

static int take(struct server_config *config, const char *argument, struct error *err)
{
    size_t len = strcspn(argument, "=");
    for (size_t i = 0; i < COUNT_OF(options); i++)
        if (strlen(options[i].name) == len && strncmp(options[i].name, argument, len) == 0 &&
            argument[len] == '=')
            return options[i].take(config, options[i].name, argument + len + 1, err);
    return error_set(err, ERR_CONFIG, 0,
                     "unknown argument `%s`; motted starts this program, see docs/handover.md",
                     argument);
}

static int check(const struct server_config *config, struct error *err)
{
    if (config->state_dir == NULL || config->default_image == NULL)
        return error_set(err, ERR_CONFIG, 0,
                         "--state-dir and --default-image are missing; motted starts this program, "
                         "see docs/handover.md");
    if (config->listener_count == 0)
        return error_set(err, ERR_CONFIG, 0, "no --listen: nobody could ask for anything");
    for (size_t i = 0; i < config->listener_count; i++) {
        enum server_kind kind = config->listeners[i].kind;
        if ((kind == SERVER_TCP || kind == SERVER_TLS) && config->token_fd < 0)
            return error_set(err, ERR_CONFIG, 0, "--listen=tcp and tls need --token-fd");
        if (kind == SERVER_TLS && config->tls_fd < 0)
            return error_set(err, ERR_CONFIG, 0, "--listen=tls needs --tls-fd");
    }
    return 0;
}

int server_config_parse(int argc, char **argv, struct server_config *ret, struct error *err)
{
    struct server_config config = {.boot_timeout_ms = 10000,
                                   .answer_timeout_ms = 2000,
                                   .log_level = LOG_LEVEL_INFO,
                                   .token_fd = -1,
                                   .tls_fd = -1};
    for (int i = 1; i < argc; i++)
        if (take(&config, argv[i], err) < 0)
            return -1;
    if (check(&config, err) < 0)
        return -1;
    *ret = config;
    return 0;
}
