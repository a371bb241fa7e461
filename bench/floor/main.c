/*
 * bench_floor: what a spawn costs without Motte. Needs root; works in a network and a mount namespace
 * of its own. Reads numbers from its standard input, spawns that many VMs at once for each, tells
 * what it took, removes them, and says `ready`. After a number may stand the name of a snapshot of
 * Motte's, from which they are then restored; `emulated` wants one, and after it the token of the VM
 * that it is of (docs/wire.md). `chains N` makes the firewall's tables as large as N
 * more VMs would:
 *
 *   vm TOTAL GUARD LAUNCH CONFIGURE START HELLO CONNECT      microseconds, a line a VM
 *   wall MICROSECONDS                                        for all of them together
 *
 *   bench_floor bare    WORK KERNEL DISK MEMORY_MIB UID_BASE FIRECRACKER JAILER
 *   bench_floor guarded WORK KERNEL DISK MEMORY_MIB UID_BASE FIRECRACKER JAILER
 *               CGROUP,CGROUP... SNAPSHOTS VERSION
 *   bench_floor emulated WORK KERNEL DISK MEMORY_MIB UID_BASE QEMU INITRD
 *               CGROUP,CGROUP... SNAPSHOTS
 *
 * WORK is an empty directory, over which it mounts a tmpfs that nobody else sees.
 */
#include "bench/floor/floor.h"

#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { AT_ONCE_MAX = FLOOR_SLOTS };

struct bench {
    struct floor floor;
    struct netfilter_vm slots[FLOOR_SLOTS];
    size_t chains; /* that nobody uses */
    struct floor_vm vms[AT_ONCE_MAX];
    pthread_barrier_t barrier;
};

struct task {
    struct floor_vm *vm;
    pthread_barrier_t *barrier;
    pthread_t thread;
    double end_ns;
};

/* ---- slots ------------------------------------------------------------------------------------ */

static void fill_slots(struct bench *bench)
{
    struct error err = {0};
    for (uint32_t i = 0; i < FLOOR_SLOTS; i++) {
        bench_must(id_instance_make(bench->slots[i].instance, &err) == 0, err.msg);
        bench->slots[i].uid = bench->floor.uid_base + i;
    }
    if (!bench->floor.guarded)
        return;
    int made = netfilter_change(bench->floor.netfilter, bench->slots, FLOOR_SLOTS, NULL, 0, &err);
    bench_must(made == 0, err.msg);
}

/* Each VM has a name that no other had; its chain is made, and its last one's removed, when nobody
 * measures. */
static void renew_slots(struct bench *bench, size_t count)
{
    struct error err = {0};
    struct netfilter_vm old[FLOOR_SLOTS];
    memcpy(old, bench->slots, sizeof(old));
    for (size_t i = 0; i < count; i++)
        bench_must(id_instance_make(bench->slots[i].instance, &err) == 0, err.msg);
    if (!bench->floor.guarded)
        return;
    int made = netfilter_change(bench->floor.netfilter, bench->slots, count, old, count, &err);
    bench_must(made == 0, err.msg);
}

/* The check of a chain costs what the tables' size costs. They only grow. */
static void fill_tables(struct bench *bench, size_t count)
{
    struct error err = {0};
    cleanup_free struct netfilter_vm *more = calloc(count + 1, sizeof(*more));
    size_t from = bench->chains;
    bench_must(more != NULL && count < FLOOR_UIDS - FLOOR_SLOTS, "so many chains");
    for (size_t i = from; i < count; i++) {
        bench_must(id_instance_make(more[i].instance, &err) == 0, err.msg);
        more[i].uid = bench->floor.uid_base + FLOOR_SLOTS + (uint32_t)i;
    }
    if (count <= from || !bench->floor.guarded)
        return;
    int made = netfilter_change(bench->floor.netfilter, more + from, count - from, NULL, 0, &err);
    bench_must(made == 0, err.msg);
    bench->chains = count;
}

/* ---- a spawn ----------------------------------------------------------------------------------- */

static double lap(struct floor_vm *vm, enum floor_step step, double since_ns)
{
    double now = bench_now_ns();
    vm->us[step] = (now - since_ns) / 1e3;
    return now;
}

static double boot(struct floor_vm *vm, double at)
{
    floor_configure(vm);
    at = lap(vm, FLOOR_CONFIGURE, at);
    floor_start(vm);
    if (vm->floor->guarded)
        floor_check(vm);
    at = lap(vm, FLOOR_START, at);
    floor_hello(vm);
    return lap(vm, FLOOR_HELLO, at);
}

static double restore(struct floor_vm *vm, double at)
{
    floor_load(vm);
    at = lap(vm, FLOOR_CONFIGURE, at);
    floor_check(vm);
    floor_resume(vm);
    at = lap(vm, FLOOR_START, at);
    floor_restore(vm);
    floor_hello(vm);
    return lap(vm, FLOOR_HELLO, at);
}

