/* QEMU's jail and command line, of one that is restored. The host's /usr is in it, read-only, and /vm,
 * which the VM's uid owns. */
#include "bench/floor/floor.h"

#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>

enum { QEMU_FILES = 256, WORDS_MAX = 96 };

struct words {
    char text[4096]; /* each ends in '|' */
    size_t len;
    char *argv[WORDS_MAX];
};

__attribute__((format(printf, 2, 3))) static void add(struct words *words, const char *fmt, ...)
{
    va_list args;
    size_t left = sizeof(words->text) - words->len;
    va_start(args, fmt);
    int n = vsnprintf(words->text + words->len, left, fmt, args);
    va_end(args);
    bench_must(n > 0 && (size_t)n < left, "a command line that long");
    words->len += (size_t)n;
}

static void split(struct words *words)
{
    char *rest = words->text;
    words->text[words->len - 1] = '\0';
    for (size_t i = 0; rest != NULL; i++) {
        bench_must(i + 1 < WORDS_MAX, "so many words");
        words->argv[i] = strsep(&rest, "|");
    }
}

/* As Motte's: a stream is refused by another machine. */
static void make_words(const struct floor_vm *vm, struct words *words)
{
    unsigned mib = vm->floor->memory_mib;
    add(words, "%s|-M|microvm,acpi=on,memory-backend=ram|-accel|tcg,tb-size=64|-cpu|max|",
        vm->floor->vmm);
    add(words, "-nodefaults|-no-user-config|-display|none|-no-reboot|-S|-m|%u|-smp|1|-object|",
        mib);
    add(words, "memory-backend-ram,id=ram,size=%uM|-incoming|defer|-name|%s|", mib,
        vm->slot.instance);
    add(words, "-drive|if=none,id=disk,format=raw,read-only=on,file=/disk|-device|");
    add(words, "virtio-blk-device,drive=disk,serial=motte-disk|-device|virtio-serial-device|");
    for (int i = 0; i < WIRE_SERIAL_PORTS; i++)
        add(words,
            "-chardev|socket,id=port%d,path=/vm/port.%d,server=on,wait=off|"
            "-device|virtserialport,chardev=port%d,name=motte.%d|",
            i, i, i, i);
    add(words,
        "-qmp|unix:/vm/api.sock,server=on,wait=off|-qmp|unix:/vm/events.sock,server=on,wait=off|");
    add(words, "-chardev|file,id=console,path=/vm/console|-serial|chardev:console|-sandbox|");
    add(words, "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny|");
    split(words);
}

static void bind_host(const struct floor_vm *vm, struct floor_jail *jail, const char *path,
                      uint64_t flags)
{
    cleanup_close int fd = open(path, O_PATH | O_CLOEXEC);
    bench_must(fd >= 0, path);
    floor_jail_bind(vm, jail, fd, path + 1, flags);
}

static void make_root(struct floor_vm *vm, struct floor_jail *jail)
{
    const struct floor *floor = vm->floor;
    uint32_t uid = vm->slot.uid;
    vm->root = openat(jail->base, ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    bench_must(mkdirat(vm->root, "dev", 0755) == 0 && mkdirat(vm->root, "proc", 0755) == 0 &&
                   symlinkat("usr/lib", vm->root, "lib") == 0 &&
                   symlinkat("usr/lib64", vm->root, "lib64") == 0 &&
                   mkdirat(vm->root, "vm", 0700) == 0 &&
                   fchownat(vm->root, "vm", uid, uid, AT_SYMLINK_NOFOLLOW) == 0,
               "the jail's directories");
    bind_host(vm, jail, "/usr", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV);
    bind_host(vm, jail, "/dev/null", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    bind_host(vm, jail, "/dev/urandom", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
    floor_jail_bind(vm, jail, floor->disk, "disk", FLOOR_DATA);
    floor_jail_bind(vm, jail, floor->kernel, "kernel", FLOOR_DATA);
    floor_jail_bind(vm, jail, floor->initrd, "initrd", FLOOR_DATA);
    floor_jail_bind(vm, jail, floor->state, "restore.state", FLOOR_DATA);
}

static void make_console(struct floor_vm *vm, struct floor_jail *jail)
{
    char path[48];
    uint32_t uid = vm->slot.uid;
    bench_must(mkfifoat(vm->root, "vm/console", 0600) == 0 &&
                   fchownat(vm->root, "vm/console", uid, uid, AT_SYMLINK_NOFOLLOW) == 0,
               "the console");
    snprintf(path, sizeof(path), "/proc/self/fd/%d/vm/console", vm->root);
    jail->output = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    vm->console = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    bench_must(jail->output >= 0 && vm->console >= 0, "the console");
}

void floor_qemu_launch(struct floor_vm *vm)
{
    struct floor_jail jail;
    struct words words = {0};
    bench_must(vm->floor->state >= 0, "a snapshot: this floor is of restores");
    floor_jail_init(&jail);
    make_root(vm, &jail);
    make_console(vm, &jail);
    make_words(vm, &words);
    jail.files = QEMU_FILES;
    jail.argv = words.argv;
    floor_jail_launch(vm, &jail);
}
