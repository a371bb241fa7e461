/* Who asks: never what a request says of itself, but what the kernel or a secret says. */
#include "server/internal.h"

#include <sys/socket.h>

static int unix_caller(struct MHD_Connection *connection, struct caller *ret, struct error *err)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t size = sizeof(peer);
    if (info == NULL || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) < 0 ||
        peer.uid == (uid_t)-1)
        return error_set(err, ERR_UNAUTHORIZED, 0, "the kernel does not say who is calling");
    *ret = (struct caller){.admin = peer.uid == 0};
    if (peer.uid == 0)
        snprintf(ret->name, sizeof(ret->name), "root");
    else
        snprintf(ret->name, sizeof(ret->name), "uid:%u", (unsigned)peer.uid);
    return 0;
}

int server_caller(const struct server_listening *listening, struct MHD_Connection *connection,
                  const char *authorization, struct caller *ret, struct error *err)
{
    if (listening->kind == SERVER_UNIX)
        return unix_caller(connection, ret, err);
    if (listening->kind == SERVER_METRICS) { /* serves monitoring routes only */
        *ret = (struct caller){.name = "monitor"};
        return 0;
    }
    if (server_tokens_find(listening->server->options.tokens, authorization, ret))
        return 0;
    return error_set(err, ERR_UNAUTHORIZED, 0,
                     authorization == NULL ? "this listener needs a bearer token"
                                           : "this token is not known");
}
