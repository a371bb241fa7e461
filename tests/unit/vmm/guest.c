/* The scripted VMM: a process that sleeps, and a thread that serves its sockets: Firecracker's API,
 * the hybrid vsock with a guest's agent behind it. When it ends its connections close first and its
 * pidfd tells later, as with a real one. */
#include "tests/unit/vmm/root.h"

#include "vsock/wire.h"
#include "json/json.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

enum { REQUEST_MAX = 8192 };

bool guest_ended(const struct guest *guest)
{
    struct pollfd p = {.fd = guest->pidfd, .events = POLLIN};
    return poll(&p, 1, 0) == 1;
}

bool plan_moment(const struct plan *plan, const char *instance, enum moment moment)
{
    if (plan->call == moment)
        plan->action(plan->context, instance);
    return plan->fail == moment;
}

bool guest_moment(struct guest *guest, enum moment moment)
{
    if (!plan_moment(&guest->plan, guest->instance, moment))
        return false;
    unsigned met = atomic_fetch_add(&guest->met, 1) + 1;
    if (guest->plan.times > 0)
        return met <= (unsigned)guest->plan.times;
    return guest->plan.spare == 0 || met % guest->plan.spare != 0;
}

/* ---- sockets ---- */

void guest_path(const struct guest *guest, const char *name, char out[static 108])
{
    snprintf(out, 108, "%s/%s.%s", guest->dir, guest->instance, name);
}

static int listen_at(const struct guest *guest, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    guest_path(guest, name, address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    CHECK(fd >= 0);
    CHECK(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(fd, 64) == 0);
    return fd;
}

static bool serve_api(struct guest *guest);

/* False when the VMM is to end. A VMM serves its API whatever its guest does, and nothing else while
 * that is paused. */
static bool await(struct guest *guest, int fd)
{
    for (;;) {
        bool frozen = guest->paused && !guest->in_api;
        struct pollfd fds[] = {{.fd = guest->stop, .events = POLLIN},
                               {.fd = guest->in_api ? -1 : guest->api, .events = POLLIN},
                               {.fd = frozen ? -1 : fd, .events = POLLIN}};
        while (poll(fds, COUNT_OF(fds), -1) < 0)
            CHECK(errno == EINTR);
        if (fds[0].revents != 0)
            return false;
        if (fds[1].revents == 0)
            return true;
        if (serve_api(guest))
            return false;
    }
}

static bool take(struct guest *guest, int fd, void *out, size_t len)
{
    for (size_t at = 0; at < len;) {
        if (!await(guest, fd))
            return false;
        ssize_t n = recv(fd, (char *)out + at, len - at, 0);
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

/* Up to and with `end`. */
static bool take_until(struct guest *guest, int fd, char *out, size_t size, const char *end)
{
    for (size_t at = 0; at < size - 1;) {
        if (!take(guest, fd, out + at, 1))
            return false;
        out[++at] = '\0';
        if (at >= strlen(end) && strcmp(out + at - strlen(end), end) == 0)
            return true;
    }
    return false;
}

static void put(int fd, const void *data, size_t len)
{
    (void)!send(fd, data, len, MSG_NOSIGNAL); /* the engine may have gone */
}

static void put_frame(int fd, char kind, const char *text)
{
    size_t len = strlen(text) + 1;
    char frame[1024] = {(char)(len >> 24), (char)(len >> 16), (char)(len >> 8), (char)len, kind};
    CHECK(len + WIRE_HEADER_SIZE <= sizeof(frame));
    memcpy(frame + WIRE_HEADER_SIZE + 1, text, len - 1);
    put(fd, frame, WIRE_HEADER_SIZE + len);
}

/* ---- the agent ---- */

/* A length beyond every bound. */
static bool lies(const struct guest *guest, enum moment moment, int fd)
{
    if (guest->plan.lie != moment)
        return false;
    put(fd, "\xff\xff\xff\xff", 4);
    return true;
}

static void put_hello(const struct guest *guest, int fd, const char *first, uint64_t id)
{
    char text[512];
    const char *agent = guest->plan.agent != NULL ? guest->plan.agent : "script";
    snprintf(text, sizeof(text),
             "{\"id\":%llu,%s,\"protocol\":1,\"instance\":\"%s\",\"agent\":\"%s\","
             "\"kernel\":\"%s\",\"generation\":%u,\"boot_ms\":1}",
             (unsigned long long)id, first, guest->instance, agent, agent, guest->generation);
    put_frame(fd, WIRE_CONTROL, text);
}

/* Unless the plan keeps it silent. */
static void say_hello(struct guest *guest)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (guest_moment(guest, AT_HELLO))
        return;
    guest_path(guest, "hello", address.sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 &&
        guest->plan.die != AT_HELLO && !lies(guest, AT_HELLO, fd))
        put_hello(guest, fd, "\"op\":\"hello\"", 1);
    guest->said = fd;
}

static void answer_exec(struct guest *guest, int fd, uint64_t id)
{
    char text[128];
    if (lies(guest, AT_EXEC, fd))
        return;
    snprintf(text, sizeof(text), "{\"id\":%llu,\"ok\":true}", (unsigned long long)id);
    put_frame(fd, WIRE_CONTROL, text);
    put_frame(fd, WIRE_STDOUT, "out");
    if (guest_moment(guest, AT_EXEC)) /* a command that does not end */
        return;
    snprintf(text, sizeof(text),
             "{\"id\":%llu,\"op\":\"exit\",\"code\":7,\"timed_out\":false,\"duration_ms\":1}",
             (unsigned long long)id);
    put_frame(fd, WIRE_CONTROL, text);
}

static void put_number(int fd, uint64_t id, const char *name)
{
    char text[96];
    snprintf(text, sizeof(text), "{\"id\":%llu,\"ok\":true,\"%s\":1}", (unsigned long long)id,
             name);
    put_frame(fd, WIRE_CONTROL, text);
}

/* Who it is now; then its agent begins anew. False: the connection is over. */
static bool answer_restore(struct guest *guest, int fd, uint64_t id, const cJSON *request)
{
    const char *instance =
        cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "instance"));
    uint32_t generation =
        (uint32_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(request, "generation"));
    CHECK(instance != NULL && strcmp(instance, guest->instance) == 0);
    guest->dies = guest->plan.die == AT_RESTORE;
    if (guest->dies || lies(guest, AT_RESTORE, fd))
        return false;
    if (guest_moment(guest, AT_RESTORE)) {
        char text[128];
        snprintf(text, sizeof(text),
                 "{\"id\":%llu,\"ok\":false,\"error\":{\"code\":\"no\",\"message\":\"scripted\"}}",
                 (unsigned long long)id);
        put_frame(fd, WIRE_CONTROL, text);
        return true;
    }
    guest->generation = guest->plan.stays ? generation - 1 : generation;
    if (guest->plan.mute == AT_RESTORE) {
        (void)await(guest, fd);
        return false;
    }
    put_number(fd, id, "clock_skew_ms");
    say_hello(guest);
    return false;
}

