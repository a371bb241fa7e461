/* Which system calls change something, and a name for each that is the same in the next run. */
#include "tracer.h"

#include <ctype.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum what {
    WHAT_PLAIN, /* always */
    WHAT_PATH,  /* a path; `dir` is the argument that says beneath what, or NONE */
    WHAT_FD,    /* a descriptor */
    WHAT_FILE,  /* a descriptor, if it is a file or a socket: not a log, an event or a pipe */
    WHAT_OPEN,  /* a path, if it may be created */
    WHAT_CLONE, /* a process, not a thread */
    WHAT_TABLE, /* a socket option, if it is the firewall's */
};
enum { NONE = -1 };

static const struct call {
    long number;
    const char *name;
    enum what what;
    int at, dir;
} calls[] = {
    {SYS_mkdir, "mkdir", WHAT_PATH, 0, NONE},
    {SYS_mkdirat, "mkdirat", WHAT_PATH, 1, 0},
    {SYS_rmdir, "rmdir", WHAT_PATH, 0, NONE},
    {SYS_unlink, "unlink", WHAT_PATH, 0, NONE},
    {SYS_unlinkat, "unlinkat", WHAT_PATH, 1, 0},
    {SYS_rename, "rename", WHAT_PATH, 1, NONE},
    {SYS_renameat, "renameat", WHAT_PATH, 3, 2},
    {SYS_renameat2, "renameat2", WHAT_PATH, 3, 2},
    {SYS_linkat, "linkat", WHAT_PATH, 3, 2},
    {SYS_symlinkat, "symlinkat", WHAT_PATH, 2, 1},
    {SYS_mknodat, "mknodat", WHAT_PATH, 1, 0},
    {SYS_openat, "openat", WHAT_OPEN, 1, 0},
    {SYS_openat2, "openat2", WHAT_OPEN, 1, 0},
    {SYS_chmod, "chmod", WHAT_PATH, 0, NONE},
    {SYS_fchmod, "fchmod", WHAT_FD, 0, NONE},
    {SYS_fchmodat, "fchmodat", WHAT_PATH, 1, 0},
    {SYS_chown, "chown", WHAT_PATH, 0, NONE},
    {SYS_fchown, "fchown", WHAT_FD, 0, NONE},
    {SYS_fchownat, "fchownat", WHAT_PATH, 1, 0},
    {SYS_ftruncate, "ftruncate", WHAT_FD, 0, NONE},
    {SYS_fallocate, "fallocate", WHAT_FD, 0, NONE},
    {SYS_fsync, "fsync", WHAT_FD, 0, NONE},
    {SYS_fdatasync, "fdatasync", WHAT_FD, 0, NONE},
    {SYS_write, "write", WHAT_FILE, 0, NONE},
    {SYS_pwrite64, "pwrite64", WHAT_FILE, 0, NONE},
    {SYS_writev, "writev", WHAT_FILE, 0, NONE},
    {SYS_pwritev, "pwritev", WHAT_FILE, 0, NONE},
    {SYS_sendmsg, "sendmsg", WHAT_FILE, 0, NONE},
    {SYS_sendto, "sendto", WHAT_FILE, 0, NONE},
    {SYS_mount, "mount", WHAT_PATH, 1, NONE},
    {SYS_umount2, "umount2", WHAT_PATH, 0, NONE},
    {SYS_fsmount, "fsmount", WHAT_PLAIN, 0, NONE},
    {SYS_open_tree, "open_tree", WHAT_PATH, 1, 0},
    {SYS_move_mount, "move_mount", WHAT_PATH, 3, 2},
    {SYS_mount_setattr, "mount_setattr", WHAT_PLAIN, 0, NONE},
    {SYS_pivot_root, "pivot_root", WHAT_PLAIN, 0, NONE},
    {SYS_setns, "setns", WHAT_PLAIN, 0, NONE},
    {SYS_unshare, "unshare", WHAT_PLAIN, 0, NONE},
    {SYS_clone, "clone", WHAT_CLONE, 0, NONE},
    {SYS_clone3, "clone3", WHAT_CLONE, 0, NONE},
    {SYS_vfork, "vfork", WHAT_PLAIN, 0, NONE},
    {SYS_execve, "execve", WHAT_PATH, 0, NONE},
    {SYS_kill, "kill", WHAT_PLAIN, 0, NONE},
    {SYS_pidfd_send_signal, "pidfd_send_signal", WHAT_PLAIN, 0, NONE},
    {SYS_wait4, "wait4", WHAT_PLAIN, 0, NONE},
    {SYS_waitid, "waitid", WHAT_PLAIN, 0, NONE},
    {SYS_bind, "bind", WHAT_PLAIN, 0, NONE},
    {SYS_listen, "listen", WHAT_PLAIN, 0, NONE},
    {SYS_connect, "connect", WHAT_PLAIN, 0, NONE},
    {SYS_setsockopt, "setsockopt", WHAT_TABLE, 0, NONE},
};

