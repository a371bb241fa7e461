/* SIGHUP: the configuration is read again. What cannot change while motted runs, or does not hold
 * together, is refused as a whole. The front is asked first, so that both halves have the new one or
 * both the old. */
#include "motted/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

static int host_memory_mib(double overcommit, uint32_t *ret, struct error *err)
{
    long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || size <= 0)
        return error_set(err, ERR_SYSTEM, errno, "asking for the host's memory");
    double mib = (double)pages * (double)size / (1 << 20) * overcommit;
    *ret = mib > (double)UINT32_MAX ? UINT32_MAX : (uint32_t)mib;
    return 0;
}

int motted_limits(const struct motted_config *config, struct priv_limits *ret, struct error *err)
{
    *ret = (struct priv_limits){
        .max_vms = (uint32_t)config->max_vms,
        .max_vcpus = (uint32_t)config->max_vcpus,
        .max_memory_mib = (uint32_t)config->max_memory_mib,
        .max_disk_mib = (uint32_t)config->max_disk_mib,
        .max_snapshots = (uint32_t)config->max_snapshots,
        .image_snapshots = (uint32_t)config->image_snapshots,
    };
    if (host_memory_mib(config->memory_overcommit, &ret->total_memory_mib, err) < 0)
        return -1;
    if (ret->max_memory_mib == 0 || ret->max_memory_mib > ret->total_memory_mib)
        ret->max_memory_mib = ret->total_memory_mib;
    return 0;
}

/* The one message, with descriptors in the order of its fields (borrowed). */
static int tell_front(int channel, const struct motted_config *config,
                      const struct motted_secrets *secrets, struct error *err)
{
    struct priv_reload reload = {
        .protocol = PRIV_PROTOCOL,
        .log_level = (uint32_t)config->log_level,
        .boot_timeout_ms = (uint32_t)config->boot_timeout_ms,
        .tenant_vms = (uint32_t)config->max_tenant_vms,
        .tenant_vcpus = (uint32_t)config->max_tenant_vcpus,
        .tenant_memory_mib = (uint32_t)config->max_tenant_memory_mib,
        .tenant_execs = (uint32_t)config->max_tenant_execs,
        .has_tokens = secrets->tokens >= 0,
        .has_tls = secrets->tls >= 0,
    };
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    int fds[2];
    size_t size = 0;
    struct iovec part = {&reload, sizeof(reload)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    memcpy(reload.default_image, config->default_image, sizeof(reload.default_image));
    memcpy(reload.pools, config->pools, sizeof(reload.pools));
    memcpy(reload.quotas, config->quotas, sizeof(reload.quotas));
    if (secrets->tokens >= 0)
        fds[size++] = secrets->tokens;
    if (secrets->tls >= 0)
        fds[size++] = secrets->tls;
    size *= sizeof(int);
    if (size > 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(size);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(size);
        memcpy(CMSG_DATA(&control.header), fds, size);
    }
    if (sendmsg(channel, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)sizeof(reload))
        return error_set(err, ERR_SYSTEM, errno, "telling the front");
    return 0;
}

static int begin(struct motted_reloads *reloads, struct error *err)
{
    struct motted_config *next = &reloads->next;
    if (motted_config_read(next, reloads->argc, reloads->argv, err) < 0)
        return -1;
    const char *fixed = motted_options_fixed(reloads->config, next);
    if (fixed != NULL)
        return error_set(err, ERR_CONFIG, 0,
                         "%s cannot change while motted runs; restart it (VMs run on)", fixed);
    if (motted_listen_check(next, err) < 0 || motted_limits(next, &reloads->limits, err) < 0)
        return -1;
    cleanup(motted_secrets_release) struct motted_secrets secrets = MOTTED_SECRETS_INIT;
    if (motted_secrets_read(next, &secrets, err) < 0)
        return -1;
    return tell_front(reloads->channel, next, &secrets, err);
}

/* To the log, and to who made us reload (admin/reload.c), unless he came meanwhile and still waits. The
 * word begins with when its reload did: who changed a file later waits for another. */
static void tell(const struct motted_reloads *reloads, enum log_level level, const char *text)
{
    char word[1024];
    log_write(level, "%s", text);
    if (reloads->again)
        return;
    int len = snprintf(word, sizeof(word), "%lld %.900s\n", (long long)reloads->begun_us, text);
    cleanup_close int run = open(reloads->config->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (run < 0 || fs_replace_at(run, "reloaded", word, (size_t)len, 0600) < 0)
        log_warn("cannot write %s/reloaded: %s; ignoring", reloads->config->run_dir,
                 strerror(errno));
}

static void refuse(const struct motted_reloads *reloads, const char *why)
{
    char text[ERROR_MESSAGE_MAX + 64];
    snprintf(text, sizeof(text), "reload refused, all stays as it was: %s", why);
    tell(reloads, LOG_LEVEL_ERROR, text);
}

void motted_reload(struct motted_reloads *reloads)
{
    struct error err = {0};
    reloads->again = reloads->waiting;
    if (reloads->waiting)
        return;
    reloads->begun_us = clock_mono_us(); /* before anything is read */
    reloads->waiting = begin(reloads, &err) == 0;
    if (!reloads->waiting)
        refuse(reloads, err.msg);
}

static void take(struct motted_reloads *reloads)
{
    char changed[1024], text[sizeof(changed) + MOTTED_TEXT_MAX + 64];
    motted_options_take(reloads->config, &reloads->next, changed, sizeof(changed));
    priv_server_limit(reloads->server, &reloads->limits);
    log_set_level(reloads->config->log_level);
    snprintf(text, sizeof(text), "reloaded: %s%s%s",
             changed[0] != '\0' ? changed : "no option changed",
             reloads->config->token_file[0] != '\0' ? "; tokens read from " : "",
             reloads->config->token_file);
    tell(reloads, LOG_LEVEL_INFO, text);
}

void motted_reload_answered(struct motted_reloads *reloads)
{
    struct priv_reloaded answer;
    ssize_t n = recv(reloads->channel, &answer, sizeof(answer), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    bool whole = n == (ssize_t)sizeof(answer) && answer.protocol == PRIV_PROTOCOL;
    if (!whole) { /* its end is seen elsewhere */
        reloads->channel = -1;
        return;
    }
    if (!reloads->waiting)
        return;
    reloads->waiting = false;
    answer.message[sizeof(answer.message) - 1] = '\0';
    if (answer.code == ERR_NONE)
        take(reloads);
    else
        refuse(reloads, answer.message);
    if (reloads->again)
        motted_reload(reloads);
}