/* One request on a service connection; false: the connection is over. */
static bool serve_frame(struct guest *guest, int fd)
{
    uint8_t head[WIRE_HEADER_SIZE], body[REQUEST_MAX];
    cleanup_json cJSON *request = NULL;
    struct error err = {0};
    if (!take(guest, fd, head, sizeof(head)))
        return false;
    size_t len = (size_t)head[2] << 8 | head[3];
    CHECK(head[0] == 0 && head[1] == 0 && len > 0 && len <= sizeof(body));
    if (!take(guest, fd, body, len))
        return false;
    if (body[0] != WIRE_CONTROL)
        return true;
    CHECK(json_parse((const char *)body + 1, len - 1, &request, &err) == 0);
    const char *op = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(request, "op"));
    uint64_t id = (uint64_t)cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(request, "id"));
    CHECK(op != NULL);
    if (strcmp(op, "restore") == 0)
        return answer_restore(guest, fd, id, request);
    if (strcmp(op, "ping") == 0) {
        put_number(fd, id, "uptime_ms");
        return true;
    }
    enum moment now = strcmp(op, "hello") == 0 ? AT_ASK : AT_EXEC;
    if (guest->plan.die == now)
        return false;
    if (now == AT_EXEC)
        answer_exec(guest, fd, id);
    else if (!guest_moment(guest, now) && !lies(guest, now, fd))
        put_hello(guest, fd, "\"ok\":true", id);
    return true;
}

