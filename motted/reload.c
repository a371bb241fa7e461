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
    };
    if (host_memory_mib(config->memory_overcommit, &ret->total_memory_mib, err) < 0)
        return -1;
    if (ret->max_memory_mib == 0 || ret->max_memory_mib > ret->total_memory_mib)
        ret->max_memory_mib = ret->total_memory_mib;
    return 0;
}

/* The one message, with the tokens' descriptor if there is one (borrowed). */
static int tell_front(int channel, const struct motted_config *config, int tokens,
                      struct error *err)
{
    struct priv_reload reload = {
        .protocol = PRIV_PROTOCOL,
        .log_level = (uint32_t)config->log_level,
        .boot_timeout_ms = (uint32_t)config->boot_timeout_ms,
        .has_tokens = tokens >= 0,
    };
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    struct iovec part = {&reload, sizeof(reload)};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    memcpy(reload.default_image, config->default_image, sizeof(reload.default_image));
    if (tokens >= 0) {
        message.msg_control = control.bytes;
        message.msg_controllen = sizeof(control.bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &tokens, sizeof(int));
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
    cleanup_close int tokens = -1;
    if (next->token_file[0] != '\0' && (tokens = motted_read_tokens(next->token_file, err)) < 0)
        return -1;
    return tell_front(reloads->channel, next, tokens, err);
}

void motted_reload(struct motted_reloads *reloads)
{
    struct error err = {0};
    reloads->again = reloads->waiting;
    if (reloads->waiting)
        return;
    reloads->waiting = begin(reloads, &err) == 0;
    if (!reloads->waiting)
        log_error("reload refused, all stays as it was: %s", err.msg);
}

static void take(struct motted_reloads *reloads)
{
    char changed[256];
    motted_options_take(reloads->config, &reloads->next, changed, sizeof(changed));
    priv_server_limit(reloads->server, &reloads->limits);
    log_set_level(reloads->config->log_level);
    log_info("reloaded: %s%s", changed[0] != '\0' ? changed : "no option changed",
             reloads->config->token_file[0] != '\0' ? "; tokens read" : "");
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
        log_error("reload refused, all stays as it was: %s", answer.message);
    if (reloads->again)
        motted_reload(reloads);
}
