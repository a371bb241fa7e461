/* One line per event on stderr, for journald or a terminal. A line is one write: threads and the
 * two halves do not mix theirs. */
#include "base/base.h"

#include <errno.h>
#include <stdarg.h>

/* Set by main before threads start; the level again by a reload: the one piece of process-wide state
 * (docs/decisions). */
static struct {
    const char *program;
    _Atomic enum log_level level;
    /* NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables) */
} log_state = {"motte", LOG_LEVEL_INFO};

void log_open(const char *program, enum log_level level)
{
    log_state.program = program;
    log_state.level = level;
}

void log_set_level(enum log_level level)
{
    log_state.level = level;
}

void log_write(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    if (level > log_state.level)
        return;
    int saved = errno;
    char stamp[25], line[1024];
    clock_format(clock_wall_ms(), stamp);
    int at = snprintf(line, sizeof(line), "%s %s %s: ", stamp, log_state.program, names[level]);
    va_list args;
    va_start(args, fmt);
    int more = vsnprintf(line + at, sizeof(line) - (size_t)at - 1, fmt, args);
    va_end(args);
    size_t len = (size_t)at + (size_t)(more < 0 ? 0 : more);
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    for (size_t i = 0; i < len; i++) /* one event, one line, whatever a message carries */
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[len++] = '\n';
    (void)!write(STDERR_FILENO, line, len);
    errno = saved;
}