static void serve_vsock(struct guest *guest)
{
    char line[32];
    cleanup_close int fd = accept4(guest->vsock, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0 || !take_until(guest, fd, line, sizeof(line), "\n"))
        return;
    put(fd, "OK 1\n", 5);
    if (guest->cut) { /* the guest has yet to hear that its connections are gone */
        guest->cut = false;
        return;
    }
    while (serve_frame(guest, fd))
        continue;
}

/* ---- Firecracker's API ---- */

/* `path` and body of a PUT or PATCH, or "" for GET /. */
static bool take_request(struct guest *guest, int fd, char path[static 64],
                         char body[static REQUEST_MAX])
{
    char head[REQUEST_MAX];
    path[0] = '\0';
    if (!take_until(guest, fd, head, sizeof(head), "\r\n\r\n"))
        return false;
    if (strncmp(head, "GET / ", 6) == 0)
        return true;
    CHECK(sscanf(head, "PUT %63s", path) == 1 || sscanf(head, "PATCH %63s", path) == 1);
    const char *length = strstr(head, "Content-Length: ");
    CHECK(length != NULL);
    size_t len = strtoul(length + strlen("Content-Length: "), NULL, 10);
    CHECK(len < REQUEST_MAX);
    body[len] = '\0';
    return take(guest, fd, body, len);
}

/* False: the connection is over. */
static bool say_alive(struct guest *guest, int fd)
{
    char body[64], text[160];
    guest->asked++;
    guest->dies = guest->plan.die == AT_ALIVE;
    if (guest->dies)
        return false;
    if (guest_moment(guest, AT_ALIVE))
        return true;
    snprintf(body, sizeof(body), "{\"id\":\"%s\",\"state\":\"%s\"}",
             guest->plan.lie == AT_ALIVE ? "another" : guest->instance,
             guest->paused ? "Paused" : "Running");
    snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s", strlen(body),
             body);
    put(fd, text, strlen(text));
    return true;
}

static const char done[] = "HTTP/1.1 204 No Content\r\n\r\n";
static const char refusal[] = "HTTP/1.1 400 Bad Request\r\nContent-Length: 28\r\n\r\n"
                              "{\"fault_message\":\"scripted\"}";

/* False: the connection is over. */
static bool pause_or_resume(struct guest *guest, int fd, const char *body)
{
    bool pause = strcmp(body, "{\"state\":\"Paused\"}") == 0;
    CHECK(pause || strcmp(body, "{\"state\":\"Resumed\"}") == 0);
    enum moment now = pause ? AT_PAUSE : AT_RESUME;
    guest->dies = guest->plan.die == now;
    if (guest->dies)
        return false;
    if (guest_moment(guest, now)) {
        put(fd, refusal, sizeof(refusal) - 1);
        return true;
    }
    guest->paused = pause;
    if (guest->plan.mute != now)
        put(fd, done, sizeof(done) - 1);
    return true;
}

/* False: the connection is over. */
static bool create_or_load(struct guest *guest, int fd, enum moment now, const char *body)
{
    CHECK(now == AT_LOAD || !guest->saved || strstr(body, "\"Full\"") != NULL);
    guest->saved |= now == AT_SAVE;
    if (guest_moment(guest, now)) {
        put(fd, refusal, sizeof(refusal) - 1);
        return true;
    }
    guest->dies = guest->plan.die == now;
    if (guest->dies)
        return false;
    CHECK(now == AT_LOAD ? guest->snapshot[0] != '\0'
                         : guest->paused && guest->phase == PHASE_STAGED);
    guest->cut |= now == AT_SAVE;
    if (guest->plan.mute != now)
        put(fd, done, sizeof(done) - 1);
    return true;
}

static bool serve_request(struct guest *guest, int fd)
{
    char path[64], body[REQUEST_MAX];
    if (!take_request(guest, fd, path, body))
        return false;
    if (path[0] == '\0')
        return say_alive(guest, fd);
    if (strcmp(path, "/vm") == 0)
        return pause_or_resume(guest, fd, body);
    if (strncmp(path, "/snapshot/", 10) == 0)
        return create_or_load(guest, fd, strcmp(path, "/snapshot/load") == 0 ? AT_LOAD : AT_SAVE,
                              body);
    enum moment now = strcmp(path, "/actions") == 0 ? AT_START : AT_PUT;
    bool last = strcmp(path, "/vsock") == 0 || now == AT_START;
    if (last && guest->plan.die == now)
        return false;
    if (last && guest_moment(guest, now)) {
        put(fd, refusal, sizeof(refusal) - 1);
        return true;
    }
    put(fd, done, sizeof(done) - 1);
    if (now == AT_START)
        say_hello(guest);
    return true;
}

