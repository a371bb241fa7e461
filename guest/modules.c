#include "guest/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of a file like "0x0003"; 0 if there is none. */
static unsigned long read_hex(const char *path)
{
    char line[32] = "";
    FILE *file = fopen(path, "re");
    unsigned long value = file && fgets(line, sizeof line, file) ? strtoul(line, NULL, 16) : 0;
    if (file)
        fclose(file);
    return value;
}

bool guest_virtio_has(unsigned long device_id)
{
    bool found = false;
    DIR *dir = opendir("/sys/bus/virtio/devices");
    for (struct dirent *entry; dir && !found && (entry = readdir(dir));) {
        char path[300];
        snprintf(path, sizeof path, "/sys/bus/virtio/devices/%s/device", entry->d_name);
        found = read_hex(path) == device_id;
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
    char line[160], path[192];
    while (fgets(line, sizeof line, order)) {
        char *rest = NULL;
        const char *name = strtok_r(line, " \n", &rest);
        const char *device = strtok_r(NULL, " \n", &rest);
        if (!name)
            continue;
        snprintf(path, sizeof path, "/modules/%s", name);
        if (!device || guest_virtio_has(strtoul(device, NULL, 10)))
            load_one(path);
        unlink(path); /* the initramfs stays below us: give its memory back */
    }
    fclose(order);
    unlink("/modules/order");
}
