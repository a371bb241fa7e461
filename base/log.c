/* One line per event on stderr, for journald, a terminal or a collector. A line is one write: threads
 * and the two halves do not mix theirs. */
#include "base/base.h"

#include <errno.h>
#include <stdarg.h>

/* Set by main before threads start; the level again by a reload: the one piece of process-wide state
 * (docs/decisions). */
static struct {
    const char *program;
    _Atomic enum log_level level;
    enum log_format format;
    /* NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables) */
} log_state = {"motte", LOG_LEVEL_INFO, LOG_TEXT};

/* NOLINTNEXTLINE(cppcoreguidelines-avoid-non-const-global-variables) */
static _Thread_local char log_request[LOG_REQUEST_SIZE];

void log_open(const char *program, enum log_level level, enum log_format format)
{
    log_state.program = program;
    log_state.level = level;
    log_state.format = format;
}

void log_set_level(enum log_level level)
{
    log_state.level = level;
}

const char *log_request_id(void)
{
    return log_request;
}

void log_set_request(const char *request_id)
{
    snprintf(log_request, sizeof(log_request), "%s", request_id != NULL ? request_id : "");
}

/* ---- a line ---- */

enum {
    LINE_SIZE = 2048,
    LINE_END = 3,       /* of JSON: "}\n */
    LINE_MESSAGE = 512, /* fields leave so much to the message in JSON, where it comes last */
};

struct line {
    char text[LINE_SIZE];
    size_t len, max;
};

/* False, and nothing is put, if it does not fit. */
static bool put(struct line *line, const char *text)
{
    size_t len = strlen(text);
    if (line->len + len > line->max)
        return false;
    memcpy(line->text + line->len, text, len);
    line->len += len;
    return true;
}

/* One event, one line, whatever a value carries. False when it was cut. */
static bool put_value(struct line *line, const char *value)
{
    bool json = log_state.format == LOG_JSON;
    for (const unsigned char *at = (const unsigned char *)value; *at != '\0'; at++) {
        bool odd = *at < 0x20 || *at == 0x7f || (json && *at > 0x7f);
        char one[3] = {(char)(odd ? '?' : *at)};
        if (json && (*at == '"' || *at == '\\'))
            memcpy(one, (char[]){'\\', (char)*at, '\0'}, sizeof(one));
        if (!put(line, one))
            return false;
    }
    return true;
}

/* The whole member or nothing of it. */
static void put_member(struct line *line, const struct log_field *field)
{
    const char *quote = field->number ? "" : "\"";
    size_t before = line->len;
    if (field->value != NULL &&
        !(put(line, "\"") && put(line, field->name) && put(line, "\":") && put(line, quote) &&
          put_value(line, field->value) && put(line, quote) && put(line, ",")))
        line->len = before;
}

static void put_beside(struct line *line, const struct log_field *field)
{
    size_t before = line->len;
    const char *value = field->value != NULL ? field->value : "-";
    if (!field->told &&
        !(put(line, " ") && put(line, field->name) && put(line, "=") && put_value(line, value)))
        line->len = before;
}

static void write_line(struct line *line)
{
    int saved = errno;
    line->text[line->len++] = '\n';
    (void)!write(STDERR_FILENO, line->text, line->len);
    errno = saved;
}

/* ---- the two formats ---- */

static const char *level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warn", "info", "debug"};
    return names[level];
}

static void write_text(enum log_level level, const char *message, const struct log_field *fields,
                       size_t count)
{
    struct line line = {.max = LINE_SIZE - LINE_END};
    char stamp[25];
    clock_format(clock_wall_ms(), stamp);
    put(&line, stamp);
    put(&line, " ");
    put(&line, log_state.program);
    put(&line, " ");
    put(&line, level_name(level));
    put(&line, ": ");
    put_value(&line, message);
    for (size_t i = 0; i < count; i++)
        put_beside(&line, &fields[i]);
    if (log_request[0] != '\0')
        put_beside(&line, &(struct log_field){.name = "request_id", .value = log_request});
    write_line(&line);
}

/* The message comes last, as it is the one that may be cut. */
static void write_json(enum log_level level, const char *message, const struct log_field *fields,
                       size_t count)
{
    struct line line = {.max = LINE_SIZE - LINE_MESSAGE};
    char stamp[25];
    clock_format(clock_wall_ms(), stamp);
    const struct log_field head[] = {
        {.name = "time", .value = stamp},
        {.name = "level", .value = level_name(level)},
        {.name = "program", .value = log_state.program},
        {.name = "request_id", .value = log_request[0] != '\0' ? log_request : NULL},
    };
    put(&line, "{");
    for (size_t i = 0; i < COUNT_OF(head); i++)
        put_member(&line, &head[i]);
    for (size_t i = 0; i < count; i++)
        put_member(&line, &fields[i]);
    line.max = LINE_SIZE - LINE_END;
    put(&line, "\"message\":\"");
    put_value(&line, message);
    memcpy(line.text + line.len, "\"}", 2);
    line.len += 2;
    write_line(&line);
}

void log_fields(enum log_level level, const char *message, const struct log_field *fields,
                size_t count)
{
    if (level > log_state.level)
        return;
    if (log_state.format == LOG_JSON)
        write_json(level, message, fields, count);
    else
        write_text(level, message, fields, count);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level > log_state.level)
        return;
    char message[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof(message), fmt, args);
    va_end(args);
    log_fields(level, message, NULL, 0);
}
