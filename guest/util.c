#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ms(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t guest_mono_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t guest_boot_ms(void)
{
    return clock_ms(CLOCK_BOOTTIME);
}

void guest_say(const char *fmt, ...)
{
    char line[256] = "motte-agent: ";
    size_t start = strlen(line);
    va_list args;
    va_start(args, fmt);
    vsnprintf(line + start, sizeof line - start - 1, fmt, args);
    va_end(args);
    strcat(line, "\n");
    if (write(STDERR_FILENO, line, strlen(line)) < 0)
        return; /* no console: nobody to tell */
}

_Noreturn static void end_machine(void)
{
    tcdrain(STDERR_FILENO); /* else the last words are still queued when the machine stops */
    reboot(RB_AUTOBOOT);
    _exit(1);
}

_Noreturn void guest_die(const char *what)
{
    guest_say("%s: %s", what, strerror(errno));
    end_machine();
}

_Noreturn void guest_bye(const char *how)
{
    sync();
    guest_say("bye: %s", how);
    end_machine();
}

int guest_put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t put = write(fd, text, strlen(text));
    int saved = errno;
    close(fd);
    errno = saved;
    return put < 0 ? -1 : 0;
}

int guest_deny(struct guest_refusal *why, const char *code, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    why->code = code;
    vsnprintf(why->message, sizeof why->message, fmt, args);
    va_end(args);
    return -1;
}

int guest_deny_name(struct guest_refusal *why, const char *code, const char *name,
                    const char *words)
{
    char shown[80];
    size_t len = 0;
    for (; name[len] && len < sizeof shown - 1; len++)
        shown[len] = name[len];
    for (size_t i = 0; i < len; i++) /* JSON takes no bytes */
        if ((unsigned char)shown[i] - ' ' >= 0x7f - ' ')
            shown[i] = '?';
    shown[len] = '\0';
    return guest_deny(why, code, "%s: %s", len > 0 ? shown : "the archive", words);
}
