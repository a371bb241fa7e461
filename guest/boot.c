#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

enum { NODE_WAIT_MS = 2000 };

/* linux/ext4.h is not for user space; the number is (fs/ext4/ext4.h). */
#define EXT4_RESIZE _IOW('f', 16, uint64_t)

static void mount_or_die(const char *source, const char *target, const char *type,
                         unsigned long flags, const char *options)
{
    mkdir(target, 0755);
    if (mount(source, target, type, flags, options))
        guest_die(target);
}

void guest_boot_early(void)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    mount_or_die("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755");
    int console = open("/dev/console", O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (console < 0)
        console = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (console != fd)
            dup2(console, fd);
    if (console > STDERR_FILENO)
        close(console);
    mount_or_die("proc", "/proc", "proc", safe, "");
    mount_or_die("sys", "/sys", "sysfs", safe, "");
}

/* ext4 on the scratch disk is made small and grows to whatever the disk has. */
static void grow(const char *device, const char *at)
{
    struct statfs fs;
    uint64_t bytes;
    int disk = open(device, O_RDONLY | O_CLOEXEC);
    int dir = open(at, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk < 0 || dir < 0 || ioctl(disk, BLKGETSIZE64, &bytes) || statfs(at, &fs))
        guest_die(device);
    uint64_t blocks = bytes / (uint64_t)fs.f_bsize;
    if (ioctl(dir, EXT4_RESIZE, &blocks))
        guest_die("cannot grow the scratch disk's file system");
    close(disk);
    close(dir);
}

/* The writable layer: the scratch disk if there is one, else memory. */
static void mount_upper(void)
{
    if (access("/dev/vdb", F_OK) == 0) {
        mount_or_die("/dev/vdb", "/rw", "ext4", MS_NOATIME | MS_NODEV, "");
        grow("/dev/vdb", "/rw");
    } else {
        mount_or_die("rw", "/rw", "tmpfs", 0, "mode=0755");
    }
    mkdir("/rw/up", 0755);
    mkdir("/rw/work", 0755);
}

static void wait_for_disk(void)
{
    int64_t deadline = guest_mono_ms() + NODE_WAIT_MS;
    while (access("/dev/vda", F_OK)) {
        if (guest_mono_ms() > deadline) {
            errno = ENODEV;
            guest_die("no image: attach a squashfs file system as the first disk (/dev/vda)");
        }
        usleep(1000);
    }
}

/* Programs talk to themselves over localhost; it leads nowhere else. */
static void loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request))
        guest_say("no loopback interface: %s", strerror(errno));
    if (fd >= 0)
        close(fd);
}

static void mount_rest(void)
{
    const unsigned long safe = MS_NOSUID | MS_NODEV;
    mount_or_die("run", "/run", "tmpfs", safe, "mode=0755");
    mount_or_die("tmp", "/tmp", "tmpfs", safe, "mode=1777");
    mount_or_die("pts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "ptmxmode=0666");
    mount_or_die("shm", "/dev/shm", "tmpfs", safe, "mode=1777");
    mount_or_die("cgroup2", "/sys/fs/cgroup", "cgroup2", safe | MS_NOEXEC, "");
    static const char *const LINKS[][2] = {{"/proc/self/fd", "/dev/fd"},
                                           {"/proc/self/fd/0", "/dev/stdin"},
                                           {"/proc/self/fd/1", "/dev/stdout"},
                                           {"/proc/self/fd/2", "/dev/stderr"}};
    for (size_t i = 0; i < sizeof LINKS / sizeof LINKS[0]; i++)
        if (symlink(LINKS[i][0], LINKS[i][1]) && errno != EEXIST)
            guest_say("%s: %s", LINKS[i][1], strerror(errno));
    loopback_up();
}

void guest_boot_root(void)
{
    static const char *const MOVED[] = {"/dev", "/proc", "/sys"};
    wait_for_disk();
    mount_or_die("/dev/vda", "/lower", "squashfs", MS_RDONLY | MS_NODEV, "");
    mount_upper();
    mount_or_die("root", "/root", "overlay", 0, "lowerdir=/lower,upperdir=/rw/up,workdir=/rw/work");
    for (size_t i = 0; i < sizeof MOVED / sizeof MOVED[0]; i++) {
        char to[32];
        snprintf(to, sizeof to, "/root%s", MOVED[i]);
        mkdir(to, 0755);
        if (mount(MOVED[i], to, NULL, MS_MOVE, NULL))
            guest_die(to);
    }
    unlink("/init");
    /* pivot_root is refused on the initramfs: move the mount over / and chroot into it. */
    if (chdir("/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
        guest_die("cannot enter the image");
    mount_rest();
}
