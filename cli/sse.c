/* The format of server-sent events. */
#include "cli/sse.h"

static int too_large(struct error *err)
{
    return error_set(err, ERR_JSON, 0, "an event is larger than this program takes");
}

static int copy(char *out, size_t size, const char *value, struct error *err)
{
    return snprintf(out, size, "%s", value) < (int)size ? 0 : too_large(err);
}

static void forget_event(struct cli_sse *sse)
{
    sse->name[0] = sse->id[0] = '\0';
    sse->data.len = 0;
    sse->has_data = false;
}

/* An empty line: what was gathered is an event, if it has data. */
static int dispatch(struct cli_sse *sse, struct error *err)
{
    int done = 0;
    if (sse->has_data) {
        struct cli_event event = {sse->name[0] != '\0' ? sse->name : "message", sse->id,
                                  sse->data.data != NULL ? sse->data.data : "", sse->data.len};
        done = sse->handler(sse->context, &event, err);
    }
    forget_event(sse);
    return done;
}

static int add_data(struct cli_sse *sse, const char *value, size_t len, struct error *err)
{
    if (sse->has_data && buf_append(&sse->data, "\n", 1) != 0)
        return too_large(err);
    sse->has_data = true;
    return buf_append(&sse->data, value, len) == 0 ? 0 : too_large(err);
}

static int take_line(struct cli_sse *sse, char *line, size_t len, struct error *err)
{
    if (len == 0)
        return dispatch(sse, err);
    char *end = line + len, *colon = memchr(line, ':', len);
    char *value = colon != NULL ? colon + 1 : end;
    if (colon != NULL)
        *colon = '\0';
    value += value < end && *value == ' ' ? 1 : 0;
    if (strcmp(line, "event") == 0)
        return copy(sse->name, sizeof(sse->name), value, err);
    if (strcmp(line, "id") == 0)
        return copy(sse->id, sizeof(sse->id), value, err);
    if (strcmp(line, "data") == 0)
        return add_data(sse, value, (size_t)(end - value), err);
    return 0;
}

static int end_line(struct cli_sse *sse, struct error *err)
{
    char empty[] = "";
    size_t len = sse->line.len;
    sse->line.len = 0;
    return take_line(sse, len > 0 ? sse->line.data : empty, len, err);
}

static bool ends_line(char byte)
{
    return byte == '\n' || byte == '\r';
}

int cli_sse_feed(struct cli_sse *sse, const char *bytes, size_t len, struct error *err)
{
    sse->line.max = sse->data.max = CLI_SSE_MAX;
    for (size_t at = 0; at < len;) {
        bool second = sse->after_cr && bytes[at] == '\n'; /* of a CR LF */
        sse->after_cr = false;
        if (second) {
            at++;
            continue;
        }
        size_t end = at;
        while (end < len && !ends_line(bytes[end]))
            end++;
        if (end > at && buf_append(&sse->line, bytes + at, end - at) != 0)
            return too_large(err);
        if (end == len)
            return 0;
        sse->after_cr = bytes[end] == '\r';
        at = end + 1;
        int done = end_line(sse, err);
        if (done != 0)
            return done;
    }
    return 0;
}

void cli_sse_reset(struct cli_sse *sse)
{
    forget_event(sse);
    sse->line.len = 0;
    sse->after_cr = false;
}

void cli_sse_release(struct cli_sse *sse)
{
    buf_release(&sse->line);
    buf_release(&sse->data);
}
