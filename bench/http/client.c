/*
 * bench_client SOCKET: what a user of an HTTP service on a Unix socket waits for. Reads commands from
 * its standard input and answers each with some lines and `ready`:
 *
 *   spawn N TAG MEMORY       POST /vms for TAG-0 … TAG-(N-1), all at once, connecting included:
 *                            `vm MICROSECONDS` each, `wall MICROSECONDS`
 *   restore N TAG SNAPSHOT   the same from a snapshot
 *   delete N TAG             DELETE each, one after the other
 *   remove I TAG             DELETE TAG-I
 *   exec ID N                N times `true` on one connection: `exec MICROSECONDS FRAMES` each, FRAMES
 *                            being the milliseconds from its first frame to its last, as the
 *                            answer says
 *   first ID MEMORY          POST /vms and `true` in it on one connection, connecting included:
 *                            `first MICROSECONDS MICROSECONDS FRAMES` until the first answer and the
 *                            second
 *   raw PATH N               as exec, without FRAMES, on one connection to the agent behind PATH, Firecracker's vsock
 *   load TARGET N MS PID     GET on N connections for that long: `load REQUESTS MICROSECONDS CPU`,
 *                            CPU being the microseconds that process PID worked meanwhile
 */
#include "bench/common/bench.h"
#include "vsock/wire.h"

#include <pthread.h>
#include <sys/socket.h>
#include <time.h>

#define SPAWN_BODY "{\"id\":\"%s\",\"vcpus\":1,\"memory_mib\":%u,\"disk_mib\":0}"
#define TRUE_BODY "{\"argv\":[\"true\"]}"

enum { AT_ONCE_MAX = 64 };

struct task {
    const char *socket, *target, *tag, *snapshot;
    unsigned number, memory_mib;
    double until_ns; /* load: set before the barrier opens */
    pthread_barrier_t *barrier;
    pthread_t thread;
    double us, end_ns;
    unsigned long done;
    struct bench_http http;
};

/* Starts `count` threads, lets them go at once, waits. Returns microseconds. */
static double at_once(struct task *tasks, unsigned count, void *(*run)(void *))
{
    pthread_barrier_t barrier;
    double end_ns = 0;
    pthread_barrier_init(&barrier, NULL, count + 1);
    for (unsigned i = 0; i < count; i++) {
        tasks[i].number = i;
        tasks[i].barrier = &barrier;
        bench_must(pthread_create(&tasks[i].thread, NULL, run, &tasks[i]) == 0, "a thread");
    }
    double begin_ns = bench_now_ns();
    pthread_barrier_wait(&barrier);
    for (unsigned i = 0; i < count; i++) {
        pthread_join(tasks[i].thread, NULL);
        end_ns = tasks[i].end_ns > end_ns ? tasks[i].end_ns : end_ns;
    }
    pthread_barrier_destroy(&barrier);
    return (end_ns - begin_ns) / 1e3;
}

/* ---- spawn, delete ----------------------------------------------------------------------------- */

static void *spawn(void *context)
{
    struct task *task = context;
    char body[256], id[80];
    snprintf(id, sizeof(id), "%.64s-%u", task->tag, task->number);
    if (task->snapshot != NULL)
        snprintf(body, sizeof(body), "{\"id\":\"%s\",\"snapshot\":\"%s\"}", id, task->snapshot);
    else
        snprintf(body, sizeof(body), SPAWN_BODY, id, task->memory_mib);
    pthread_barrier_wait(task->barrier);
    double begin_ns = bench_now_ns();
    bench_http_open(&task->http, task->socket);
    int status = bench_http_call(&task->http, "POST", "/vms", body);
    task->end_ns = bench_now_ns();
    task->us = (task->end_ns - begin_ns) / 1e3;
    bench_must(status == 201, task->http.text);
    close(task->http.fd);
    return NULL;
}

static void spawn_all(struct task *tasks, unsigned count, const char *tag, unsigned memory_mib,
                      const char *snapshot)
{
    for (unsigned i = 0; i < count; i++) {
        tasks[i].tag = tag;
        tasks[i].snapshot = snapshot;
        tasks[i].memory_mib = memory_mib;
    }
    double wall = at_once(tasks, count, spawn);
    for (unsigned i = 0; i < count; i++)
        printf("vm %.1f\n", tasks[i].us);
    printf("wall %.1f\n", wall);
}

