/* Templates: a QEMU whose memory is a file, what is kept of it, and QEMUs that begin with the very same
 * memory. They write and read their devices as they do for the front; no guest runs, its memory has
 * marks that are written behind its back. */
#include "break_out.h"
#include "priv/snapshot_internal.h"
#include "report.h"
#include "snapshots.h"
#include "tools.h"
#include "vmm/internal.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { MARK_AT = 64 << 20 };

static struct bench bench;

static void begin(void)
{
    bench_init(&bench);
    bench.config.hypervisor = PRIV_QEMU;
    bench.config.emulated = true;
    bench_serve(&bench, false);
}

static void open_api(struct bench_vm *vm)
{
    struct error err = {0};
    vm->api = priv_open(bench.client, vm->instance, PRIV_SOCKET_API, 0, &err);
    cr_assert_geq(vm->api, 0, "%s", err.msg);
}

static void up(struct bench_vm *vm)
{
    struct error err = {0};
    snapshot_guarded(&bench, vm);
    cr_assert_eq(priv_launch_template(bench.client, vm->instance, bench.image, &vm->launched, &err),
                 0, "%s", err.msg);
    cr_assert(vm->launched.apart && vm->launched.generation == 0);
    open_api(vm);
}

static struct priv_instance_slot *slot_of(const struct bench_vm *vm)
{
    struct priv_instance_slot *slot = priv_slot_find(bench.server, vm->instance);
    cr_assert_not_null(slot);
    return slot;
}

static void stage(const struct bench_vm *vm)
{
    struct error err = {0};
    cr_assert_eq(pwrite(slot_of(vm)->memory, "mark", 4, MARK_AT), 4, "%m");
    cr_assert_eq(priv_stage(bench.client, vm->instance, &err), 0, "%s", err.msg);
    cleanup_close int file = priv_open(bench.client, vm->instance, PRIV_SOCKET_STAGED, 0, &err);
    cr_assert_geq(file, 0, "%s", err.msg);
    cr_assert_eq(vmm_qmp_save(vm->api, file, true, PATIENCE_MS, &err), 0, "%s", err.msg);
}

static void make(struct priv_published *ret)
{
    struct bench_vm vm;
    struct error err = {0};
    up(&vm);
    stage(&vm);
    cr_assert_eq(priv_capture(bench.client, vm.instance, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_publish(bench.client, vm.instance, ret, &err), 0, "%s", err.msg);
    cr_assert_eq(pwrite(slot_of(&vm)->memory, "lies", 4, MARK_AT), 4, "it is none of the clones'");
    bench_kill(&bench, &vm, NULL);
}

static void published(const struct priv_published *made, const char *name, char out[static 192])
{
    snprintf(out, 192, "%s/snapshots/%s/%s", bench.state, made->snapshot, name);
}

/* Launched, loaded; its guest stands. */
static void restore(struct bench_vm *vm, const struct priv_published *made)
{
    struct error err = {0};
    snapshot_guarded(&bench, vm);
    cr_assert_eq(snapshot_launch(&bench, vm, made->snapshot), ERR_NONE);
    cr_assert(vm->launched.apart && vm->launched.generation == 1);
    open_api(vm);
    cr_assert_eq(vmm_qmp_load(vm->api, -1, true, PATIENCE_MS, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_check(bench.client, vm->instance, &err), 0, "%s", err.msg);
}

static void assert_sees_mark(const struct bench_vm *vm)
{
    cleanup_close int qmp = bench_connect(vm->api);
    tools_talk(qmp, "{\"execute\":\"qmp_capabilities\"}\n", "\"return\"");
    tools_talk(qmp,
               "{\"execute\":\"human-monitor-command\",\"arguments\":"
               "{\"command-line\":\"xp /4xb 0x4000000\"}}\n",
               "0x6d 0x61 0x72 0x6b");
}

static ino_t memory_of(const struct bench_vm *vm)
{
    char path[64];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)bench_pid(vm), PRIV_MEMORY_FD);
    cr_assert_eq(stat(path, &st), 0, "%m");
    return st.st_ino;
}

