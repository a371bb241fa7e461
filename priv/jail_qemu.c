/* QEMU's jail and command line. There is no jailer: the child itself changes root, drops its
 * privileges and loads the filter. The root holds the host's /usr read-only (the program and its
 * libraries), /dev/null and /dev/urandom, and /vm, the one directory that the VM's uid owns. */
#include "priv/snapshot_internal.h"

#include "vsock/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

_Static_assert((int)PRIV_TOKEN_SIZE == (int)WIRE_TOKEN_SIZE, "the token of messages and wire");

struct host_file {
    const char *path, *target;
    uint64_t flags;
};

static int bind_host(struct priv_jail *jail, struct error *err)
{
    static const struct host_file files[] = {
        {"/usr", "usr", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV},
        {"/dev/null", "dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
        {"/dev/urandom", "dev/urandom", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC},
    };
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        cleanup_close int fd = open(files[i].path, O_PATH | O_CLOEXEC);
        if (fd < 0)
            return error_set(err, ERR_LAUNCH, errno, "opening %s for the jail", files[i].path);
        if (priv_jail_bind(jail, fd, files[i].target, files[i].flags, err) < 0)
            return -1;
    }
    return 0;
}

static int make_root(struct priv_jail *jail, uint32_t uid, struct error *err)
{
    if (priv_jail_tmpfs(jail, NULL, err) < 0)
        return -1;
    if (mkdirat(jail->root, "dev", 0755) < 0 || mkdirat(jail->root, "proc", 0755) < 0 ||
        symlinkat("usr/lib", jail->root, "lib") < 0 ||
        symlinkat("usr/lib64", jail->root, "lib64") < 0 || mkdirat(jail->root, "vm", 0700) < 0 ||
        fchownat(jail->root, "vm", uid, uid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the jail's directories");
    return bind_host(jail, err);
}

/* Argument lists are parts joined with '|', so that they read as a command line. */
static int add_list(struct priv_child *child, const char *list)
{
    for (const char *at = list;;) {
        size_t len = strcspn(at, "|");
        if (priv_child_arg(child, "%.*s", (int)len, at) < 0)
            return -1;
        if (at[len] == '\0')
            return 0;
        at += len + 1;
    }
}

/* virtio-mmio devices are found by the guest in the order of these options reversed or not,
 * depending on how it enumerates: the serial numbers name them for certain. */
static int add_disks(struct priv_child *child, uint32_t disk_mib)
{
    static const char disk[] = "-drive|if=none,id=disk,format=raw,read-only=on,file=/disk|-device|"
                               "virtio-blk-device,drive=disk,serial=motte-disk";
    static const char scratch[] = "-drive|if=none,id=scratch,format=raw,file=/scratch|-device|"
                                  "virtio-blk-device,drive=scratch,serial=motte-scratch";
    return add_list(child, disk) < 0 || (disk_mib > 0 && add_list(child, scratch) < 0) ? -1 : 0;
}

static int add_ports(struct priv_child *child)
{
    if (add_list(child, "-device|virtio-serial-device") < 0)
        return -1;
    for (int i = 0; i < WIRE_SERIAL_PORTS; i++)
        if (priv_child_arg(child, "-chardev") < 0 ||
            priv_child_arg(child, "socket,id=port%d,path=/vm/port.%d,server=on,wait=off", i, i) <
                0 ||
            priv_child_arg(child, "-device") < 0 ||
            priv_child_arg(child, "virtserialport,chardev=port%d,name=motte.%d", i, i) < 0)
            return -1;
    return 0;
}

/* tsc_early_khz: under emulation the guest reads the host's counter, and measuring it there fails
 * often and hangs the boot. mitigations=off: there is no processor to mitigate. */
static int add_kernel(const struct priv_server *server, const struct priv_record *record,
                      const struct image_kernel *kernel, struct priv_child *child)
{
    char token[2 * PRIV_TOKEN_SIZE + 1];
    hash_to_hex(record->token, PRIV_TOKEN_SIZE, token);
    return add_list(child, "-kernel|/kernel") < 0 ||
                   (kernel->has_initrd && add_list(child, "-initrd|/initrd") < 0) ||
                   priv_child_arg(child, "-append") < 0 ||
                   priv_child_arg(child,
                                  "console=ttyS0 reboot=t panic=-1 quiet loglevel=1 tsc=reliable "
                                  "tsc_early_khz=%u mitigations=off init_on_alloc=0 "
                                  "motte.instance=%s motte.token=%s%s%s",
                                  server->tsc_khz, record->instance, token,
                                  kernel->boot_args[0] == '\0' ? "" : " ", kernel->boot_args) < 0
               ? -1
               : 0;
}

/* One that is restored finds its kernel in its memory. Either command line says whose it is: adopt.c. */
static int add_start(const struct priv_server *server, const struct priv_record *record,
                     const struct image_kernel *kernel, struct priv_child *child)
{
    if (kernel != NULL)
        return add_kernel(server, record, kernel, child);
    return add_list(child, "-incoming|defer|-name") < 0 ||
                   priv_child_arg(child, "%s", record->instance) < 0
               ? -1
               : 0;
}

/* By one name in all of them, since a stream names what it is of. */
static int add_memory(const struct priv_record *record, struct priv_child *child)
{
    uint32_t mib = record->shape.memory_mib;
    if (priv_child_arg(child, "-object") < 0)
        return -1;
    if (child->memory < 0)
        return priv_child_arg(child, "memory-backend-ram,id=ram,size=%uM", mib);
    return priv_child_arg(child,
                          "memory-backend-file,id=ram,size=%uM,mem-path=/proc/self/fd/%d,share=%s",
                          mib, PRIV_MEMORY_FD, child->restore == NULL ? "on" : "off");
}

/* `kernel` NULL: it will be restored. */
static int arguments(const struct priv_server *server, const struct priv_record *record,
                     const struct image_kernel *kernel, struct priv_child *child)
{
    return priv_child_arg(child, "%s", server->qemu) < 0 ||
                   add_list(child, "-M|microvm,acpi=on,memory-backend=ram|-accel|tcg,tb-size=64|-"
                                   "cpu|max|-nodefaults|"
                                   "-no-user-config|-display|none|-no-reboot|-S") < 0 ||
                   priv_child_arg(child, "-m") < 0 ||
                   priv_child_arg(child, "%u", record->shape.memory_mib) < 0 ||
                   priv_child_arg(child, "-smp") < 0 ||
                   priv_child_arg(child, "%u", record->shape.vcpus) < 0 ||
                   add_memory(record, child) < 0 || add_start(server, record, kernel, child) < 0 ||
                   add_disks(child, record->shape.disk_mib) < 0 || add_ports(child) < 0 ||
                   add_list(child,
                            "-qmp|unix:/vm/api.sock,server=on,wait=off|"
                            "-qmp|unix:/vm/events.sock,server=on,wait=off|-chardev|"
                            "file,id=console,path=/vm/console|-serial|chardev:console|-sandbox|"
                            "on,obsolete=deny,elevateprivileges=deny,spawn=deny,"
                            "resourcecontrol=deny") < 0
               ? -1
               : 0;
}

/* A FIFO with a name, because QEMU opens its serial port's file itself; its own output goes there
 * too. */
static int make_console(struct priv_instance_slot *slot, struct priv_child *child,
                        struct error *err)
{
    int root = child->jail.root;
    uint32_t uid = slot->record.uid;
    cleanup_close int fifo = -1;
    if (mkfifoat(root, "vm/console", 0600) < 0 ||
        fchownat(root, "vm/console", uid, uid, AT_SYMLINK_NOFOLLOW) < 0 ||
        (fifo = openat(root, "vm/console", O_PATH | O_NOFOLLOW | O_CLOEXEC)) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the console");
    return priv_console_open(fifo, slot, child, err);
}

int priv_prepare_qemu(struct priv_server *server, struct priv_instance_slot *slot,
                      const uint8_t image[static HASH_SIZE], struct priv_child *child,
                      struct error *err)
{
    struct image_kernel kernel;
    const struct priv_record *record = &slot->record;
    snprintf(child->program, sizeof(child->program), "%s", server->qemu);
    child->drop = true;
    if (!(server->config.without & PRIV_GUARD_SECCOMP) ||
        record->shape.seccomp == PRIV_SECCOMP_PERMISSIVE)
        child->filter = &server->qemu_filters[record->shape.seccomp];
    if (make_root(&child->jail, record->uid, err) < 0 || make_console(slot, child, err) < 0 ||
        priv_jail_images(server, slot, image, child, &kernel, err) < 0 ||
        (child->restore != NULL && priv_restore_bind(&child->jail, child->restore, err) < 0))
        return -1;
    priv_note_kernel(server, slot, &kernel);
    if (arguments(server, record, child->restore != NULL ? NULL : &kernel, child) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the VMM's arguments");
    return 0;
}

/* Of one with a disk: the others have the same devices but for that. */
int priv_qemu_machine(const struct priv_server *server, uint8_t ret[static HASH_SIZE],
                      struct error *err)
{
    const struct priv_record record = {.shape.disk_mib = 1};
    cleanup(priv_child_release) struct priv_child child;
    cleanup_free char *text = NULL;
    size_t len = 0;
    priv_child_init(&child);
    int result = arguments(server, &record, NULL, &child);
    FILE *out = open_memstream(&text, &len);
    for (size_t i = 1; out != NULL && i < child.argc; i++)
        result |= fputs(child.argv[i], out) < 0 || fputc('\n', out) < 0 ? -1 : 0;
    if (out == NULL || fclose(out) != 0 || result < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the VMM's arguments");
    hash_sha256(text, len, ret);
    return 0;
}
