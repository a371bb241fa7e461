#include "guest/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

bool guest_virtio_has(unsigned device_id)
{
    bool found = false;
    DIR *dir = opendir("/sys/bus/virtio/devices");
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char path[300];
        unsigned id = 0;
        snprintf(path, sizeof path, "/sys/bus/virtio/devices/%s/device", entry->d_name);
        FILE *file = fopen(path, "re");
        if (!file)
            continue;
        found = fscanf(file, "%x", &id) == 1 && id == device_id;
        fclose(file);
    }
    if (dir)
        closedir(dir);
    return found;
}

static void load_one(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        guest_die(path);
    /* ENOENT means an unknown symbol here: the order is wrong. */
    if (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST)
        guest_say("%s: %s", path, strerror(errno));
    close(fd);
}

void guest_modules_load(void)
{
    FILE *order = fopen("/modules/order", "re");
    if (!order)
        return; /* all built in */
    char line[160];
    while (fgets(line, sizeof line, order)) {
        char name[96], path[128];
        unsigned device = 0;
        int words = sscanf(line, "%95s %u", name, &device);
        if (words < 1)
            continue;
        snprintf(path, sizeof path, "/modules/%s", name);
        if (words < 2 || guest_virtio_has(device))
            load_one(path);
        unlink(path); /* the initramfs stays below us: give its memory back */
    }
    fclose(order);
    unlink("/modules/order");
}