static double restore_qemu(struct floor_vm *vm, double at)
{
    floor_qemu_load(vm);
    at = lap(vm, FLOOR_CONFIGURE, at);
    floor_check(vm);
    floor_qemu_resume(vm);
    at = lap(vm, FLOOR_START, at);
    floor_qemu_restore(vm);
    return lap(vm, FLOOR_HELLO, at);
}

static void launch(struct floor_vm *vm)
{
    if (vm->floor->emulated)
        floor_qemu_launch(vm);
    else if (vm->floor->guarded)
        floor_guarded_launch(vm);
    else
        floor_bare_launch(vm);
}

static double spawn(struct floor_vm *vm)
{
    struct error err = {0};
    double at = bench_now_ns();
    if (vm->floor->guarded) {
        bench_must(netfilter_check(vm->floor->netfilter, &vm->slot, &err) == 0, err.msg);
        floor_cgroup_make(vm);
    }
    at = lap(vm, FLOOR_GUARD, at);
    launch(vm);
    at = lap(vm, FLOOR_LAUNCH, at);
    if (vm->floor->emulated)
        return restore_qemu(vm, at);
    return vm->floor->state >= 0 ? restore(vm, at) : boot(vm, at);
}

static void prepare(struct bench *bench, size_t i)
{
    struct floor_vm *vm = &bench->vms[i];
    vm->floor = &bench->floor;
    vm->slot = bench->slots[i];
    vm->pidfd = vm->root = vm->hello = vm->notify = vm->console = vm->log = -1;
    vm->api.fd = vm->events = -1;
    if (!bench->floor.guarded)
        floor_bare_prepare(vm);
}

static void end(struct floor_vm *vm)
{
    syscall(SYS_pidfd_send_signal, vm->pidfd, SIGKILL, NULL, 0);
    bench_must(waitpid(vm->pid, NULL, 0) == vm->pid, "waiting for a VMM");
    const int fds[] = {vm->pidfd,   vm->root, vm->hello,  vm->notify,
                       vm->console, vm->log,  vm->api.fd, vm->events};
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (vm->floor->guarded)
        floor_cgroup_remove(vm);
    else
        floor_bare_remove(vm);
}

static void *run_task(void *context)
{
    struct task *task = context;
    pthread_barrier_wait(task->barrier);
    task->end_ns = spawn(task->vm);
    return NULL;
}

/* Returns when all have said hello: microseconds from when all were let go. */
static double spawn_all(struct bench *bench, size_t count)
{
    struct task tasks[AT_ONCE_MAX];
    double end_ns = 0;
    pthread_barrier_init(&bench->barrier, NULL, (unsigned)count + 1);
    for (size_t i = 0; i < count; i++) {
        tasks[i] = (struct task){.vm = &bench->vms[i], .barrier = &bench->barrier};
        bench_must(pthread_create(&tasks[i].thread, NULL, run_task, &tasks[i]) == 0, "a thread");
    }
    double begin_ns = bench_now_ns(); /* before: the last to arrive may be late to get here again */
    pthread_barrier_wait(&bench->barrier);
    for (size_t i = 0; i < count; i++) {
        pthread_join(tasks[i].thread, NULL);
        end_ns = tasks[i].end_ns > end_ns ? tasks[i].end_ns : end_ns;
    }
    pthread_barrier_destroy(&bench->barrier);
    return (end_ns - begin_ns) / 1e3;
}

static void connect_and_tell(struct floor_vm *vm)
{
    double total = 0, at = bench_now_ns();
    if (!vm->floor->emulated)
        floor_connect(vm);
    lap(vm, FLOOR_CONNECT, at);
    for (int step = 0; step < FLOOR_CONNECT; step++)
        total += vm->us[step];
    printf("vm %.1f", total);
    for (int step = 0; step < FLOOR_STEPS; step++)
        printf(" %.1f", vm->us[step]);
    putchar('\n');
}

static void measure(struct bench *bench, size_t count)
{
    for (size_t i = 0; i < count; i++)
        prepare(bench, i);
    double wall = spawn_all(bench, count);
    for (size_t i = 0; i < count; i++)
        connect_and_tell(&bench->vms[i]);
    printf("wall %.1f\n", wall);
    for (size_t i = 0; i < count; i++)
        end(&bench->vms[i]);
    renew_slots(bench, count);
}

/* ---- commands ---------------------------------------------------------------------------------- */

static void obey(struct bench *bench, char *line)
{
    char *words = line;
    const char *first = strsep(&words, " ");
    if (strcmp(first, "chains") == 0) {
        fill_tables(bench, words != NULL ? strtoul(words, NULL, 10) : 0);
    } else {
        size_t count = strtoul(first, NULL, 10);
        bench_must(count >= 1 && count <= AT_ONCE_MAX, "as many VMs at once as there are slots");
        floor_choose_snapshot(&bench->floor, words);
        measure(bench, count);
    }
    puts("ready");
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static struct bench bench;
    char line[BENCH_LINE_MAX];
    if (!floor_set_up(&bench.floor, argc, argv)) {
        fputs("bench_floor: see the head of bench/floor/main.c\n", stderr);
        return 2;
    }
    fill_slots(&bench);
    while (bench_command(line))
        obey(&bench, line);
    return 0;
}
