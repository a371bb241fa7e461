/* Server-sent events, over dropped connections. */
#include "cli/internal.h"
#include <errno.h>
#include <poll.h>

enum { TRIES = 30, AT_ONCE_MS = 20, TRY_AGAIN_MS = 1000 };

struct reading {
    struct cli_events *events;
    struct cli_sse sse;
    bool ended, moved; /* the last one came; anything came on this connection */
};

static int on_event(void *context, const struct cli_event *event, struct error *err)
{
    struct reading *reading = context;
    struct cli_events *events = reading->events;
    int done = events->handler(events->context, event, err);
    if (done >= 0 && event->id[0] != '\0')
        memcpy(events->after, event->id, strlen(event->id) + 1);
    reading->moved = true;
    reading->ended = done > 0;
    return done;
}

static int on_bytes(void *context, const char *data, size_t len, struct error *err)
{
    struct reading *reading = context;
    return cli_sse_feed(&reading->sse, data, len, err);
}

/* libcurl's context is the reader; the caller's own stands in it. */
static int on_ready(void *context, int fd, struct error *err)
{
    struct reading *reading = context;
    return reading->events->ready(reading->events->context, fd, err);
}

/* A rest that a signal ends; the first is short. */
static int rest(struct cli *cli, struct cli_events *events, unsigned tries, struct error *err)
{
    struct pollfd poll_fd = {.fd = cli->signals, .events = POLLIN};
    poll(&poll_fd, 1, tries == 0 ? AT_ONCE_MS : TRY_AGAIN_MS);
    if (poll_fd.revents == 0)
        return 0;
    return events->ready != NULL ? events->ready(events->context, cli->signals, err)
                                 : cli_signal_heed(cli, err);
}

static bool passes(const struct cli *cli, const struct error *err)
{
    return cli->unreached || err->code == ERR_SHUTTING_DOWN || err->code == ERR_BUSY;
}

/* After an end that was not the last: with err set if it does not. */
static bool goes_on(const struct cli *cli, const struct reading *reading, int failed,
                    unsigned tries, struct error *err)
{
    const struct cli_events *events = reading->events;
    bool began = events->there || events->after[0] != '\0' || reading->moved;
    if (failed != 0)
        return began && passes(cli, err) && tries <= TRIES;
    if (tries > TRIES)
        error_set(err, ERR_SYSTEM, 0, "the stream ends again and again with nothing in it");
    return tries <= TRIES;
}

static int read_all(struct cli *cli, struct reading *reading, struct error *err)
{
    struct cli_events *events = reading->events;
    for (unsigned tries = 0;;) {
        struct cli_request request = {.method = "GET",
                                      .path = events->path,
                                      .after = events->after,
                                      .write = on_bytes,
                                      .ready = events->ready != NULL ? on_ready : NULL,
                                      .watched = events->watched,
                                      .context = reading,
                                      .stream = true};
        struct cli_answer answer = {0};
        reading->moved = false;
        cli_sse_reset(&reading->sse);
        int failed = cli_http(cli, &request, &answer, err);
        if (reading->ended || (failed == 0 && (answer.status == 204 || events->ends)))
            return failed;
        tries = reading->moved ? 0 : tries + 1;
        if (!goes_on(cli, reading, failed, tries, err))
            return -1;
        *err = (struct error){0};
        if (rest(cli, events, tries, err) != 0)
            return -1;
    }
}

int cli_events_read(struct cli *cli, struct cli_events *events, struct error *err)
{
    struct reading reading = {.events = events, .sse.handler = on_event, .sse.context = &reading};
    int failed = read_all(cli, &reading, err);
    cli_sse_release(&reading.sse);
    return failed;
}

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

int cli_base64(const char *text, size_t len, char **ret, size_t *ret_len, struct error *err)
{
    while (len > 0 && text[len - 1] == '=')
        len--;
    char *out = malloc(len / 4 * 3 + 4);
    if (out == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an event");
    uint32_t bits = 0;
    size_t count = 0, had = 0;
    for (size_t i = 0; i < len; i++) {
        const char *digit = text[i] != '\0' ? strchr(digits, text[i]) : NULL;
        if (digit == NULL) {
            free(out);
            return error_set(err, ERR_JSON, 0, "the service sent what is no base64");
        }
        bits = bits << 6 | (uint32_t)(digit - digits);
        had += 6;
        if (had >= 8) {
            had -= 8;
            out[count++] = (char)(bits >> had & 0xff);
        }
    }
    *ret = out;
    *ret_len = count;
    return 0;
}

char *cli_to_base64(const void *data, size_t len)
{
    const uint8_t *bytes = data;
    char *out = malloc((len + 2) / 3 * 4 + 1), *at = out;
    for (size_t i = 0; out != NULL && i < len; i += 3) {
        size_t left = len - i;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= left > 2 ? bytes[i + 2] : 0;
        for (unsigned digit = 0; digit < 4; digit++)
            *at++ = '=';
        for (unsigned digit = 0; digit < 4 && digit <= left; digit++)
            at[(int)digit - 4] = digits[bits >> (18 - 6 * digit) & 63];
    }
    if (out != NULL)
        *at = '\0';
    return out;
}
