/* How PID 1 gives way to itself: a session asks for it, a pipe carries what the next one is to be.
 * Not the arguments or the environment: any process of the guest may read those of PID 1. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PROGRAM = 0, PIPE = 1 };

static const char WORD[] = "restored";

struct ask {
    pid_t asker;
    struct guest_identity identity;
};

int guest_handover_ask(int init, const struct guest_identity *identity)
{
    const struct ask ask = {.asker = getpid(), .identity = *identity};
    int error;
    /* However long it takes: who stopped waiting would deny what PID 1 then does all the same. */
    if (send(init, &ask, sizeof ask, MSG_NOSIGNAL) != sizeof ask ||
        recv(init, &error, sizeof error, 0) != sizeof error)
        return -1;
    errno = error;
    return error ? -1 : 0;
}

bool guest_handover_asked(int socket, pid_t *ret_asker, struct guest_identity *ret)
{
    struct ask ask;
    if (recv(socket, &ask, sizeof ask, MSG_DONTWAIT) != sizeof ask)
        return false;
    *ret_asker = ask.asker;
    *ret = ask.identity;
    return true;
}

void guest_handover_answer(int socket, int error)
{
    if (send(socket, &error, sizeof error, MSG_NOSIGNAL) != sizeof error)
        guest_say("a restore was not answered: %s", strerror(errno));
}

/* Before anything is ended: what fails here leaves all as it was. The pipe takes it at once. */
int guest_handover_prepare(const struct guest_handover *next, int fds[static 2])
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC))
        return -1;
    fds[PIPE] = ends[0];
    ssize_t put = write(ends[1], next, sizeof *next);
    close(ends[1]);
    /* /init itself is unlinked; the link in /proc leads to it all the same. */
    fds[PROGRAM] = open("/proc/self/exe", O_PATH | O_CLOEXEC);
    if (put == sizeof *next && fds[PROGRAM] >= 0)
        return 0;
    int saved = errno;
    close(fds[PIPE]);
    if (fds[PROGRAM] >= 0)
        close(fds[PROGRAM]);
    errno = saved;
    return -1;
}

static void keep(int fd)
{
    if (fd >= 0 && fcntl(fd, F_SETFD, 0))
        guest_die("cannot hand on a descriptor");
}

_Noreturn void guest_handover_execute(const struct guest_handover *next, const int fds[static 2])
{
    char name[] = "/init", word[sizeof WORD], pipe[16];
    memcpy(word, WORD, sizeof word);
    snprintf(pipe, sizeof pipe, "%d", fds[PIPE]);
    char *const argv[] = {name, word, pipe, NULL}, *const env[] = {NULL};
    keep(fds[PIPE]);
    keep(next->listener);
    for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
        keep(next->ports[port]);
    execveat(fds[PROGRAM], "", argv, env, AT_EMPTY_PATH);
    /* The sessions have ended, and the host was told that this machine is another: it cannot be
     * what it was. */
    guest_die("cannot execute the agent anew");
}

int guest_handover_take(int argc, char **argv, struct guest_handover *ret)
{
    struct guest_handover taken;
    if (argc != 3 || strcmp(argv[1], WORD) != 0)
        return 0;
    int pipe = (int)strtol(argv[2], NULL, 10);
    if (read(pipe, &taken, sizeof taken) != sizeof taken)
        return -1;
    close(pipe);
    if (taken.listener >= 0)
        fcntl(taken.listener, F_SETFD, FD_CLOEXEC);
    for (int port = 0; port < WIRE_SERIAL_PORTS; port++)
        if (taken.ports[port] >= 0)
            fcntl(taken.ports[port], F_SETFD, FD_CLOEXEC);
    *ret = taken;
    return 1;
}
