/* The front's part of a reload: look at all that is new, then take it, or say why not. */
#include "server/internal.h"

#include <errno.h>
#include <sys/socket.h>

/* What came with the message; owned. */
struct handed {
    int tokens, tls; /* memfds, or -1 */
};

static void handed_release(struct handed *handed)
{
    cleanup_close_func(&handed->tokens);
    cleanup_close_func(&handed->tls);
}

/* What a reload replaces as a whole; owned; NULL where there is none. */
struct fresh {
    struct server_tokens *tokens;
    struct server_tls *tls;
};

static void fresh_release(struct fresh *fresh)
{
    server_tokens_free(fresh->tokens);
    server_tls_free(fresh->tls);
}

static int check(const struct priv_reload *reload, const struct handed *handed, struct error *err)
{
    if (reload->protocol != PRIV_PROTOCOL ||
        memchr(reload->default_image, '\0', sizeof(reload->default_image)) == NULL ||
        !id_name_valid(reload->default_image) || reload->log_level > LOG_LEVEL_DEBUG ||
        reload->boot_timeout_ms < SERVER_BOOT_MIN_MS ||
        reload->boot_timeout_ms > SERVER_BOOT_MAX_MS ||
        (reload->has_tokens != 0) != (handed->tokens >= 0) ||
        (reload->has_tls != 0) != (handed->tls >= 0))
        return error_set(err, ERR_PRIV_REFUSED, 0, "a reload that no root half sends");
    return 0;
}

/* The lines of a list, of which each has `size` bytes, until one is empty. */
static int read_lines(const char *lines, size_t count, size_t size,
                      int (*add)(void *list, const char *line, struct error *err), void *list,
                      struct error *err)
{
    for (size_t i = 0; i < count && lines[i * size] != '\0'; i++) {
        const char *line = lines + i * size;
        if (memchr(line, '\0', size) == NULL)
            return error_set(err, ERR_PRIV_REFUSED, 0, "a reload that no root half sends");
        if (add(list, line, err) < 0)
            return -1;
    }
    return 0;
}

static int add_pool(void *list, const char *line, struct error *err)
{
    return vmm_pool_add(list, line, err);
}

static int add_quota(void *list, const char *line, struct error *err)
{
    return server_quota_add(list, line, err);
}

static int read_lists(const struct priv_reload *reload, struct vmm_pool_targets *ret_pools,
                      struct store_quotas *ret_quotas, struct error *err)
{
    *ret_pools = (struct vmm_pool_targets){0};
    *ret_quotas = (struct store_quotas){.common = {.vms = reload->tenant_vms,
                                                   .vcpus = reload->tenant_vcpus,
                                                   .memory_mib = reload->tenant_memory_mib,
                                                   .execs = reload->tenant_execs}};
    return read_lines(reload->pools[0], PRIV_POOLS_MAX, PRIV_POOL_SIZE, add_pool, ret_pools, err) <
                       0 ||
                   read_lines(reload->quotas[0], PRIV_QUOTAS_MAX, PRIV_QUOTA_SIZE, add_quota,
                              ret_quotas, err) < 0
               ? -1
               : 0;
}

static int read_files(const struct handed *handed, struct fresh *ret, struct error *err)
{
    if (handed->tokens >= 0 && server_tokens_read(handed->tokens, &ret->tokens, err) < 0)
        return -1;
    return handed->tls < 0 ? 0 : server_tls_read(handed->tls, &ret->tls, err);
}

static int take(const struct priv_reload *reload, const struct handed *handed,
                const struct server_live *live, struct error *err)
{
    struct vmm_pool_targets pools;
    struct store_quotas quotas;
    cleanup(fresh_release) struct fresh fresh = {0};
    if (check(reload, handed, err) < 0 || read_lists(reload, &pools, &quotas, err) < 0 ||
        read_files(handed, &fresh, err) < 0)
        return -1; /* what can fail comes first */
    if (live->tokens != NULL && fresh.tokens != NULL) {
        server_tokens_take(live->tokens, TAKE_PTR(fresh.tokens));
        server_revoke(live->server);
        store_wait_again(live->store);
    }
    if (live->tls != NULL && fresh.tls != NULL)
        server_tls_take(live->tls, TAKE_PTR(fresh.tls));
    store_quotas_set(live->store, &quotas);
    struct vmm_defaults defaults = {.boot_timeout_ms = (int)reload->boot_timeout_ms};
    memcpy(defaults.image, reload->default_image, sizeof(defaults.image));
    vmm_defaults_set(live->vmm, &defaults);
    vmm_pools_set(live->vmm, &pools);
    log_set_level((enum log_level)reload->log_level);
    return 0;
}

/* The descriptors come in the order of the message's fields. */
static void take_descriptors(struct msghdr *message, const struct priv_reload *reload,
                             struct handed *ret)
{
    const struct cmsghdr *header = CMSG_FIRSTHDR(message);
    int fds[2] = {-1, -1};
    if (header == NULL || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
        return;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    memcpy(fds, CMSG_DATA(header), (count < COUNT_OF(fds) ? count : COUNT_OF(fds)) * sizeof(int));
    ret->tokens = reload->has_tokens != 0 || count > 1 ? fds[0] : -1;
    ret->tls = ret->tokens < 0 ? fds[0] : fds[1];
}

bool server_reload(int channel, const struct server_live *live)
{
    union {
        char bytes[CMSG_SPACE(2 * sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    struct priv_reload reload;
    struct iovec part = {&reload, sizeof(reload)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    cleanup(handed_release) struct handed handed = {-1, -1};
    ssize_t n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n != (ssize_t)sizeof(reload))
        return false;
    take_descriptors(&message, &reload, &handed);
    struct priv_reloaded answer = {.protocol = PRIV_PROTOCOL};
    struct error err = {0};
    if (take(&reload, &handed, live, &err) < 0) {
        answer.code = err.code;
        memcpy(answer.message, err.msg, sizeof(answer.message));
    }
    return send(channel, &answer, sizeof(answer), MSG_NOSIGNAL) == (ssize_t)sizeof(answer);
}
