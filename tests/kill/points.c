/* A name for each call of calls.c that is the same in the next run, and how it can fail. */
#include "calls.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

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

static bool locks(pid_t tid, const struct call *call, const uint64_t *args)
{
    struct flock lock;
    return args[1] == F_SETLK && read_memory(tid, args[call->at], &lock, sizeof(lock)) &&
           lock.l_type != F_UNLCK;
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
    case WHAT_THREAD:
        return !makes_process(tid, call, args);
    case WHAT_TABLE:
        return is_table(args);
    case WHAT_LOCK:
        return locks(tid, call, args);
    case WHAT_ONE:
        return args[call->at] == (uint64_t)call->dir;
    case WHAT_PLAIN:
        return true;
    }
    return false;
}

/* What is full is a disk: a socket lacks memory, and so does a file that the kernel makes up. */
static void fit_errors(pid_t tid, const struct call *call, const uint64_t *args,
                       struct point *point)
{
    char link[256] = "";
    memcpy(point->errors, call->errors, sizeof(point->errors));
    if ((call->what != WHAT_FILE && call->what != WHAT_FD) || call->errors[0] < 0)
        return;
    link_of(tid, (int)args[call->at], link, sizeof(link));
    int instead = link[0] != '/'                                                      ? ENOBUFS
                  : strncmp(link, "/sys/", 5) == 0 || strncmp(link, "/proc/", 6) == 0 ? ENOMEM
                                                                                      : 0;
    if (instead != 0)
        memcpy(point->errors, (int[POINT_ERRORS]){instead}, sizeof(point->errors));
}

bool point_of(pid_t tid, enum role role, uint64_t number, const uint64_t args[static 6],
              struct point *ret)
{
    static const char *const roles[ROLE_COUNT] = {"root", "front", "child"};
    for (size_t i = 0; i < call_count; i++) {
        const struct call *call = &calls[i];
        if ((uint64_t)call->number != number)
            continue;
        snprintf(ret->name, sizeof(ret->name), "%s %s ", roles[role], call->name);
        if (!describe(tid, call, args, ret->name))
            continue;
        ret->changes = !call->reads;
        fit_errors(tid, call, args, ret);
        return true;
    }
    return false;
}
