/* A request's head, through the library as the service uses it, to what our own reading makes of it. */
#include "fuzz.h"
#include "server/internal.h"

#include <netinet/in.h>
#include <sys/socket.h>

static enum MHD_Result handle(void *cls, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *upload_data,
                              size_t *upload_data_size, void **con_cls)
{
    struct server_headers headers;
    struct error err = {0};
    (void)cls, (void)url, (void)method, (void)upload_data, (void)con_cls;
    *upload_data_size = 0;
    if (server_headers_read(connection, version, &headers, &err) < 0) {
        FUZZ_CHECK(err.code == ERR_BAD_REQUEST);
        return MHD_NO;
    }
    FUZZ_CHECK(headers.content_lengths + headers.transfer_encodings <= 1);
    FUZZ_CHECK(headers.hosts <= 1 && headers.content_types <= 1 && headers.authorizations <= 1);
    FUZZ_CHECK(!server_headers_json(&headers) || headers.content_types == 1);
    FUZZ_CHECK(!server_headers_body(&headers) || headers.content_lengths > 0 ||
               headers.transfer_encodings > 0);
    return MHD_NO; /* closes the connection */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { MANY_TURNS = 64 };
    int fds[2];
    struct sockaddr_in from = {.sin_family = AF_INET};
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_NO_LISTEN_SOCKET, 0, NULL, NULL, handle, NULL,
                         MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    FUZZ_CHECK(daemon != NULL);
    FUZZ_CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
    FUZZ_CHECK(MHD_add_connection(daemon, fds[0], (struct sockaddr *)&from, sizeof(from)) ==
               MHD_YES);
    (void)!write(fds[1], data, size < 65536 ? size : 65536);
    FUZZ_CHECK(shutdown(fds[1], SHUT_WR) == 0);
    for (int turn = 0; turn < MANY_TURNS; turn++)
        FUZZ_CHECK(MHD_run(daemon) == MHD_YES);
    MHD_stop_daemon(daemon); /* closes fds[0] */
    close(fds[1]);
    return 0;
}
