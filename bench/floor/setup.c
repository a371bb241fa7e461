/* What a floor is made of before anything is measured. */
#include "bench/floor/floor.h"

#include <fcntl.h>
#include <sched.h>

/* What it is told; main.c has what follows in which kind. */
enum {
    KIND = 1,
    WORK,
    KERNEL,
    DISK,
    MEMORY_MIB,
    UID_BASE,
    VMM,
    BESIDE,
    CGROUPS,
    SNAPSHOTS,
    VERSION
};

static bool understand(struct floor *floor, int argc, char **argv)
{
    const char *kind = argc > KIND ? argv[KIND] : "";
    floor->emulated = strcmp(kind, "emulated") == 0;
    floor->guarded = floor->emulated || strcmp(kind, "guarded") == 0;
    if (!floor->guarded)
        return strcmp(kind, "bare") == 0 && argc == CGROUPS;
    return argc == (floor->emulated ? VERSION : VERSION + 1);
}

static int open_file(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bench_must(fd >= 0, path);
    return fd;
}

/* Jails lie on a tmpfs, Motte's too: a disk is not what is measured. Files are opened in the namespace
 * that their mounts are copied in. */
static void make_work(struct floor *floor, const char *work)
{
    bench_must(strlen(work) < 100, "a path that short");
    snprintf(floor->work, sizeof(floor->work), "%s", work);
    bench_must(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
               "a mount namespace");
    bench_must(mount("bench", work, "tmpfs", MS_NOSUID, "mode=0755") == 0, "a tmpfs to work on");
}

static void open_guards(struct floor *floor, char *cgroups, const char *version)
{
    struct error err = {0};
    char lock[FLOOR_PATH_MAX];
    struct netfilter_config config = {
        .uid_base = floor->uid_base, .uid_count = FLOOR_UIDS, .lock_path = lock};
    snprintf(lock, sizeof(lock), "%.100s/lock", floor->work);
    int opened = netfilter_open(&config, &floor->netfilter, &err);
    bench_must(opened == 0, err.msg);
    opened = floor->emulated
                 ? priv_seccomp_qemu(PRIV_SECCOMP_MINIMAL, &floor->program, &err)
                 : priv_seccomp_firecracker_file(PRIV_SECCOMP_MINIMAL, version, &floor->filter,
                                                 &floor->filter_len, &err);
    bench_must(opened == 0, err.msg);
    floor_cgroups_open(floor, cgroups);
}

static void prepare(struct floor *floor, char **argv)
{
    enum { OVERHEAD_MIB = 64, OVERHEAD_QEMU_MIB = 256 };
    floor->kernel = open_file(argv[KERNEL]);
    floor->disk = open_file(argv[DISK]);
    floor->memory_mib = (uint32_t)strtoul(argv[MEMORY_MIB], NULL, 10);
    floor->memory_max =
        (uint64_t)floor->memory_mib + (floor->emulated ? OVERHEAD_QEMU_MIB : OVERHEAD_MIB);
    floor->memory_max <<= 20;
    floor->uid_base = (uint32_t)strtoul(argv[UID_BASE], NULL, 10);
    floor->vmm = argv[VMM];
    if (floor->emulated)
        floor->initrd = open_file(argv[BESIDE]);
    else
        floor->jailer = argv[BESIDE];
    if (!floor->guarded)
        return;
    floor->snapshots = open_file(argv[SNAPSHOTS]);
    open_guards(floor, argv[CGROUPS], argv[VERSION]);
}

bool floor_set_up(struct floor *floor, int argc, char **argv)
{
    floor->snapshots = floor->state = floor->memory = floor->initrd = -1;
    if (!understand(floor, argc, argv))
        return false;
    bench_own_network();
    make_work(floor, argv[WORK]);
    prepare(floor, argv);
    return true;
}

void floor_choose_snapshot(struct floor *floor, char *words)
{
    char path[64];
    int *const files[] = {&floor->state, &floor->memory};
    static const char *const names[] = {"state", "memory"};
    const char *name = strsep(&words, " ");
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        cleanup_close_func(files[i]);
        *files[i] = -1;
        if (name == NULL || (i > 0 && floor->emulated))
            continue;
        snprintf(path, sizeof(path), "%s/%s", name, names[i]);
        *files[i] = openat(floor->snapshots, path, O_RDONLY | O_CLOEXEC);
        bench_must(*files[i] >= 0, path);
    }
    if (floor->emulated)
        bench_must(words != NULL && hash_from_hex(words, floor->token, WIRE_TOKEN_SIZE) == 0,
                   "a snapshot and its VM's token");
}