static enum priv_line_state digest_line(const struct bench_vm *vm)
{
    struct report report;
    report_read(&bench, vm, &report);
    return report_line(&report, "snapshot_digest")->state;
}

Test(priv_snapshot_template, R21_R26_clones_of_a_template_have_the_very_same_memory, .timeout = 60)
{
    struct bench_vm first, second;
    struct priv_published made;
    struct stat st;
    char path[192], wrong[512];
    begin();
    make(&made);
    published(&made, "memory", path);
    cr_assert(stat(path, &st) == 0 && st.st_size == 128 << 20 && (st.st_mode & 07777) == 0444);
    cr_assert_lt(st.st_blocks * 512, 8 << 20, "it has holes");
    published(&made, "state", path);
    cr_assert(stat(path, &st) == 0 && st.st_size < 1 << 20, "the devices alone");
    restore(&first, &made);
    restore(&second, &made);
    assert_sees_mark(&first);
    assert_sees_mark(&second);
    cr_assert_eq(memory_of(&first), memory_of(&second), "it lies there once");
    cr_assert_str_eq(report_wrong(&bench, &second, wrong, sizeof(wrong)), "");
    cr_assert_eq(digest_line(&second), PRIV_LINE_OK);
    bench_stop(&bench);
    bench_serve(&bench, false);
    cr_assert_eq(digest_line(&second), PRIV_LINE_OK, "also when another looks");
    bench_close(&bench);
}

/* How many such files the root half has open. */
static size_t memories(void)
{
    size_t count = 0;
    char path[64], target[128];
    for (int fd = 3; fd < 1024; fd++) {
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        ssize_t len = readlink(path, target, sizeof(target) - 1);
        target[len < 0 ? 0 : len] = '\0';
        count += strstr(target, "/memfd:" PRIV_MEMORY_NAME) == target;
    }
    return count;
}

/* As the VMM's uid, in its jail: its memory, by the two ways that it has to it. */
static int attack_memory(void *context)
{
    const char *path = context;
    cleanup_close int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 10;
    if (pwrite(fd, "lies", 4, MARK_AT) >= 0 || errno != EPERM)
        return 20;
    if (ftruncate(fd, 0) == 0 || fallocate(fd, 0, 0, 256 << 20) == 0)
        return 30;
    if (mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED)
        return 40;
    if (open("/proc/sys/kernel/hostname", O_RDONLY | O_CLOEXEC) >= 0 ||
        open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC) >= 0)
        return 50; /* what of /proc is there says what the VMM is, and can be told nothing */
    return 0;
}

Test(priv_snapshot_template, R21_R26_a_clone_cannot_change_what_the_others_have, .timeout = 60)
{
    struct bench_vm first, second;
    struct priv_published made;
    char path[32];
    struct break_out how = {
        .vm = &first, .place = BREAK_OUT_JAIL, .then = attack_memory, .context = path};
    begin();
    make(&made);
    restore(&first, &made);
    snprintf(path, sizeof(path), "/proc/1/fd/%d", PRIV_MEMORY_FD);
    cr_assert_eq(break_out(&how), 0);
    restore(&second, &made);
    assert_sees_mark(&second);
    bench_close(&bench);
}

