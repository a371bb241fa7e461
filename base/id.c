/* Identifiers: what is allowed to meet a path, a chain, an argument or a socket name. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/random.h>

static const char base32[] = "abcdefghijklmnopqrstuvwxyz234567";

bool id_instance_valid(const char *id)
{
    size_t len = strnlen(id, ID_INSTANCE_LEN + 1);
    return len == ID_INSTANCE_LEN && strspn(id, base32) == len;
}

bool id_vm_valid(const char *id, size_t len)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    return len >= 1 && len <= ID_VM_MAX && strnlen(id, len) == len && strspn(id, allowed) == len;
}

bool id_name_valid(const char *name)
{
    static const char first[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    size_t len = strnlen(name, ID_NAME_MAX + 1);
    return len >= 1 && len <= ID_NAME_MAX && strspn(name, first) >= 1 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789._-") == len;
}

int id_instance_make(char out[static ID_INSTANCE_SIZE], struct error *err)
{
    uint8_t random[ID_INSTANCE_LEN];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set(err, ERR_SYSTEM, errno, "reading random bytes for an instance id");
    memset(out, 0, ID_INSTANCE_SIZE);
    for (size_t i = 0; i < ID_INSTANCE_LEN; i++)
        out[i] = base32[random[i] & 31];
    return 0;
}

int id_boot_read(char out[static ID_BOOT_SIZE], struct error *err)
{
    char text[64];
    ssize_t n = fs_read_at(AT_FDCWD, "/proc/sys/kernel/random/boot_id", text, sizeof(text));
    if (n < ID_BOOT_SIZE - 1)
        return error_set(err, ERR_SYSTEM, n < 0 ? errno : EIO, "reading the boot id");
    memcpy(out, text, ID_BOOT_SIZE - 1);
    out[ID_BOOT_SIZE - 1] = '\0';
    return 0;
}
