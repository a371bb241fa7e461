/* Firecracker's API, called as Motte calls it. */
#include "bench/floor/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/inotify.h>

/* The node of a socket that the VMM binds; bench_connect() waits until it listens. To close an
 * inotify instance takes the kernel many milliseconds: later. */
void floor_wait_for_node(struct floor_vm *vm, const char *name)
{
    char path[64], events[1024];
    const char *base = strrchr(name, '/');
    int folder = base == NULL ? 0 : (int)(base - name);
    if (vm->notify < 0) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d/%.*s", vm->root, folder, name);
        vm->notify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        bench_must(vm->notify >= 0 && inotify_add_watch(vm->notify, path, IN_CREATE) >= 0,
                   "watching a jail");
    }
    while (faccessat(vm->root, name, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        struct pollfd fds[] = {{.fd = vm->notify, .events = POLLIN},
                               {.fd = vm->pidfd, .events = POLLIN}};
        bench_must(errno == ENOENT && poll(fds, COUNT_OF(fds), 10000) > 0, name);
        bench_must(fds[1].revents == 0, "the VMM has ended");
        (void)!read(vm->notify, events, sizeof(events));
    }
}

static void put(struct floor_vm *vm, const char *target, const char *body)
{
    bench_must(bench_http_call(&vm->api, "PUT", target, body) == 204, target);
}

static void open_api(struct floor_vm *vm)
{
    char path[48];
    floor_wait_for_node(vm, "api.sock");
    snprintf(path, sizeof(path), "/proc/self/fd/%d/api.sock", vm->root);
    bench_http_open(&vm->api, path);
}

static void close_api(struct floor_vm *vm)
{
    close(vm->api.fd);
    vm->api.fd = -1;
}

void floor_configure(struct floor_vm *vm)
{
    char body[1024];
    open_api(vm);
    snprintf(body, sizeof(body),
             "{\"vcpu_count\":1,\"mem_size_mib\":%u,\"smt\":false,\"track_dirty_pages\":%s}",
             vm->floor->memory_mib, vm->floor->guarded ? "true" : "false");
    put(vm, "/machine-config", body);
    snprintf(body, sizeof(body),
             "{\"kernel_image_path\":\"/kernel\",\"boot_args\":\"console=ttyS0 reboot=k panic=-1 "
             "pci=off quiet loglevel=1 i8042.noaux i8042.nomux i8042.nopnp i8042.dumbkbd "
             "motte.instance=%s\"}",
             vm->slot.instance);
    put(vm, "/boot-source", body);
    put(vm, "/drives/disk",
        "{\"drive_id\":\"disk\",\"path_on_host\":\"/disk\",\"is_root_device\":false,"
        "\"is_read_only\":true}");
    put(vm, "/vsock", "{\"guest_cid\":3,\"uds_path\":\"/v.sock\"}");
    put(vm, "/entropy", "{}");
}

void floor_start(struct floor_vm *vm)
{
    put(vm, "/actions", "{\"action_type\":\"InstanceStart\"}");
    close_api(vm);
}

static void set_state(struct floor_vm *vm, const char *body)
{
    bench_must(bench_http_call(&vm->api, "PATCH", "/vm", body) == 204, body);
}

/* Its answer comes before all threads have their filters, which what stands waits for. */
void floor_load(struct floor_vm *vm)
{
    open_api(vm);
    put(vm, "/snapshot/load",
        "{\"snapshot_path\":\"/restore.state\",\"mem_backend\":{\"backend_type\":\"File\","
        "\"backend_path\":\"/restore.memory\"},\"enable_diff_snapshots\":true,"
        "\"resume_vm\":false}");
    set_state(vm, "{\"state\":\"Paused\"}");
}

void floor_resume(struct floor_vm *vm)
{
    set_state(vm, "{\"state\":\"Resumed\"}");
    close_api(vm);
}
