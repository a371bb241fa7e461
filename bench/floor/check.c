/* Every guard of a started VM read back from the kernel, as the root half does it, but each file
 * once. */
#include "bench/floor/floor.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

enum { TEXT_MAX = 1 << 16 };

static void has(const char *text, const char *line)
{
    bench_must(strstr(text, line) != NULL, line);
}

static void check_threads(const struct floor_vm *vm, int proc)
{
    char text[8192], path[300], uids[64];
    snprintf(uids, sizeof(uids), "\nUid:\t%u\t%u\t%u\t%u\n", vm->slot.uid, vm->slot.uid,
             vm->slot.uid, vm->slot.uid);
    int tasks = openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fdopendir(tasks);
    bench_must(dir != NULL, "the VMM's threads");
    for (const struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "%s/stat", entry->d_name);
        bench_must(fs_read_at(tasks, path, text, sizeof(text)) > 0, path);
        snprintf(path, sizeof(path), "%s/status", entry->d_name);
        bench_must(fs_read_at(tasks, path, text, sizeof(text)) > 0, path);
        if (strncmp(text, "Name:\tkvm-", strlen("Name:\tkvm-")) == 0)
            continue; /* the kernel's */
        has(text, uids);
        has(text, "\nCapEff:\t0000000000000000\n");
        has(text, "\nNoNewPrivs:\t1\n");
        has(text, "\nSeccomp:\t2\n");
    }
    closedir(dir);
}

static void check_namespaces(int proc)
{
    static const char *const names[] = {"net", "mnt", "pid", "ipc", "uts"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[32];
        struct stat ours, theirs;
        snprintf(path, sizeof(path), "/proc/self/ns/%s", names[i]);
        bench_must(stat(path, &ours) == 0 &&
                       fstatat(proc, path + strlen("/proc/self/"), &theirs, 0) == 0 &&
                       ours.st_ino != theirs.st_ino,
                   path);
    }
}

static void check_mounts(int proc)
{
    cleanup_free char *text = malloc(TEXT_MAX);
    struct stat disk;
    bench_must(text != NULL && fs_read_at(proc, "limits", text, TEXT_MAX) > 0, "the VMM's limits");
    has(text, "Max core file size        0 ");
    bench_must(fs_read_at(proc, "mountinfo", text, TEXT_MAX) > 0, "the VMM's mounts");
    has(text, " /disk ro,");
    has(text, " /kernel ro,");
    bench_must(fstatat(proc, "root/disk", &disk, 0) == 0 && disk.st_uid == 0, "the VMM's disk");
}

void floor_check(const struct floor_vm *vm)
{
    struct error err = {0};
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d", vm->pid);
    cleanup_close int proc = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bench_must(proc >= 0, path);
    check_threads(vm, proc);
    check_namespaces(proc);
    check_mounts(proc);
    floor_cgroup_check(vm);
    bench_must(netfilter_check(vm->floor->netfilter, &vm->slot, &err) == 0, err.msg);
}
