/* Preloaded by tests/valgrind.sh: valgrind 3.19 does not know openat2(2) and answers ENOSYS. In its
 * place openat(2), which keeps no path beneath a directory: nothing about that is tested there. */
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef long call(long number, ...);

/* In the place of libc's. */
__attribute__((visibility("default"))) long syscall(long number, ...)
{
    long args[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        args[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_openat2) {
        const struct open_how *how = (const struct open_how *)args[2];
        return openat((int)args[0], (const char *)args[1], (int)how->flags, (mode_t)how->mode);
    }
    static call *libcs;
    if (libcs == NULL)
        *(void **)&libcs = dlsym(RTLD_NEXT, "syscall");
    return libcs(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}
