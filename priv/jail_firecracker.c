/* Firecracker's jail: what its own jailer expects beneath <base>/<program>/<id>/root, staged before
 * the jailer runs. The jailer copies the program, makes the device nodes, gives root/ to the VM's
 * uid, changes root and drops its privileges. */
#include "priv/snapshot_internal.h"

#include "vsock/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { HELLO_BACKLOG = 4096 };

/* Firecracker connects to <vsock path>_<port> when the guest connects to the host. The connect
 * blocks the whole VMM while the backlog is full, hence its size. Made in our own network
 * namespace: a socket of the VM's would keep that alive. */
static int make_hello(struct priv_jail *jail, uint32_t uid, struct error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[32];
    snprintf(name, sizeof(name), "v.sock_%d", WIRE_PORT_HELLO);
    snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", jail->root, name);
    jail->hello = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (jail->hello < 0 ||
        bind(jail->hello, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(jail->hello, HELLO_BACKLOG) < 0 ||
        fchownat(jail->root, name, uid, uid, AT_SYMLINK_NOFOLLOW) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the socket for the guest's hello");
    return 0;
}

/* The process that reads it has dropped its privileges: root's, readable by the VM's group. */
static int write_filter(const struct priv_jail *jail, const struct priv_bytes *filter, uint32_t gid,
                        struct error *err)
{
    cleanup_close int fd = openat(jail->root, "seccomp.bpf",
                                  O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0440);
    if (fd < 0 || fs_write_all(fd, filter->data, filter->len) < 0 || fchown(fd, 0, gid) < 0 ||
        fchmod(fd, 0440) < 0)
        return error_set(err, ERR_LAUNCH, errno, "writing the seccomp filter into the jail");
    return 0;
}

/* A FIFO apart from the console, on which a guest's serial port writes whatever it likes: so what
 * the VMM says of itself cannot be said by its guest. Like the console, the VMM holds it open for
 * reading too and neither blocks nor fails when nobody reads. */
static int make_log(struct priv_instance_slot *slot, const struct priv_jail *jail,
                    struct error *err)
{
    uint32_t uid = slot->record.uid;
    if (mkfifoat(jail->root, PRIV_LOG, 0600) < 0 ||
        fchownat(jail->root, PRIV_LOG, uid, uid, AT_SYMLINK_NOFOLLOW) < 0 ||
        (slot->log = openat(jail->root, PRIV_LOG, O_RDONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC)) <
            0)
        return error_set(err, ERR_LAUNCH, errno, "making the VMM's log");
    return 0;
}

static int arguments(const struct priv_server *server, const struct priv_instance_slot *slot,
                     const char *filter_option, struct priv_child *child, struct error *err)
{
    const struct priv_record *record = &slot->record;
    int failed =
        priv_child_arg(child, "%s", server->jailer) | priv_child_arg(child, "--id") |
        priv_child_arg(child, "%s", record->instance) | priv_child_arg(child, "--exec-file") |
        priv_child_arg(child, "%s", server->firecracker) | priv_child_arg(child, "--uid") |
        priv_child_arg(child, "%u", record->uid) | priv_child_arg(child, "--gid") |
        priv_child_arg(child, "%u", record->uid) | priv_child_arg(child, "--chroot-base-dir") |
        priv_child_arg(child, "%s", child->base_path) | priv_child_arg(child, "--cgroup-version") |
        priv_child_arg(child, "1") | priv_child_arg(child, "--") |
        priv_child_arg(child, "--api-sock") | priv_child_arg(child, "/api.sock") |
        priv_child_arg(child, "--log-path") | priv_child_arg(child, "/" PRIV_LOG);
    if (filter_option != NULL)
        failed |= priv_child_arg(child, "%s", filter_option);
    if (filter_option != NULL && strcmp(filter_option, "--seccomp-filter") == 0)
        failed |= priv_child_arg(child, "/seccomp.bpf");
    return failed ? error_set(err, ERR_NO_MEMORY, 0, "out of memory for the VMM's arguments") : 0;
}

/* NULL: Firecracker's built-in filter, which is level minimal. */
static const char *filter_option(const struct priv_server *server,
                                 const struct priv_instance_slot *slot)
{
    uint32_t level = slot->record.shape.seccomp;
    if ((server->config.without & PRIV_GUARD_SECCOMP) && level != PRIV_SECCOMP_PERMISSIVE)
        return "--no-seccomp";
    return server->filters[level].data == NULL ? NULL : "--seccomp-filter";
}

static int make_console(struct priv_instance_slot *slot, struct priv_child *child,
                        struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making the console pipe");
    int result = priv_console_open(ends[1], slot, child, err);
    close(ends[0]);
    close(ends[1]);
    return result;
}

int priv_prepare_firecracker(struct priv_server *server, struct priv_instance_slot *slot,
                             const uint8_t image[static HASH_SIZE], struct priv_child *child,
                             struct error *err)
{
    struct image_kernel kernel;
    char path[PRIV_PATH_MAX];
    const char *option = filter_option(server, slot);
    const char *program = strrchr(server->firecracker, '/') + 1;
    snprintf(path, sizeof(path), "%s/%s/root", program, slot->record.instance);
    snprintf(child->program, sizeof(child->program), "%s", server->jailer);
    if (priv_jail_tmpfs(&child->jail, path, err) < 0 ||
        priv_jail_images(server, slot, image, child, &kernel, err) < 0 ||
        priv_places_make(&child->jail, child->restore, child->null, err) < 0 ||
        make_hello(&child->jail, slot->record.uid, err) < 0 ||
        make_log(slot, &child->jail, err) < 0 || make_console(slot, child, err) < 0)
        return -1;
    priv_note_kernel(server, slot, &kernel);
    if (option != NULL && strcmp(option, "--seccomp-filter") == 0 &&
        write_filter(&child->jail, &server->filters[slot->record.shape.seccomp], slot->record.uid,
                     err) < 0)
        return -1;
    return arguments(server, slot, option, child, err);
}