static void delete_some(struct bench_http *http, const char *socket, unsigned from, unsigned to,
                        const char *tag)
{
    bench_http_open(http, socket);
    for (unsigned i = from; i < to; i++) {
        char target[128];
        snprintf(target, sizeof(target), "/vms/%.64s-%u", tag, i);
        bench_must(bench_http_call(http, "DELETE", target, NULL) == 204, http->text);
    }
    close(http->fd);
}

/* ---- exec ---------------------------------------------------------------------------------------- */

/* What an exec's answer says of it. */
static unsigned long frames_ms(const struct bench_http *http)
{
    static const char name[] = "\"duration_ms\":";
    const char *at = strstr(http->text, name);
    bench_must(at != NULL && strstr(http->text, "\"exit_code\":0") != NULL, http->text);
    return strtoul(at + strlen(name), NULL, 10);
}

static void exec_all(struct bench_http *http, const char *socket, const char *id, unsigned count)
{
    char target[128];
    snprintf(target, sizeof(target), "/vms/%.64s/exec", id);
    bench_http_open(http, socket);
    for (unsigned i = 0; i < count; i++) {
        double begin_ns = bench_now_ns();
        int status = bench_http_call(http, "POST", target, TRUE_BODY);
        double us = (bench_now_ns() - begin_ns) / 1e3;
        bench_must(status == 200, http->text);
        printf("exec %.1f %lu\n", us, frames_ms(http));
    }
    close(http->fd);
}

static void first_command(struct bench_http *http, const char *socket, const char *id,
                          unsigned memory_mib)
{
    char body[256], target[128];
    snprintf(body, sizeof(body), SPAWN_BODY, id, memory_mib);
    snprintf(target, sizeof(target), "/vms/%.64s/exec", id);
    double begin_ns = bench_now_ns();
    bench_http_open(http, socket);
    int status = bench_http_call(http, "POST", "/vms", body);
    double claimed_ns = bench_now_ns();
    bench_must(status == 201, http->text);
    status = bench_http_call(http, "POST", target, TRUE_BODY);
    double end_ns = bench_now_ns();
    bench_must(status == 200, http->text);
    printf("first %.1f %.1f %lu\n", (claimed_ns - begin_ns) / 1e3, (end_ns - begin_ns) / 1e3,
           frames_ms(http));
    close(http->fd);
}

static void read_frame(int fd, char text[static 4096])
{
    uint8_t header[WIRE_HEADER_SIZE];
    bench_must(recv(fd, header, sizeof(header), MSG_WAITALL) == WIRE_HEADER_SIZE, "a frame");
    size_t len = (size_t)header[2] << 8 | header[3];
    bench_must(len < 4096 && recv(fd, text, len, MSG_WAITALL) == (ssize_t)len, "a frame");
    text[len] = '\0';
}

/* The frames that a command without input or output takes: the request, its acceptance, its end. */
static void raw_exec(int fd, unsigned id)
{
    char text[4096];
    int len = snprintf(text + WIRE_HEADER_SIZE, 256,
                       "J{\"id\":%u,\"op\":\"exec\",\"timeout_ms\":10000,\"stdin\":false,"
                       "\"argv\":[\"true\"]}",
                       id);
    text[0] = text[1] = text[2] = 0;
    text[3] = (char)len;
    ssize_t whole = len + WIRE_HEADER_SIZE;
    bench_must(send(fd, text, (size_t)whole, MSG_NOSIGNAL) == whole, "a frame");
    read_frame(fd, text);
    bench_must(strstr(text, "\"ok\":true") != NULL, text);
    read_frame(fd, text);
    bench_must(strstr(text, "\"op\":\"exit\"") != NULL, text);
}

static void raw_all(const char *path, unsigned count)
{
    char answer[32] = "", ask[32];
    cleanup_close int fd = bench_connect(path);
    int len = snprintf(ask, sizeof(ask), "CONNECT %d\n", WIRE_PORT_SERVICE);
    bench_must(send(fd, ask, (size_t)len, MSG_NOSIGNAL) == len &&
                   recv(fd, answer, sizeof(answer) - 1, 0) > 3 && strncmp(answer, "OK ", 3) == 0,
               "connecting to the agent");
    for (unsigned id = 1; id <= count; id++) {
        double begin_ns = bench_now_ns();
        raw_exec(fd, id);
        printf("exec %.1f\n", (bench_now_ns() - begin_ns) / 1e3);
    }
}

