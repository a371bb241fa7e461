/* A stand-in for the front: whoever connects to its first listener gets its end of the channel to
 * the root half and a line that tells what it was started with. SIGTERM ends it with 0. */
#include "priv/messages.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>

static int first_listener(int argc, char **argv)
{
    static const char option[] = "--listen=unix:";
    for (int i = 1; i < argc; i++)
        if (strncmp(argv[i], option, sizeof(option) - 1) == 0)
            return atoi(argv[i] + sizeof(option) - 1);
    return -1;
}

static void end(int number)
{
    (void)number;
    _exit(0);
}

static void give(int client, const char *text)
{
    int channel = PRIV_ROOT_CHANNEL_FD;
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec part = {(void *)(uintptr_t)text, strlen(text)};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &channel, sizeof(int));
    (void)!sendmsg(client, &message, MSG_NOSIGNAL);
}

int main(int argc, char **argv)
{
    char text[8192] = "", *at = text, *stop = text + sizeof(text) - 1;
    signal(SIGTERM, end);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (int i = 1; i < argc; i++)
        at += snprintf(at, (size_t)(stop - at), "%s ", argv[i]);
    *at++ = '\n';
    if (fs_read_at(AT_FDCWD, "/proc/self/status", at, (size_t)(stop - at)) < 0)
        return 1;
    int listener = first_listener(argc, argv);
    for (;;) {
        int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0)
            return 2;
        give(client, text);
        close(client);
    }
}
