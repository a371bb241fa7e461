#include "support.h"
#include "vsock/vsock.h"
#include <fcntl.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>

static void must(bool good, const char *what)
{
    if (good)
        return;
    perror(what);
    abort();
}

struct support_pair support_pair_new(int buffer)
{
    int fds[2];
    struct error err = {0};
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
    for (int i = 0; i < 2 && buffer; i++)
        must(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof buffer) == 0, "SO_SNDBUF");
    struct support_pair pair = {.host = vsock_conn_new(fds[0], &err), .guest = fds[1]};
    must(pair.host != NULL, err.msg);
    return pair;
}

void support_frame(struct buf *to, char kind, const void *data, size_t len)
{
    size_t payload = len + 1;
    const uint8_t head[] = {(uint8_t)(payload >> 24), (uint8_t)(payload >> 16),
                            (uint8_t)(payload >> 8), (uint8_t)payload, (uint8_t)kind};
    must(buf_append(to, head, sizeof head) == 0, "buffer");
    must(len == 0 || buf_append(to, data, len) == 0, "buffer");
}

void support_text_frame(struct buf *to, char kind, const char *text)
{
    support_frame(to, kind, text, strlen(text));
}

void support_write(int fd, const void *data, size_t len)
{
    must(fs_write_all(fd, data, len) == 0, "write to the side under test");
}

void support_write_taken(int fd, const void *data, size_t len)
{
    int64_t deadline = clock_mono_ms() + 5000;
    int unread = 0;
    support_write(fd, data, len);
    do
        must(ioctl(fd, SIOCOUTQ, &unread) == 0 && clock_mono_ms() < deadline, "wait for a reader");
    while (unread > 0);
}

bool support_read(int fd, void *out, size_t len)
{
    for (size_t at = 0; at < len;) {
        ssize_t got = read(fd, (char *)out + at, len - at);
        if (got <= 0)
            return false;
        at += (size_t)got;
    }
    return true;
}

char support_read_frame(int fd, struct buf *payload)
{
    uint8_t head[5];
    if (!support_read(fd, head, sizeof head))
        return 0;
    size_t len =
        ((size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3]) - 1;
    must(len < WIRE_FRAME_MAX, "a frame's length");
    static _Thread_local uint8_t bytes[WIRE_FRAME_MAX];
    if (!support_read(fd, bytes, len))
        return 0;
    payload->len = 0;
    must(buf_append(payload, len ? bytes : (const uint8_t *)"", len) == 0, "buffer");
    return (char)head[4];
}

uint64_t support_seed(void)
{
    uint64_t seed;
    const char *given = getenv("VSOCK_TEST_SEED");
    must(getrandom(&seed, sizeof seed, 0) == sizeof seed, "getrandom");
    if (given)
        seed = strtoull(given, NULL, 0);
    printf("VSOCK_TEST_SEED=%llu\n", (unsigned long long)seed);
    return seed;
}

uint32_t support_random(uint64_t *state, uint32_t below)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 33) % below;
}

int64_t support_rss_kib(void)
{
    char text[256];
    must(fs_read_at(AT_FDCWD, "/proc/self/statm", text, sizeof text) > 0, "statm");
    const char *second = strchr(text, ' ');
    must(second != NULL, "statm");
    return strtoll(second, NULL, 10) * (sysconf(_SC_PAGESIZE) / 1024);
}

struct support_agent support_agent_start(const char *mode)
{
    int fds[2];
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
    pid_t pid = fork();
    must(pid >= 0, "fork");
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(fds[1], STDIN_FILENO);
        execl(AGENT_SESSION, AGENT_SESSION, mode, (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    return (struct support_agent){.fd = fds[0], .pid = pid};
}

int support_agent_stop(struct support_agent *agent)
{
    int status;
    pid_t gone = waitpid(agent->pid, &status, WNOHANG); /* first: it ends when we close */
    if (agent->fd >= 0)
        close(agent->fd);
    if (gone == agent->pid)
        return -1;
    kill(agent->pid, SIGKILL);
    waitpid(agent->pid, &status, 0);
    return 0;
}
