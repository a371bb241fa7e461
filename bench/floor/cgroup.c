/* A VM's cgroup with the limits that Motte sets, in either version. */
#include "bench/floor/floor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>

static int directory(const struct floor_vm *vm, size_t at)
{
    return openat(vm->floor->cgroups[at], vm->slot.instance, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Which of the settings this host's hierarchies have, and where. */
static void find_settings(struct floor *floor)
{
    char memory[24], pids[8];
    snprintf(memory, sizeof(memory), "%llu", (unsigned long long)floor->memory_max);
    snprintf(pids, sizeof(pids), "%d", FLOOR_PIDS);
    const struct {
        const char *file, *text;
    } wanted[] = {{"memory.max", memory},
                  {"memory.swap.max", "0"},
                  {"cpu.max", "100000 100000"},
                  {"memory.limit_in_bytes", memory},
                  {"memory.memsw.limit_in_bytes", memory},
                  {"memory.swappiness", "0"},
                  {"cpu.cfs_period_us", "100000"},
                  {"cpu.cfs_quota_us", "100000"},
                  {"pids.max", pids}};
    for (size_t i = 0; i < COUNT_OF(wanted); i++) {
        for (size_t at = 0; at < floor->cgroup_count; at++) {
            if (faccessat(floor->cgroups[at], wanted[i].file, F_OK, 0) < 0)
                continue;
            struct floor_setting *setting = &floor->settings[floor->setting_count++];
            setting->file = wanted[i].file;
            setting->at = at;
            snprintf(setting->text, sizeof(setting->text), "%s", wanted[i].text);
        }
    }
    bench_must(floor->setting_count >= 4, "cgroups with memory, cpu and pids");
}

void floor_cgroups_open(struct floor *floor, char *paths)
{
    for (char *path; (path = strsep(&paths, ",")) != NULL;) {
        bench_must(floor->cgroup_count < FLOOR_CGROUPS_MAX, "so many cgroups");
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bench_must(fd >= 0, path);
        floor->cgroups[floor->cgroup_count++] = fd;
    }
    floor->unified = faccessat(floor->cgroups[0], "cgroup.controllers", F_OK, 0) == 0;
    find_settings(floor);
}

static void check_settings(const struct floor_vm *vm, const int dirs[FLOOR_CGROUPS_MAX])
{
    const struct floor *floor = vm->floor;
    for (size_t i = 0; i < floor->setting_count; i++) {
        const struct floor_setting *setting = &floor->settings[i];
        char text[256];
        bench_must(fs_read_at(dirs[setting->at], setting->file, text, sizeof(text)) >= 0,
                   setting->file);
        text[strcspn(text, "\n")] = '\0';
        bench_must(strcmp(text, setting->text) == 0, setting->file);
    }
}

void floor_cgroup_make(const struct floor_vm *vm)
{
    const struct floor *floor = vm->floor;
    int dirs[FLOOR_CGROUPS_MAX];
    for (size_t i = 0; i < floor->cgroup_count; i++) {
        bench_must(mkdirat(floor->cgroups[i], vm->slot.instance, 0755) == 0, "a cgroup");
        dirs[i] = directory(vm, i);
    }
    for (size_t i = 0; i < floor->setting_count; i++) {
        const struct floor_setting *setting = &floor->settings[i];
        bench_must(fs_write_at(dirs[setting->at], setting->file, setting->text) == 0,
                   setting->file);
    }
    check_settings(vm, dirs);
    for (size_t i = 0; i < floor->cgroup_count; i++)
        close(dirs[i]);
}

int floor_cgroup_enter(const struct floor_vm *vm)
{
    char file[64];
    snprintf(file, sizeof(file), "%s/tasks", vm->slot.instance);
    for (size_t i = 0; i < vm->floor->cgroup_count; i++)
        if (fs_write_at(vm->floor->cgroups[i], file, "0") < 0)
            return -1;
    return 0;
}

void floor_cgroup_check(const struct floor_vm *vm)
{
    int dirs[FLOOR_CGROUPS_MAX];
    char text[4096];
    for (size_t i = 0; i < vm->floor->cgroup_count; i++) {
        dirs[i] = directory(vm, i);
        bench_must(fs_read_at(dirs[i], "cgroup.procs", text, sizeof(text)) > 0 &&
                       atoi(text) == vm->pid,
                   "a cgroup with its VM in it");
    }
    check_settings(vm, dirs);
    for (size_t i = 0; i < vm->floor->cgroup_count; i++)
        close(dirs[i]);
}

/* The kernel lets go of the dead a moment after they have been waited for. */
void floor_cgroup_remove(const struct floor_vm *vm)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    double deadline = bench_now_ns() + 5e9;
    for (size_t i = 0; i < vm->floor->cgroup_count; i++)
        while (unlinkat(vm->floor->cgroups[i], vm->slot.instance, AT_REMOVEDIR) < 0) {
            bench_must(errno == EBUSY && bench_now_ns() < deadline, "removing a cgroup");
            nanosleep(&nap, NULL);
        }
}