/* True when the VMM is to end because of what the plan says. */
static bool serve_api(struct guest *guest)
{
    cleanup_close int fd = accept4(guest->api, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return false;
    guest->in_api = true;
    while (serve_request(guest, fd))
        continue;
    guest->in_api = false;
    return guest->plan.die == AT_PUT || guest->plan.die == AT_START || guest->dies;
}

/* ---- the VMM ---- */

static void *guest_main(void *context)
{
    struct guest *guest = context;
    for (bool over = false; !over;) {
        struct pollfd fds[] = {{.fd = guest->stop, .events = POLLIN},
                               {.fd = guest->api, .events = POLLIN},
                               {.fd = guest->paused ? -1 : guest->vsock, .events = POLLIN}};
        while (poll(fds, COUNT_OF(fds), -1) < 0)
            CHECK(errno == EINTR);
        if (fds[0].revents != 0)
            break;
        if (fds[1].revents != 0) {
            over = serve_api(guest);
        } else {
            serve_vsock(guest);
            over = guest->plan.die == AT_EXEC || guest->plan.die == AT_ASK || guest->dies;
        }
        if (guest->said >= 0 && guest->plan.die == AT_HELLO)
            over = true;
    }
    if (guest->said >= 0 && guest->plan.die == AT_HELLO)
        await(guest, guest->checked);
    cleanup_close_func(&guest->said);
    cleanup_close_func(&guest->api);
    cleanup_close_func(&guest->vsock);
    if (guest->plan.blocked != 0)
        dprintf(guest->log_end,
                "2026-11-26T14:14:29.734500777 [%s:fc_vcpu 0] Shutting down VM after intercepting "
                "a bad syscall (%d).\n",
                guest->instance, guest->plan.blocked);
    kill(guest->pid, SIGKILL);
    return NULL;
}

/* Without our output: it outlives a test that fails, and whoever reads that waits for its end. */
static pid_t sleeper(void)
{
    char *const argv[] = {(char[]){"sleep"}, (char[]){"300"}, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        CHECK(posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0) == 0);
    CHECK(posix_spawn(&pid, "/bin/sleep", &actions, NULL, argv, NULL) == 0);
    posix_spawn_file_actions_destroy(&actions);
    return pid;
}

void guest_launch(struct guest *guest)
{
    int ends[2];
    guest->pid = sleeper();
    guest->pidfd = (int)syscall(SYS_pidfd_open, guest->pid, 0);
    CHECK(guest->pidfd >= 0 && pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    guest->console = ends[0];
    guest->console_end = ends[1];
    CHECK(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    guest->log = ends[0];
    guest->log_end = ends[1];
    if (!guest->plan.speechless)
        CHECK(write(guest->console_end, "first words\n", 12) == 12);
    guest->paused = guest->snapshot[0] != '\0';
    guest->stop = eventfd(0, EFD_CLOEXEC);
    guest->checked = eventfd(0, EFD_CLOEXEC);
    guest->api = listen_at(guest, "api");
    guest->vsock = listen_at(guest, "vsock");
    guest->hello = listen_at(guest, "hello");
    CHECK(pthread_create(&guest->thread, NULL, guest_main, guest) == 0);
}

void guest_die(struct guest *guest)
{
    struct pollfd p = {.fd = guest->pidfd, .events = POLLIN};
    eventfd_write(guest->stop, 1);
    while (poll(&p, 1, -1) < 0)
        CHECK(errno == EINTR);
}

int guest_reap(struct guest *guest)
{
    static const char *const names[] = {"api", "vsock", "hello"};
    char path[108];
    int status = 0;
    eventfd_write(guest->stop, 1);
    CHECK(pthread_join(guest->thread, NULL) == 0);
    CHECK(waitpid(guest->pid, &status, 0) == guest->pid);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        guest_path(guest, names[i], path);
        unlink(path);
    }
    close(guest->pidfd);
    close(guest->console);
    close(guest->console_end);
    close(guest->log);
    close(guest->log_end);
    close(guest->stop);
    close(guest->checked);
    return status;
}
