/* Test program: the guest agent's session code on descriptor 0, as the VM's process for one
 * connection runs it, but without cgroups. "control" serves the hello connection, "serial" a port
 * whose sessions begin with a mark (descriptor 0 is then a socket that stands for the port). */
#include "guest/internal.h"
#include "support.h"
#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>

int main(int argc, char **argv)
{
    struct guest_facts facts = {.generation = 0, .boot_ms = 412, .init = -1};
    struct guest_conn *conn = calloc(1, sizeof *conn);
    if (!conn || fcntl(0, F_SETFL, O_NONBLOCK))
        return 1;
    strcpy(facts.instance, SUPPORT_INSTANCE);
    for (size_t i = 0; i < sizeof facts.token; i++)
        facts.token[i] = SUPPORT_TOKEN_BYTE(i);
    signal(SIGPIPE, SIG_IGN);
    conn->fd = 0;
    struct guest_session session = {
        .conn = conn, .facts = &facts, .control = argc > 1 && strcmp(argv[1], "control") == 0};
    if (argc > 1 && strcmp(argv[1], "serial") == 0) {
        sigset_t set;
        sigemptyset(&set);
        sigaddset(&set, SIGIO);
        sigprocmask(SIG_BLOCK, &set, NULL);
        conn->token = facts.token;
        conn->sigio = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        fcntl(0, F_SETOWN, getpid());
        fcntl(0, F_SETFL, O_NONBLOCK | O_ASYNC);
        while (guest_conn_next_session(conn) == 0 || conn->marked)
            if (!conn->marked)
                guest_session_run(&session);
    } else {
        guest_session_run(&session);
    }
    free(conn);
    return 0;
}
