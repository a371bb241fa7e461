/* See snapshots.h. */
#include "snapshots.h"

#include "vsock/vsock.h"
#include "vsock/wire.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

static void must(int result, const char *what, const struct error *err)
{
    if (result >= 0)
        return;
    fprintf(stderr, "%s: %s: %s\n", what, error_code_name(err->code), err->msg);
    exit(1);
}

static void open_api(struct bench *bench, struct bench_vm *vm)
{
    struct error err = {0};
    vm->api = priv_open(bench->client, vm->instance, PRIV_SOCKET_API, 0, &err);
    must(vm->api, "open the API", &err);
}

static void await_hello(struct bench_vm *vm)
{
    struct pollfd p = {.fd = vm->launched.hello, .events = POLLIN};
    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
    cleanup_close_func(&vm->guest);
    vm->guest = accept4(vm->launched.hello, NULL, NULL, SOCK_CLOEXEC);
    CHECK(vm->guest >= 0);
}

void snapshot_guarded(struct bench *bench, struct bench_vm *vm)
{
    bench_reserve(bench, vm);
    bench_guard(bench, vm, &SNAPSHOT_SHAPE);
}

void snapshot_up(struct bench *bench, struct bench_vm *vm)
{
    static const char *const calls[][2] = {
        {"/machine-config", "{\"vcpu_count\":1,\"mem_size_mib\":128,"
                            "\"track_dirty_pages\":true}"},
        {"/boot-source", "{\"kernel_image_path\":\"/kernel\"}"},
        {"/drives/disk",
         "{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":true,"
         "\"is_read_only\":true}"},
        {"/drives/scratch", "{\"drive_id\":\"scratch\",\"path_on_host\":\"/scratch\","
                            "\"is_root_device\":false,\"is_read_only\":false}"},
        {"/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v.sock\"}"},
        {"/actions", "{\"action_type\":\"InstanceStart\"}"}};
    snapshot_guarded(bench, vm);
    bench_launch(bench, vm);
    open_api(bench, vm);
    for (size_t i = 0; i < COUNT_OF(calls); i++)
        CHECK(bench_api(vm->api, "PUT", calls[i][0], calls[i][1]) == 204);
    await_hello(vm);
}

void snapshot_pause(const struct bench_vm *vm)
{
    CHECK(bench_api(vm->api, "PATCH", "/vm", "{\"state\":\"Paused\"}") == 204);
}

void snapshot_resume(const struct bench_vm *vm)
{
    CHECK(bench_api(vm->api, "PATCH", "/vm", "{\"state\":\"Resumed\"}") == 204);
}

int snapshot_write_as(const struct bench_vm *vm, const char *type)
{
    char body[256];
    snprintf(body, sizeof(body),
             "{\"snapshot_type\":\"%s\",\"snapshot_path\":\"" PRIV_PLACE_STATE "\","
             "\"mem_file_path\":\"" PRIV_PLACE_MEMORY "\"}",
             type);
    return bench_api(vm->api, "PUT", "/snapshot/create", body);
}

int snapshot_write(const struct bench_vm *vm)
{
    return snapshot_write_as(vm, "Full");
}

void snapshot_make(struct bench *bench, const struct bench_vm *vm, struct priv_published *ret)
{
    struct error err = {0};
    snapshot_pause(vm);
    must(priv_stage(bench->client, vm->instance, &err), "stage", &err);
    CHECK(snapshot_write(vm) == 204);
    must(priv_capture(bench->client, vm->instance, &err), "capture", &err);
    snapshot_resume(vm);
    must(priv_publish(bench->client, vm->instance, ret, &err), "publish", &err);
}

enum error_code snapshot_launch(struct bench *bench, struct bench_vm *vm, const char *snapshot)
{
    struct error err = {0};
    if (priv_launch_snapshot(bench->client, vm->instance, bench->image, snapshot, &vm->launched,
                             &err) < 0) {
        fprintf(stderr, "launch: %s: %s\n", error_code_name(err.code), err.msg);
        return err.code;
    }
    return ERR_NONE;
}

/* It says hello when it has begun anew as that. */
static void tell_who_it_is(struct bench *bench, const struct bench_vm *vm)
{
    const struct vsock_restore_request request = {
        .instance = vm->instance,
        .generation = vm->launched.generation,
        .hostname = vm->instance,
        .machine_id = "0123456789abcdef0123456789abcdef",
    };
    struct vsock_restored restored;
    struct error err = {0};
    cleanup_close int path = priv_open(bench->client, vm->instance, PRIV_SOCKET_VSOCK, 0, &err);
    must(path, "open vsock", &err);
    must(vsock_restore_hybrid(path, &request, -1, clock_mono_ms() + PATIENCE_MS, &restored, &err),
         "restore", &err);
}

void snapshot_restore(struct bench *bench, struct bench_vm *vm, const char *snapshot)
{
    struct error err = {0};
    snapshot_guarded(bench, vm);
    CHECK(snapshot_launch(bench, vm, snapshot) == ERR_NONE);
    open_api(bench, vm);
    CHECK(bench_api(vm->api, "PUT", "/snapshot/load",
                    "{\"snapshot_path\":\"" PRIV_RESTORE_STATE "\",\"mem_backend\":{"
                    "\"backend_type\":\"File\",\"backend_path\":\"" PRIV_RESTORE_MEMORY "\"},"
                    "\"enable_diff_snapshots\":true,\"resume_vm\":false}") == 204);
    /* The load's answer waits for no vCPU thread, this one's does: then each has its filter. */
    snapshot_pause(vm);
    must(priv_check(bench->client, vm->instance, &err), "check", &err);
    snapshot_resume(vm);
    tell_who_it_is(bench, vm);
    await_hello(vm);
}

void snapshot_assert_alive(struct bench *bench, const struct bench_vm *vm)
{
    enum { ANSWER = 3 }; /* "OK " */
    char answer[32], ask[32];
    struct error err = {0};
    cleanup_close int path = priv_open(bench->client, vm->instance, PRIV_SOCKET_VSOCK, 0, &err);
    must(path, "open vsock", &err);
    cleanup_close int fd = bench_connect(path);
    int len = snprintf(ask, sizeof(ask), "CONNECT %d\n", WIRE_PORT_SERVICE);
    CHECK(send(fd, ask, (size_t)len, MSG_NOSIGNAL) == len);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    CHECK(poll(&p, 1, PATIENCE_MS) == 1);
    CHECK(recv(fd, answer, sizeof(answer) - 1, 0) > ANSWER && strncmp(answer, "OK ", ANSWER) == 0);
}

static void first_entry(const struct bench *bench, const char *folder, bool hidden, char *out,
                        size_t size)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/%s", bench->state, folder);
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        bool self = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        if (!self && (!hidden || entry->d_name[0] == '.'))
            snprintf(out, size, "%s/%s", folder, entry->d_name);
    }
    closedir(dir);
}

void snapshot_rest(const struct bench *bench, char *out, size_t size)
{
    out[0] = '\0';
    first_entry(bench, "staging", false, out, size);
    first_entry(bench, "snapshots", true, out, size);
}

void snapshot_place(const struct bench_vm *vm, const char *name, char *out, size_t size)
{
    snprintf(out, size, "/proc/%d/root%s", (int)bench_pid(vm), name);
}
