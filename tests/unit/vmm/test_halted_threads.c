/* A guest of QEMU's that halts without a word: QEMU's monitor and the agent's port are a script
 * here, in which a reset is what makes the agent answer. */
#include "tests/unit/vmm/root.h"
#include "vmm/internal.h"
#include "vsock/wire.h"

#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>

#define INSTANCE "abcdefghij234567abcd"

enum { PATIENCE_MS = 60000, MARK = WIRE_TOKEN_SIZE + WIRE_NONCE_SIZE };

struct script {
    const char *registers;   /* what the monitor says of the processors */
    int monitor, port, stop; /* listeners; a pipe's read end that closes */
    atomic_int resets, forbidden;
};

static int listen_at(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(fd, 64) == 0);
    return fd;
}

/* The next connection, or -1 at the end of the test. */
static int next(struct script *script, int listener)
{
    struct pollfd fds[] = {{.fd = script->stop, .events = POLLIN},
                           {.fd = listener, .events = POLLIN}};
    CHECK(poll(fds, 2, -1) > 0);
    return fds[0].revents != 0 ? -1 : accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

static void obey(struct script *script, const char *line, FILE *to)
{
    if (strstr(line, "info registers -a") != NULL)
        fprintf(to, "{\"return\": \"%s\"}\n", script->registers);
    else
        fprintf(to, "{\"return\": {}}\n");
    if (strstr(line, "{\"reboot\":\"reset\"}") != NULL)
        script->forbidden = 0;
    if (strstr(line, "{\"reboot\":\"shutdown\"}") != NULL)
        script->forbidden = 1;
    if (strstr(line, "system_reset") != NULL) {
        CHECK(!script->forbidden); /* it would end QEMU */
        script->resets++;
    }
}

static void *monitor_main(void *context)
{
    struct script *script = context;
    for (int fd; (fd = next(script, script->monitor)) >= 0;) {
        char line[1024];
        FILE *from = fdopen(fd, "r"), *to = fdopen(dup(fd), "w");
        CHECK(from != NULL && to != NULL);
        setlinebuf(to);
        fprintf(to, "{\"QMP\": {}}\n");
        while (fgets(line, sizeof(line), from) != NULL)
            obey(script, line, to);
        fclose(from);
        fclose(to);
    }
    return NULL;
}

static void say_hello(int fd, const char *mark)
{
    static const char hello[] =
        "{\"id\":1,\"op\":\"hello\",\"protocol\":1,\"instance\":\"" INSTANCE
        "\",\"agent\":\"script\",\"kernel\":\"none\",\"generation\":0,\"boot_ms\":1}";
    char head[] = {0, 0, 0, (char)sizeof(hello), WIRE_CONTROL}, answer[256];
    CHECK(send(fd, mark, MARK, MSG_NOSIGNAL) == MARK);
    CHECK(send(fd, head, sizeof(head), MSG_NOSIGNAL) == (ssize_t)sizeof(head));
    CHECK(send(fd, hello, sizeof(hello) - 1, MSG_NOSIGNAL) == (ssize_t)sizeof(hello) - 1);
    CHECK(recv(fd, answer, sizeof(answer), 0) > 0);
}

static void *agent_main(void *context)
{
    struct script *script = context;
    for (int fd; (fd = next(script, script->port)) >= 0;) {
        char mark[MARK], more;
        CHECK(recv(fd, mark, sizeof(mark), MSG_WAITALL) == MARK);
        if (script->resets > 0)
            say_hello(fd, mark);
        while (recv(fd, &more, 1, 0) > 0)
            continue;
        close(fd);
    }
    return NULL;
}

/* hello() against the script; how often the guest was reset. */
static int run(const char *registers, int deadline_ms, int *ret_result, struct error *err)
{
    char dir[] = "/tmp/motte-halted.XXXXXX", api[64], port[64];
    int stop[2];
    pthread_t threads[2];
    struct vsock_hello hello;
    CHECK(mkdtemp(dir) != NULL && pipe2(stop, O_CLOEXEC) == 0);
    snprintf(api, sizeof(api), "%s/api", dir);
    snprintf(port, sizeof(port), "%s/port", dir);
    struct script script = {.registers = registers, .stop = stop[0], .forbidden = 1};
    script.monitor = listen_at(api);
    script.port = listen_at(port);
    CHECK(pthread_create(&threads[0], NULL, monitor_main, &script) == 0);
    CHECK(pthread_create(&threads[1], NULL, agent_main, &script) == 0);
    struct vmm_machine machine = {.instance = INSTANCE,
                                  .gone = epoll_create1(EPOLL_CLOEXEC),
                                  .api = open(api, O_PATH | O_CLOEXEC),
                                  .ports = {open(port, O_PATH | O_CLOEXEC)}};
    CHECK(machine.gone >= 0 && machine.api >= 0 && machine.ports[0] >= 0);
    *ret_result = vmm_qemu.hello(&machine, clock_mono_ms() + deadline_ms, &hello, err);
    close(stop[1]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    const int fds[] = {machine.gone, machine.api,    machine.ports[0],
                       stop[0],      script.monitor, script.port};
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    CHECK(unlink(api) == 0 && unlink(port) == 0 && rmdir(dir) == 0);
    CHECK(script.forbidden); /* what the guest itself does ends it, as ever */
    return script.resets;
}

static void test_R04_a_halted_guest_is_booted_anew(void)
{
    int result;
    struct error err = {0};
    CHECK(run("CPU#0 HLT=1 CPU#1 HLT=1", PATIENCE_MS, &result, &err) == 1);
    CHECK(result == 0);
}

/* It is slow, no more: a reset would take away what it has done. */
static void test_R04_a_guest_that_runs_is_left_alone(void)
{
    int result;
    struct error err = {0};
    CHECK(run("CPU#0 HLT=1 CPU#1 HLT=0", 6000, &result, &err) == 0);
    CHECK(result < 0 && err.code == ERR_GUEST_TIMEOUT);
}

int main(void)
{
    test_R04_a_halted_guest_is_booted_anew();
    test_R04_a_guest_that_runs_is_left_alone();
    return 0;
}