/* ---- load ---------------------------------------------------------------------------------------- */

static void *load(void *context)
{
    struct task *task = context;
    bench_http_open(&task->http, task->socket);
    pthread_barrier_wait(task->barrier);
    for (task->done = 0; task->end_ns < task->until_ns; task->done++) {
        bench_must(bench_http_call(&task->http, "GET", task->target, NULL) == 200, task->http.text);
        task->end_ns = bench_now_ns();
    }
    close(task->http.fd);
    return NULL;
}

static double cpu_us(clockid_t clock)
{
    struct timespec used;
    bench_must(clock_gettime(clock, &used) == 0, "a process's clock");
    return (double)used.tv_sec * 1e6 + (double)used.tv_nsec / 1e3;
}

static void load_all(struct task *tasks, unsigned count, const char *target, unsigned ms, pid_t pid)
{
    clockid_t clock;
    unsigned long done = 0;
    bench_must(clock_getcpuclockid(pid, &clock) == 0, "a process's clock");
    for (unsigned i = 0; i < count; i++) {
        tasks[i].target = target;
        tasks[i].end_ns = 0;
        tasks[i].until_ns = bench_now_ns() + ms * 1e6;
    }
    double before = cpu_us(clock);
    double wall = at_once(tasks, count, load);
    double used = cpu_us(clock) - before;
    for (unsigned i = 0; i < count; i++)
        done += tasks[i].done;
    printf("load %lu %.1f %.1f\n", done, wall, used);
}

/* ---- commands ------------------------------------------------------------------------------------ */

static unsigned number(const char *text)
{
    return text == NULL ? 0 : (unsigned)strtoul(text, NULL, 10);
}

struct command {
    const char *what, *words[4]; /* NULL: not said */
    unsigned first, second, third;
};

/* False: none of these. */
static bool run_vms(struct task tasks[AT_ONCE_MAX], const char *socket, const struct command *said)
{
    if (strcmp(said->what, "spawn") == 0 && said->first <= AT_ONCE_MAX)
        spawn_all(tasks, said->first, said->words[1], said->third, NULL);
    else if (strcmp(said->what, "restore") == 0 && said->first <= AT_ONCE_MAX &&
             said->words[2] != NULL)
        spawn_all(tasks, said->first, said->words[1], 0, said->words[2]);
    else if (strcmp(said->what, "delete") == 0)
        delete_some(&tasks[0].http, socket, 0, said->first, said->words[1]);
    else if (strcmp(said->what, "remove") == 0)
        delete_some(&tasks[0].http, socket, said->first, said->first + 1, said->words[1]);
    else
        return false;
    return true;
}

static bool run_calls(struct task tasks[AT_ONCE_MAX], const char *socket,
                      const struct command *said)
{
    if (strcmp(said->what, "exec") == 0)
        exec_all(&tasks[0].http, socket, said->words[0], said->second);
    else if (strcmp(said->what, "first") == 0)
        first_command(&tasks[0].http, socket, said->words[0], said->second);
    else if (strcmp(said->what, "raw") == 0)
        raw_all(said->words[0], said->second);
    else if (strcmp(said->what, "load") == 0 && said->second <= AT_ONCE_MAX)
        load_all(tasks, said->second, said->words[0], said->third, (pid_t)number(said->words[3]));
    else
        return false;
    return true;
}

static bool run(struct task tasks[AT_ONCE_MAX], const char *socket, char *line)
{
    struct command said = {.what = strsep(&line, " ")};
    for (size_t i = 0; i < COUNT_OF(said.words); i++)
        said.words[i] = strsep(&line, " ");
    if (said.words[1] == NULL)
        return false;
    said.first = number(said.words[0]);
    said.second = number(said.words[1]);
    said.third = number(said.words[2]);
    for (size_t i = 0; i < AT_ONCE_MAX; i++)
        tasks[i].socket = socket;
    return run_vms(tasks, socket, &said) || run_calls(tasks, socket, &said);
}

int main(int argc, char **argv)
{
    static struct task tasks[AT_ONCE_MAX];
    char line[BENCH_LINE_MAX];
    while (argc == 2 && bench_command(line)) {
        if (!run(tasks, argv[1], line))
            return 2;
        puts("ready");
        fflush(stdout);
    }
    return argc == 2 ? 0 : 2;
}
