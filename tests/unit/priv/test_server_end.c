/* How the root half tells a VMM's end: its own log, which no guest can write, and its status. */
#include "bench.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* What is in a pipe now. */
static void read_all(int fd, char *out, size_t size)
{
    ssize_t n = read(fd, out, size - 1);
    out[n > 0 ? n : 0] = '\0';
}

Test(priv_server, R24_the_vmms_log_is_apart_from_the_guests_console, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    static char console[65536], log[65536];
    char head[64];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    read_all(vm.launched.console, console, sizeof(console));
    read_all(vm.launched.log, log, sizeof(log));
    snprintf(head, sizeof(head), "[%s:main] ", vm.instance);
    cr_assert_not_null(strstr(log, head), "%s", log);
    cr_assert_null(strstr(console, head), "%s", console);
    bench_kill(&bench, &vm, NULL);
    bench_close(&bench);
}

/* Removed with the other's, which is waited for, it would not be there any more. */
Test(priv_server, R20_a_chain_goes_after_all_else_of_its_instance, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm, other;
    struct error err = {0};
    char record[128], traces[128];
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_reserve(&bench, &other);
    bench_guard(&bench, &other, &BENCH_SHAPE);
    snprintf(record, sizeof(record), "%s/priv/%s", bench.run, vm.instance);
    cr_assert(unlink(record) == 0 && mkdir(record, 0700) == 0);
    cr_assert_eq(priv_kill(bench.client, vm.instance, NULL, &err), -1);
    bench_kill(&bench, &other, NULL);
    bench_traces(&bench, other.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "chain record ");
    cr_assert_eq(rmdir(record), 0);
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}

Test(priv_server, R24_a_kill_that_failed_later_on_keeps_the_status_for_the_next, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct priv_killed killed;
    struct error err = {0};
    bench_init(&bench);
    bench_serve(&bench, false);
    bench_up(&bench, &vm);
    bench_die(&vm);
    /* A directory in the record's place: the last thing that a KILL does fails. */
    char record[128];
    snprintf(record, sizeof(record), "%s/priv/%s", bench.run, vm.instance);
    cr_assert(unlink(record) == 0 && mkdir(record, 0700) == 0);
    cr_assert_eq(priv_kill(bench.client, vm.instance, NULL, &err), -1);
    cr_assert_eq(err.code, ERR_SYSTEM, "%s", err.msg);
    cr_assert_eq(rmdir(record), 0);
    bench_kill(&bench, &vm, &killed);
    cr_assert_not(killed.was_running);
    cr_assert(killed.has_status && WIFSIGNALED(killed.status) &&
              WTERMSIG(killed.status) == SIGKILL);
    bench_close(&bench);
}
