/* Snapshots by motted itself, confined as it is, and killed as it can be. */
#include "daemon.h"
#include "snapshots.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

/* Made by one motted, restored by the next. */
Test(motted, R21_a_confined_root_half_makes_and_restores_snapshots, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_published made = {0};
    char text[8192], traces[128];
    bench_init(&bench);
    for (int round = 0; round < 2; round++) {
        struct daemon daemon;
        struct error err = {0};
        daemon_usual(&daemon, &bench);
        daemon_start(&daemon);
        int channel = daemon_connect(&bench, text, sizeof(text));
        cr_assert_eq(priv_client_new(channel, &bench.client, &err), 0, "%s", err.msg);
        if (round == 0) {
            snapshot_up(&bench, &vm);
            snapshot_make(&bench, &vm, &made);
        } else {
            snapshot_restore(&bench, &vm, made.snapshot);
            cr_assert_eq(priv_forget_snapshot(bench.client, made.snapshot, &err), 0);
        }
        bench_kill(&bench, &vm, NULL);
        priv_client_free(bench.client);
        bench.client = NULL;
        kill(daemon.pid, SIGTERM);
        cr_assert_eq(daemon_wait(&daemon, text, sizeof(text)), 0, "%s", text);
    }
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    snapshot_rest(&bench, text, sizeof(text));
    cr_assert_str_eq(text, "");
    bench_close(&bench);
}

/* ---- kill -9 at any moment ---- */

enum { KILLS = 16 };

struct making {
    struct bench *bench;
    const struct bench_vm *vm;
    pthread_t thread;
    double ms;
};

/* Until something fails: the root half may go at any moment. */
static void *make(void *context)
{
    struct making *making = context;
    struct priv_client *client = making->bench->client;
    const char *instance = making->vm->instance;
    struct priv_published made;
    struct error err = {0};
    int64_t start = clock_mono_us();
    (void)(priv_stage(client, instance, &err) == 0 && snapshot_write(making->vm) == 204 &&
           priv_capture(client, instance, &err) == 0 &&
           priv_publish(client, instance, &made, &err) == 0);
    making->ms = (double)(clock_mono_us() - start) / 1000;
    return NULL;
}

static pid_t begin(struct daemon *daemon, struct bench *bench)
{
    char text[8192];
    struct error err = {0};
    daemon_usual(daemon, bench);
    daemon_start(daemon);
    int channel = daemon_connect(bench, text, sizeof(text));
    cr_assert_eq(priv_client_new(channel, &bench->client, &err), 0, "%s", err.msg);
    return (pid_t)strtol(priv_proc_field(text, "Pid"), NULL, 10);
}

static void end(struct daemon *daemon, struct bench *bench, pid_t front)
{
    char text[8192];
    kill(daemon->pid, SIGKILL);
    kill(front, SIGKILL);
    cr_assert_eq(daemon_wait(daemon, text, sizeof(text)), 256);
    priv_client_free(bench->client);
    bench->client = NULL;
}

/* All that are listed are whole; how many there are, and the last one's id. */
static size_t list(const struct bench *bench, char last[static ID_INSTANCE_SIZE])
{
    struct priv_snapshot at = {0};
    struct error err = {0};
    size_t count = 0;
    for (;; count++) {
        cr_assert_eq(priv_snapshots(bench->client, count == 0 ? NULL : last, &at, &err), 0);
        cr_assert_eq(at.code, ERR_NONE, "%s", at.snapshot);
        if (at.snapshot[0] == '\0')
            return count;
        memcpy(last, at.snapshot, ID_INSTANCE_SIZE);
    }
}

/* The VM is as it was, but for being paused, and nothing of the snapshot is there or all of it. */
static void assert_whole(struct bench *bench, const struct bench_vm *vm)
{
    struct error err = {0};
    char rest[320];
    snapshot_rest(bench, rest, sizeof(rest));
    cr_assert_str_eq(rest, "");
    cr_assert_eq(priv_check(bench->client, vm->instance, &err), 0, "%s", err.msg);
    snapshot_resume(vm);
    snapshot_assert_alive(bench, vm);
}

Test(motted, R20_R02_a_kill_at_any_moment_leaves_whole_snapshots_or_nothing, .timeout = 180)
{
    struct bench bench;
    struct bench_vm vm, restored;
    struct daemon daemon;
    struct making making = {.bench = &bench, .vm = &vm};
    char last[ID_INSTANCE_SIZE] = "", traces[128];
    bench_init(&bench);
    pid_t front = begin(&daemon, &bench);
    snapshot_up(&bench, &vm);
    snapshot_pause(&vm);
    make(&making); /* as long as one takes */
    cr_assert_eq(list(&bench, last), 1u);
    const double whole_ms = making.ms;
    for (int i = 0; i < KILLS; i++) {
        assert_whole(&bench, &vm);
        snapshot_pause(&vm);
        cr_assert_eq(pthread_create(&making.thread, NULL, make, &making), 0);
        const double ms = whole_ms * i / KILLS;
        nanosleep(&(struct timespec){(time_t)(ms / 1000), (long)(ms * 1e6) % 1000000000}, NULL);
        kill(daemon.pid, SIGKILL);
        cr_assert_eq(pthread_join(making.thread, NULL), 0);
        end(&daemon, &bench, front);
        front = begin(&daemon, &bench);
    }
    assert_whole(&bench, &vm);
    bench_kill(&bench, &vm, NULL);
    for (size_t left = list(&bench, last); left > 0; left = list(&bench, last)) {
        struct error err = {0};
        snapshot_restore(&bench, &restored, last);
        bench_kill(&bench, &restored, NULL);
        cr_assert_eq(priv_forget_snapshot(bench.client, last, &err), 0, "%s", err.msg);
    }
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    end(&daemon, &bench, front);
    bench_close(&bench);
}