Test(priv_snapshot_template, R26_a_templates_memory_goes_with_the_last_that_has_it, .timeout = 60)
{
    struct bench_vm vms[2];
    struct priv_published made[2];
    struct error err = {0};
    begin();
    make(&made[0]);
    make(&made[1]);
    cr_assert_eq(memories(), 0u, "none is read before it is needed");
    restore(&vms[1], &made[1]);
    restore(&vms[0], &made[0]);
    cr_assert_eq(memories(), 2u);
    bench_kill(&bench, &vms[1], NULL);
    cr_assert_eq(memories(), 1u, "nobody has the other");
    ino_t kept = memory_of(&vms[0]);
    restore(&vms[1], &made[0]);
    cr_assert_eq(memory_of(&vms[1]), kept, "not read again");
    bench_kill(&bench, &vms[0], NULL);
    bench_kill(&bench, &vms[1], NULL);
    cr_assert_eq(memories(), 1u, "the last one stays");
    restore(&vms[0], &made[0]);
    cr_assert_eq(memory_of(&vms[0]), kept);
    cr_assert_eq(priv_forget_snapshot(bench.client, made[0].snapshot, &err), 0, "%s", err.msg);
    cr_assert_eq(memories(), 0u, "but not one that is forgotten");
    assert_sees_mark(&vms[0]);
    bench_close(&bench);
}

Test(priv_snapshot_template, R21_what_is_no_template_is_kept_and_restored_as_none, .timeout = 60)
{
    struct bench_vm vm, clone;
    struct priv_published made;
    struct error err = {0};
    char path[192];
    begin();
    make(&made);
    restore(&clone, &made);
    cr_assert_eq(priv_stage(bench.client, clone.instance, &err), 0, "%s", err.msg);
    cleanup_close int file = priv_open(bench.client, clone.instance, PRIV_SOCKET_STAGED, 0, &err);
    cr_assert_eq(vmm_qmp_save(clone.api, file, false, PATIENCE_MS, &err), 0, "%s", err.msg);
    cr_assert_eq(priv_capture(bench.client, clone.instance, &err), 0, "%s", err.msg);
    struct priv_published again;
    cr_assert_eq(priv_publish(bench.client, clone.instance, &again, &err), 0, "%s", err.msg);
    cr_assert_not(priv_pidfd_ended(clone.launched.pidfd), "it runs on");
    published(&again, "memory", path);
    cr_assert_eq(access(path, F_OK), -1, "its memory is in the stream");
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, again.snapshot), ERR_NONE);
    cr_assert(!vm.launched.apart && vm.launched.generation == 2);
    open_api(&vm);
    cr_assert_eq(vmm_qmp_load(vm.api, -1, false, PATIENCE_MS, &err), 0, "%s", err.msg);
    assert_sees_mark(&vm);
    bench_close(&bench);
}

Test(priv_snapshot_template, R02_a_template_of_an_earlier_root_half_is_not_kept, .timeout = 60)
{
    struct bench_vm vm;
    struct error err = {0};
    char path[192];
    struct priv_published made;
    begin();
    make(&made);
    up(&vm);
    bench_stop(&bench);
    bench_serve(&bench, false);
    cr_assert_eq(priv_stage(bench.client, vm.instance, &err), -1);
    cr_assert_eq(err.code, ERR_SNAPSHOT_MISMATCH, "%s", err.msg);
    bench_kill(&bench, &vm, NULL);
    published(&made, "memory", path);
    cleanup_close int changed = open(path, O_WRONLY | O_CLOEXEC);
    cr_assert_eq(pwrite(changed, "lies", 4, MARK_AT), 4);
    snapshot_guarded(&bench, &vm);
    cr_assert_eq(snapshot_launch(&bench, &vm, made.snapshot), ERR_SNAPSHOT_DAMAGED);
    struct bench_vm other;
    snapshot_guarded(&bench, &other);
    struct priv_request request = bench_request(PRIV_LAUNCH, other.instance);
    request.u.launch.as_template = 2;
    cr_assert_str_eq(priv_request_refusal(&request), "a template boots, or is none");
    request.u.launch.as_template = 1;
    cr_assert_null(priv_request_refusal(&request));
    memcpy(request.u.launch.snapshot, made.snapshot, ID_INSTANCE_SIZE);
    cr_assert_str_eq(priv_request_refusal(&request), "a template boots, or is none");
    bench_close(&bench);
}