static bool read_memory(pid_t tid, uint64_t from, void *to, size_t len)
{
    struct iovec local = {to, len}, remote = {(void *)(uintptr_t)from, len};
    return process_vm_readv(tid, &local, 1, &remote, 1, 0) == (ssize_t)len;
}

static void read_string(pid_t tid, uint64_t from, char *out, size_t size)
{
    size_t len = 0;
    while (len + 1 < size && read_memory(tid, from + len, out + len, 1) && out[len] != '\0')
        len++;
    out[len] = '\0';
}

static void link_of(pid_t tid, int fd, char *out, size_t size)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/fd/%d", tid, fd);
    ssize_t n = fd < 0 ? 0 : readlink(path, out, size - 1);
    out[n < 0 ? 0 : n] = '\0';
}

/* Letters and digits in a row: an id, a digest or a number has no name of its own. */
static size_t replaced(const char *text, const char **ret)
{
    size_t len = 0, digits = 0;
    while (isalnum((unsigned char)text[len])) {
        digits += isdigit((unsigned char)text[len]) != 0;
        len++;
    }
    *ret = len >= 20 ? "ID" : digits == len && len > 0 ? "N" : NULL;
    return len;
}

/* The last two parts of a path, with what differs from run to run replaced. */
static void append_normal(char *out, const char *path)
{
    const char *from = path + strlen(path);
    for (int slashes = 0; from > path; from--)
        if (from[-1] == '/' && ++slashes == 2)
            break;
    size_t at = strlen(out);
    while (*from != '\0' && at + 24 < POINT_MAX) {
        const char *instead = NULL;
        size_t len = replaced(from, &instead);
        if (len == 0)
            len = 1;
        at += (size_t)snprintf(out + at, POINT_MAX - at, "%.*s",
                               instead != NULL ? (int)strlen(instead) : (int)len,
                               instead != NULL ? instead : from);
        from += len;
    }
}

static bool name_path(pid_t tid, const struct call *call, const uint64_t *args, char *out)
{
    char whole[600], dir[256] = "", path[256];
    read_string(tid, args[call->at], path, sizeof(path));
    if (call->dir != NONE && path[0] != '/')
        link_of(tid, (int)args[call->dir], dir, sizeof(dir));
    snprintf(whole, sizeof(whole), "%s%s%s", dir, dir[0] != '\0' ? "/" : "", path);
    append_normal(out, whole);
    return true;
}

static bool name_file(pid_t tid, int fd, char *out)
{
    char link[256];
    link_of(tid, fd, link, sizeof(link));
    if (strncmp(link, "socket:", 7) == 0) {
        strcat(out, "socket");
        return true;
    }
    if (link[0] != '/' || fd <= 2 || strncmp(link, "/dev/", 5) == 0)
        return false;
    append_normal(out, link);
    return true;
}

static bool creates(pid_t tid, const struct call *call, const uint64_t *args)
{
    uint64_t flags = args[2];
    if (call->number == SYS_openat2 && !read_memory(tid, args[2], &flags, sizeof(flags)))
        return false;
    return (flags & O_CREAT) != 0;
}

static bool makes_process(pid_t tid, const struct call *call, const uint64_t *args)
{
    uint64_t flags = args[0];
    if (call->number == SYS_clone3 && !read_memory(tid, args[0], &flags, sizeof(flags)))
        return false;
    return (flags & CLONE_THREAD) == 0;
}

/* 64 and beyond: the xtables' own options (IPT_SO_SET_REPLACE and its kin). */
static bool is_table(const uint64_t *args)
{
    return (args[1] == IPPROTO_IP || args[1] == IPPROTO_IPV6) && args[2] >= 64;
}

static bool describe(pid_t tid, const struct call *call, const uint64_t *args, char *out)
{
    switch (call->what) {
    case WHAT_PATH:
        return name_path(tid, call, args, out);
    case WHAT_OPEN:
        return creates(tid, call, args) && name_path(tid, call, args, out);
    case WHAT_FD:
    case WHAT_FILE:
        return name_file(tid, (int)args[call->at], out);
    case WHAT_CLONE:
        return makes_process(tid, call, args);
    case WHAT_TABLE:
        return is_table(args);
    case WHAT_PLAIN:
        return true;
    }
    return false;
}

bool point_name(pid_t tid, enum role role, uint64_t number, const uint64_t args[static 6],
                char out[static POINT_MAX])
{
    static const char *const roles[ROLE_COUNT] = {"root", "front", "child"};
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if ((uint64_t)calls[i].number == number) {
            snprintf(out, POINT_MAX, "%s %s ", roles[role], calls[i].name);
            return describe(tid, &calls[i], args, out);
        }
    return false;
}
