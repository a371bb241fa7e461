/* A file on its way to its name, under one of ours, and the memory that it may take. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum {
    FLOOR_KIB = 12 * 1024, /* of memory, that files leave alone */
    STEP = 128 * 1024,     /* after as many bytes it is looked at again */
};

/* Files in memory are charged to no command, and a guest whose last memory is a file's has nothing
 * left to kill. So they end before that: -1 and ENOSPC. What a kernel does not tell is not held. */
static int check_memory(void)
{
    char text[256] = "";
    int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    const char *at = len > 0 ? strstr(text, "MemAvailable:") : NULL;
    if (!at || strtoull(at + strlen("MemAvailable:"), NULL, 10) >= FLOOR_KIB)
        return 0;
    errno = ENOSPC;
    return -1;
}

int guest_temp_name(char ret[static GUEST_TEMP_SIZE])
{
    uint64_t random;
    if (getrandom(&random, sizeof random, 0) != sizeof random)
        return -1;
    snprintf(ret, GUEST_TEMP_SIZE, ".motte-%016llx", (unsigned long long)random);
    return check_memory();
}

int guest_temp_open(int dir, struct guest_temp *ret)
{
    struct guest_temp temp = {.dir = dir};
    temp.fd = guest_temp_name(temp.name)
                  ? -1
                  : openat(dir, temp.name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    *ret = temp;
    return temp.fd < 0 ? -1 : 0;
}

int guest_temp_write(struct guest_temp *temp, const uint8_t *data, size_t len)
{
    if (temp->unlooked >= STEP && check_memory())
        return -1;
    temp->unlooked = temp->unlooked >= STEP ? len : temp->unlooked + len;
    while (len > 0) {
        ssize_t put = write(temp->fd, data, len);
        if (put < 0 && errno != EINTR)
            return -1;
        data += put < 0 ? 0 : put;
        len -= put < 0 ? 0 : (size_t)put;
    }
    return 0;
}

int guest_temp_keep(struct guest_temp *temp, const char *name, uint32_t mode)
{
    int result =
        fchmod(temp->fd, mode) || renameat(temp->dir, temp->name, temp->dir, name) ? -1 : 0;
    if (result == 0) {
        close(temp->fd);
        temp->fd = -1;
    }
    return result;
}

void guest_temp_drop(struct guest_temp *temp)
{
    if (temp->fd < 0)
        return;
    close(temp->fd);
    unlinkat(temp->dir, temp->name, 0);
    temp->fd = -1;
}
