/* See refuse.h. */
#include "refuse.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/stat.h>

struct script {
    struct refusal refusal;
    unsigned seen, refused;
};

static struct script *script(enum refusable call)
{
    static _Thread_local struct script scripts[REFUSABLE];
    return &scripts[call];
}

void refuse(enum refusable call, struct refusal refusal)
{
    *script(call) = (struct script){.refusal = refusal};
}

void refuse_nothing(void)
{
    for (enum refusable call = 0; call < REFUSABLE; call++)
        refuse(call, (struct refusal){0});
}

unsigned refused(enum refusable call)
{
    return script(call)->refused;
}

/* True, with errno: the call fails. */
static bool refuses(enum refusable call)
{
    struct script *at = script(call);
    struct refusal *refusal = &at->refusal;
    if (refusal->times == 0 && refusal->meanwhile == NULL)
        return false;
    if (at->seen++ < refusal->after)
        return false;
    if (refusal->meanwhile != NULL) {
        void (*meanwhile)(void *) = refusal->meanwhile;
        refusal->meanwhile = NULL;
        meanwhile(refusal->context);
    }
    if (at->refused == refusal->times)
        return false;
    at->refused++;
    errno = refusal->sys;
    return true;
}

static bool refuses_path(enum refusable call, const char *path)
{
    const char *end = script(call)->refusal.path;
    size_t len = strlen(path), end_len = end == NULL ? 0 : strlen(end);
    if (end != NULL && (len < end_len || strcmp(path + len - end_len, end) != 0))
        return false;
    return refuses(call);
}

/* ---- what the linker puts in the place of the calls ------------------------------------------- */

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size)
{
    return refuses(REFUSE_CALLOC) ? NULL : __real_calloc(count, size);
}

void *__real_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_realloc(void *old, size_t size)
{
    return refuses(REFUSE_REALLOC) ? NULL : __real_realloc(old, size);
}

void *__real_reallocarray(void *old, size_t count, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
    return refuses(REFUSE_REALLOCARRAY) ? NULL : __real_reallocarray(old, count, size);
}

int __real_pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context);
int __wrap_pthread_create(pthread_t *ret, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *context)
{
    return refuses(REFUSE_PTHREAD_CREATE) ? errno
                                          : __real_pthread_create(ret, attributes, run, context);
}

int __real_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock);
int __wrap_pthread_cond_wait(pthread_cond_t *condition, pthread_mutex_t *lock)
{
    (void)refuses(REFUSE_PTHREAD_COND_WAIT);
    return __real_pthread_cond_wait(condition, lock);
}

int __real_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags);
int __wrap_eventfd(unsigned count, int flags)
{
    return refuses(REFUSE_EVENTFD) ? -1 : __real_eventfd(count, flags);
}

int __real_epoll_create1(int flags);
int __wrap_epoll_create1(int flags);
int __wrap_epoll_create1(int flags)
{
    return refuses(REFUSE_EPOLL_CREATE1) ? -1 : __real_epoll_create1(flags);
}

int __real_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event);
int __wrap_epoll_ctl(int epoll, int what, int fd, struct epoll_event *event)
{
    return refuses(REFUSE_EPOLL_CTL) ? -1 : __real_epoll_ctl(epoll, what, fd, event);
}

int __real_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...);
int __wrap_openat(int dirfd, const char *path, int flags, ...)
{
    mode_t mode = 0;
    if ((flags & O_CREAT) != 0) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return refuses_path(REFUSE_OPENAT, path) ? -1 : __real_openat(dirfd, path, flags, mode);
}

int __real_stat(const char *path, struct stat *ret);
int __wrap_stat(const char *path, struct stat *ret);
int __wrap_stat(const char *path, struct stat *ret)
{
    return refuses_path(REFUSE_STAT, path) ? -1 : __real_stat(path, ret);
}

DIR *__real_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd);
DIR *__wrap_fdopendir(int fd)
{
    return refuses(REFUSE_FDOPENDIR) ? NULL : __real_fdopendir(fd);
}

struct dirent *__real_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir);
struct dirent *__wrap_readdir(DIR *dir)
{
    return refuses(REFUSE_READDIR) ? NULL : __real_readdir(dir);
}

ssize_t __real_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    return refuses(REFUSE_GETRANDOM) ? -1 : __real_getrandom(out, size, flags);
}

int __real_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    if (refuses(REFUSE_POLL))
        return errno == 0 ? 0 : -1;
    return __real_poll(fds, count, timeout_ms);
}

/* None of those that Motte makes this way has more than six arguments. */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    long arguments[6];
    va_list args;
    va_start(args, number);
    for (size_t i = 0; i < sizeof(arguments) / sizeof(arguments[0]); i++)
        arguments[i] = va_arg(args, long);
    va_end(args);
    if (script(REFUSE_SYSCALL)->refusal.number == number && refuses(REFUSE_SYSCALL))
        return -1;
    return __real_syscall(number, arguments[0], arguments[1], arguments[2], arguments[3],
                          arguments[4], arguments[5]);
}
