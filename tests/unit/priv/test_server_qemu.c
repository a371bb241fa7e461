/* QEMU's jail: started stopped (-S), so any ELF serves as its kernel. */
#include "bench.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

static void greet(int socket_path)
{
    char text[512];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", socket_path);
    cleanup_close int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0, "%m");
    struct pollfd p = {.fd = fd, .events = POLLIN};
    cr_assert_eq(poll(&p, 1, PATIENCE_MS), 1);
    ssize_t n = recv(fd, text, sizeof(text) - 1, 0);
    cr_assert_gt(n, 0);
    text[n] = '\0';
    cr_assert_not_null(strstr(text, "QMP"), "%s", text);
}

Test(priv_server, R26_qemu_runs_jailed_and_passes_the_check, .timeout = 60)
{
    struct bench bench;
    struct bench_vm vm;
    struct stat st;
    struct error err = {0};
    char path[64], traces[128];
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
    bench_reserve(&bench, &vm);
    struct priv_shape shape = BENCH_SHAPE;
    shape.disk_mib = 16;
    bench_guard(&bench, &vm, &shape);
    bench_launch(&bench, &vm);
    cr_assert_eq(vm.launched.hello, -1);
    cleanup_close int api = priv_open(bench.client, vm.instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(api, 0, "%s", err.msg);
    greet(api);
    for (uint32_t i = 0; i < 8; i++) {
        cleanup_close int port = priv_open(bench.client, vm.instance, PRIV_SOCKET_PORT, i, &err);
        cr_assert_geq(port, 0, "port %u: %s", i, err.msg);
        cr_assert(fstat(port, &st) == 0 && (st.st_mode & 0777) == 0660 &&
                  st.st_gid == bench.config.front_gid && st.st_uid == vm.uid);
    }
    cr_assert_eq(priv_open(bench.client, vm.instance, PRIV_SOCKET_PORT, 8, &err), -1);
    cr_assert_eq(err.code, ERR_PRIV_REFUSED);
    err = (struct error){0};
    cr_assert_eq(priv_check(bench.client, vm.instance, &err), 0, "%s", err.msg);
    snprintf(path, sizeof(path), "/proc/%d/root/home", (int)bench_pid(&vm));
    cr_assert_eq(access(path, F_OK), -1, "the jail shows the host's /home");
    bench_kill(&bench, &vm, NULL);
    bench_traces(&bench, vm.instance, traces, sizeof(traces));
    cr_assert_str_eq(traces, "");
    bench_close(&bench);
}
