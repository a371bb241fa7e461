/* Who asks: never what a request says of itself, but what the kernel or a secret says. */
#include "server/internal.h"

#include <sys/socket.h>

static uid_t ask_peer(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);
    if (info == NULL || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0)
        return (uid_t)-1;
    return peer.uid;
}

/* The kernel keeps what was true when the peer connected: it is asked once a connection. */
static uid_t peer_of(struct MHD_Connection *connection)
{
    struct server_watch *watch = server_watch_of(connection);
    if (watch == NULL)
        return ask_peer(connection);
    if (!watch->peer_known)
        watch->peer = ask_peer(connection);
    watch->peer_known = watch->peer != (uid_t)-1;
    return watch->peer;
}

static int unix_caller(struct MHD_Connection *connection, struct caller *ret, struct error *err)
{
    uid_t uid = peer_of(connection);
    if (uid == (uid_t)-1)
        return error_set(err, ERR_UNAUTHORIZED, 0, "the kernel does not say who is calling");
    *ret = (struct caller){.admin = uid == 0, .local = true};
    if (uid == 0)
        snprintf(ret->name, sizeof(ret->name), "root");
    else
        snprintf(ret->name, sizeof(ret->name), "uid:%u", (unsigned)uid);
    return 0;
}

int server_caller(const struct server_listening *listening, struct MHD_Connection *connection,
                  const char *authorization, struct caller *ret, struct error *err)
{
    if (listening->kind == SERVER_UNIX)
        return unix_caller(connection, ret, err);
    if (listening->kind == SERVER_METRICS) { /* serves monitoring routes only */
        *ret = (struct caller){.name = "monitor", .local = true};
        return 0;
    }
    struct server_tokens *tokens = listening->server->options.tokens;
    if (server_tokens_find(tokens, authorization, ret))
        return server_tokens_spend(tokens, ret->token)
                   ? 0
                   : error_set(err, ERR_RATE, 0, "the token `%s` asks more often than it may",
                               ret->token);
    return error_set(err, ERR_UNAUTHORIZED, 0,
                     authorization == NULL ? "this listener needs a bearer token"
                                           : "this token is not known");
}

uint64_t server_owner(const struct caller *caller)
{
    uint64_t number = UINT64_C(14695981039346656037); /* FNV-1a */
    for (const char *at = caller->name; *at != '\0'; at++)
        number = (number ^ (uint8_t)*at) * UINT64_C(1099511628211);
    return number;
}
