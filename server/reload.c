/* The front's part of a reload: look at all that is new, then take it, or say why not. */
#include "server/internal.h"

#include <errno.h>
#include <sys/socket.h>

static int check(const struct priv_reload *reload, int tokens, struct error *err)
{
    if (reload->protocol != PRIV_PROTOCOL ||
        memchr(reload->default_image, '\0', sizeof(reload->default_image)) == NULL ||
        !id_name_valid(reload->default_image) || reload->log_level > LOG_LEVEL_DEBUG ||
        reload->boot_timeout_ms < SERVER_BOOT_MIN_MS ||
        reload->boot_timeout_ms > SERVER_BOOT_MAX_MS || (reload->has_tokens != 0) != (tokens >= 0))
        return error_set(err, ERR_PRIV_REFUSED, 0, "a reload that no root half sends");
    return 0;
}

static int take(const struct priv_reload *reload, int token_fd, struct server_tokens *tokens,
                struct vmm *vmm, struct error *err)
{
    if (check(reload, token_fd, err) < 0)
        return -1;
    if (tokens != NULL && token_fd >= 0 && server_tokens_replace(tokens, token_fd, err) < 0)
        return -1; /* the one part that can fail comes first */
    struct vmm_defaults defaults = {.boot_timeout_ms = (int)reload->boot_timeout_ms};
    memcpy(defaults.image, reload->default_image, sizeof(defaults.image));
    vmm_defaults_set(vmm, &defaults);
    log_set_level((enum log_level)reload->log_level);
    return 0;
}

bool server_reload(int channel, struct server_tokens *tokens, struct vmm *vmm)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr header;
    } control = {0};
    struct priv_reload reload;
    struct iovec part = {&reload, sizeof(reload)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    cleanup_close int token_fd = -1;
    ssize_t n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n != (ssize_t)sizeof(reload))
        return false;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header != NULL && header->cmsg_type == SCM_RIGHTS)
        memcpy(&token_fd, CMSG_DATA(header), sizeof(token_fd));
    struct priv_reloaded answer = {.protocol = PRIV_PROTOCOL};
    struct error err = {0};
    if (take(&reload, token_fd, tokens, vmm, &err) < 0) {
        answer.code = err.code;
        memcpy(answer.message, err.msg, sizeof(answer.message));
    }
    return send(channel, &answer, sizeof(answer), MSG_NOSIGNAL) == (ssize_t)sizeof(answer);
}
