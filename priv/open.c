/* OPEN: descriptors of a launched VMM. The VM's uid owns the directory its sockets lie in, so each
 * is opened beneath the jail's root, looked at, and only that very inode is given to the front. */
#include "priv/internal.h"

#include "vsock/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { TAIL_PIPE_MAX = 65536, TAIL_SHOWN = 160, LISTENING_POLL_MS = 1, UNIX_MAX = 1 << 16 };

/* What the VMM wrote last, without taking it away from the front, which reads the same pipe. */
static void tail(int pipe_end, char *out, size_t size)
{
    int ends[2];
    out[0] = '\0';
    cleanup_free char *text = malloc(TAIL_PIPE_MAX);
    if (pipe_end < 0 || text == NULL || pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
        return;
    cleanup_close int read_end = ends[0], write_end = ends[1];
    ssize_t n = tee(pipe_end, write_end, TAIL_PIPE_MAX, SPLICE_F_NONBLOCK);
    n = n <= 0 ? 0 : read(read_end, text, TAIL_PIPE_MAX);
    if (n <= 0)
        return;
    while (n > 0 && (unsigned char)text[n - 1] <= ' ')
        n--;
    size_t len = (size_t)n < size - 1 ? (size_t)n : size - 1;
    memcpy(out, text + (size_t)n - len, len);
    out[len] = '\0';
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)out[i] < ' ' || (unsigned char)out[i] > '~')
            out[i] = ' ';
}

int priv_slot_exited(const struct priv_instance_slot *slot, struct error *err)
{
    char last[TAIL_SHOWN];
    tail(slot->console, last, sizeof(last));
    if (last[0] == '\0')
        tail(slot->log, last, sizeof(last));
    return error_set(err, ERR_VMM_EXITED, 0, "the VMM has ended%s%s",
                     last[0] == '\0' ? "" : "; it last wrote: ", last);
}

static int jail_root(const struct priv_instance_slot *slot, struct error *err)
{
    char path[32];
    if (slot->root >= 0)
        return fcntl(slot->root, F_DUPFD_CLOEXEC, 3);
    snprintf(path, sizeof(path), "/proc/%d/root", slot->record.pid);
    int root = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int error = root >= 0 ? 0 : errno;
    if (priv_pidfd_ended(slot->pidfd)) {
        cleanup_close_func(&root);
        return error_set(err, ERR_VMM_EXITED, 0, "the VMM has ended");
    }
    return root >= 0 ? root : error_set(err, ERR_SYSTEM, error, "opening %s", path);
}

/* One line of /proc/PID/net/unix: number, references, protocol, flags, type, state, inode, path. */
static bool is_listener(char *line, const char *name)
{
    enum { FLAGS = 3, PATH = 7, ACCEPTS = 0x10000 }; /* __SO_ACCEPTCON */
    char *rest = NULL, *field = strtok_r(line, " ", &rest);
    unsigned long flags = 0;
    for (int i = 0; i < PATH && field != NULL; i++) {
        if (i == FLAGS)
            flags = strtoul(field, NULL, 16);
        field = strtok_r(NULL, " ", &rest);
    }
    if (field == NULL || !(flags & ACCEPTS))
        return false;
    return strcmp(field[0] == '/' ? field + 1 : field, name) == 0;
}

/* Does a socket of that name listen in the VM's network namespace? 1, 0, or -1: it cannot be said. Its
 * node is there a moment before listen(2), and a connect in between is refused. */
static int listens(pid_t pid, const char *name, struct error *err)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/%d/net/unix", (int)pid);
    cleanup_free char *text = malloc(UNIX_MAX);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for %s", path);
    if (fs_read_at(AT_FDCWD, path, text, UNIX_MAX) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "reading %s", path);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (is_listener(line, name))
            return 1;
    return 0;
}

static int take_socket(const struct priv_instance_slot *slot, uint32_t gid, int root,
                       const char *name, struct error *err)
{
    struct stat st;
    char path[32];
    cleanup_close int fd = fs_open_beneath(root, name, O_PATH | O_NOFOLLOW, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "opening the VMM's socket %s", name);
    if (!S_ISSOCK(st.st_mode) || st.st_uid != slot->record.uid)
        return error_set(err, ERR_HYPERVISOR, 0, "the VMM's %s is not a socket of its own", name);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (fchownat(fd, "", (uid_t)-1, gid, AT_EMPTY_PATH) < 0 || chmod(path, 0660) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "giving the VMM's socket %s to the front",
                         name);
    return TAKE_FD(fd);
}

/* 1: it may be there, look again; 0: time is up or the server stops. */
static int wait_for_news(struct priv_server *server, const struct priv_instance_slot *slot,
                         int news, bool node_there, int64_t deadline_ms)
{
    char events[1024];
    struct pollfd fds[] = {{.fd = slot->pidfd, .events = POLLIN},
                           {.fd = server->stop, .events = POLLIN},
                           {.fd = news, .events = POLLIN}};
    int left = clock_left_ms(deadline_ms);
    if (left == 0)
        return 0;
    poll(fds, COUNT_OF(fds), node_there ? LISTENING_POLL_MS : left);
    (void)!read(news, events, sizeof(events)); /* once: the VMM could go on making files */
    return fds[1].revents == 0;
}

/* 1: it listens; 0: not yet, but its node may be there. */
static int look_for(const struct priv_instance_slot *slot, int root, const char *name,
                    bool *ret_node, struct error *err)
{
    struct stat st;
    struct error unheard = {0};
    *ret_node = fstatat(root, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    if (!*ret_node && errno != ENOENT)
        return error_set(err, ERR_HYPERVISOR, errno, "looking for the VMM's socket %s", name);
    int heard = *ret_node ? listens(slot->record.pid, name, &unheard) : 0;
    if (priv_pidfd_ended(slot->pidfd))
        return priv_slot_exited(slot, err);
    if (heard < 0)
        *err = unheard;
    return heard;
}

static int watch_folder(struct priv_server *server, int root, const char *name,
                        struct priv_news *ret, struct error *err)
{
    char folder[16] = ".";
    const char *slash = strrchr(name, '/');
    if (slash != NULL)
        snprintf(folder, sizeof(folder), "%.*s", (int)(slash - name), name);
    cleanup_close int directory = fs_open_beneath(root, folder, O_PATH | O_DIRECTORY, 0);
    if (directory < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "watching the jail for %s", name);
    return priv_news_begin(server, directory, ret, err);
}

static int open_socket(struct priv_server *server, const struct priv_instance_slot *slot,
                       const char *name, struct error *err)
{
    cleanup(priv_news_end) struct priv_news news = {0};
    cleanup_close int root = jail_root(slot, err);
    if (root < 0)
        return -1;
    /* One that was adopted listens already, or never will: nobody waits for it at start. */
    int64_t deadline = clock_mono_ms() + (slot->child ? PRIV_OPEN_TIMEOUT_MS : 0);
    for (bool watched = false;; watched = true) {
        bool node = false;
        int found = look_for(slot, root, name, &node, err);
        if (found < 0)
            return -1;
        if (found > 0)
            return take_socket(slot, server->config.front_gid, root, name, err);
        if (!watched && watch_folder(server, root, name, &news, err) < 0)
            return -1;
        if (watched && !wait_for_news(server, slot, news.fd, node, deadline))
            return error_set(err, ERR_HYPERVISOR, 0,
                             "the VMM has not opened its socket %s in %d ms", name,
                             PRIV_OPEN_TIMEOUT_MS);
    }
}

/* The VMM could have put anything in the place of its output: only a pipe is opened. */
static int reopen_console(const struct priv_instance_slot *slot, struct error *err)
{
    char path[32];
    struct stat st;
    snprintf(path, sizeof(path), "/proc/%d/fd/1", slot->record.pid);
    cleanup_close int there = open(path, O_PATH | O_CLOEXEC);
    if (there < 0 || fstat(there, &st) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "opening the VMM's console");
    if (!S_ISFIFO(st.st_mode) || priv_pidfd_ended(slot->pidfd))
        return error_set(err, ERR_HYPERVISOR, 0, "the VMM's console is gone");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", there);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 ? fd : error_set(err, ERR_HYPERVISOR, errno, "reopening the VMM's console");
}

/* The VM's uid owns the directory that it lies in: only a FIFO of its own is opened. */
static int reopen_log(const struct priv_instance_slot *slot, struct error *err)
{
    char path[32];
    struct stat st;
    cleanup_close int root = jail_root(slot, err);
    if (root < 0)
        return -1;
    cleanup_close int there = fs_open_beneath(root, PRIV_LOG, O_PATH | O_NOFOLLOW, 0);
    if (there < 0 || fstat(there, &st) < 0)
        return error_set(err, ERR_HYPERVISOR, errno, "opening the VMM's log");
    if (!S_ISFIFO(st.st_mode) || st.st_uid != slot->record.uid)
        return error_set(err, ERR_HYPERVISOR, 0, "the VMM's log is gone");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", there);
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    return fd >= 0 ? fd : error_set(err, ERR_HYPERVISOR, errno, "reopening the VMM's log");
}

/* Nobody else can open the file; who has this can write it as long as he likes, and CAPTURE and PUBLISH
 * judge what they find. */
static int open_staged(const struct priv_instance_slot *slot, struct error *err)
{
    char path[32];
    if (slot->record.hypervisor != PRIV_QEMU)
        return error_set(err, ERR_PRIV_REFUSED, 0, "Firecracker has places, not descriptors");
    if (slot->phase != PRIV_PHASE_STAGED)
        return error_set(err, ERR_PRIV_REFUSED, 0, "no snapshot of this VM is staged");
    snprintf(path, sizeof(path), "/proc/self/fd/%d", slot->staged[0]);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 ? fd : error_set(err, ERR_SYSTEM, errno, "opening the staged file");
}

static int open_what(struct priv_server *server, struct priv_instance_slot *slot, uint32_t what,
                     uint32_t port, struct error *err)
{
    bool qemu = slot->record.hypervisor == PRIV_QEMU;
    char name[24];
    switch ((enum priv_socket)what) {
    case PRIV_SOCKET_API:
        return open_socket(server, slot, qemu ? "vm/api.sock" : "api.sock", err);
    case PRIV_SOCKET_VSOCK:
        if (!qemu)
            return open_socket(server, slot, "v.sock", err);
        return error_set(err, ERR_PRIV_REFUSED, 0, "QEMU has serial ports, not vsock");
    case PRIV_SOCKET_EVENTS:
        if (qemu)
            return open_socket(server, slot, "vm/events.sock", err);
        return error_set(err, ERR_PRIV_REFUSED, 0, "Firecracker has a log, not events");
    case PRIV_SOCKET_PORT:
        if (!qemu)
            return error_set(err, ERR_PRIV_REFUSED, 0, "Firecracker has vsock, not serial ports");
        if (port >= WIRE_SERIAL_PORTS)
            return error_set(err, ERR_PRIV_REFUSED, 0, "no such serial port");
        snprintf(name, sizeof(name), "vm/port.%u", port);
        return open_socket(server, slot, name, err);
    case PRIV_SOCKET_CONSOLE:
        if (slot->console < 0)
            slot->console = reopen_console(slot, err);
        return slot->console < 0 ? -1 : fcntl(slot->console, F_DUPFD_CLOEXEC, 3);
    case PRIV_SOCKET_PIDFD:
        return fcntl(slot->pidfd, F_DUPFD_CLOEXEC, 3);
    case PRIV_SOCKET_LOG:
        if (qemu)
            return error_set(err, ERR_PRIV_REFUSED, 0, "QEMU has no log of its own");
        if (slot->log < 0)
            slot->log = reopen_log(slot, err);
        return slot->log < 0 ? -1 : fcntl(slot->log, F_DUPFD_CLOEXEC, 3);
    case PRIV_SOCKET_STAGED:
        return open_staged(slot, err);
    }
    return error_set(err, ERR_PRIV_REFUSED, 0, "no such thing to open");
}

int priv_op_open(struct priv_server *server, struct priv_instance_slot *slot,
                 const struct priv_request *request, struct priv_answer *answer, struct error *err)
{
    if (slot->pidfd < 0)
        return error_set(err, ERR_VMM_EXITED, 0, "the VMM has ended");
    int fd = open_what(server, slot, request->u.open.what, request->u.open.port, err);
    if (fd < 0)
        return err->code != ERR_NONE ? -1
                                     : error_set(err, ERR_SYSTEM, errno, "copying a descriptor");
    answer->fds[answer->fd_count++] = fd;
    return 0;
}
