/* Input and window size of a command in a VM. */
#include "cli/feed.h"
#include <errno.h>

enum { REST_MS = 100, REST_MAX_MS = 2000 };

/* The service is away, or the command has no room: the same bytes go again after a rest. */
static bool passes(const struct cli *cli, const struct error *err)
{
    return cli->unreached || err->code == ERR_BUSY || err->code == ERR_RATE ||
           err->code == ERR_SHUTTING_DOWN || err->code == ERR_KEY_BUSY;
}

/* It reads no more: how it ended is told by its events. */
static bool over(const struct error *err)
{
    return err->code == ERR_EXEC_ENDED || err->code == ERR_EXEC_LOST ||
           err->code == ERR_EXEC_UNKNOWN || err->code == ERR_VM_GONE || err->code == ERR_VM_UNKNOWN;
}

static int post(struct cli_feed *feed, const char *what, const cJSON *body, struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/%s", feed->exec, what) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    struct cli_request request = {.method = "POST", .path = path, .body = body};
    return cli_http(feed->cli, &request, NULL, err);
}

/* What a request that failed means: -1 only for what must end this program. */
static int judge(struct cli_feed *feed, struct error *failure, struct error *err)
{
    if (passes(feed->cli, failure)) {
        feed->cli->unreached = false; /* of the event stream, which tells it by itself */
        return 0;
    }
    if (over(failure)) {
        feed->done = true;
        return 0;
    }
    *err = *failure;
    return -1;
}

static int give(struct cli_feed *feed, struct error *err)
{
    cleanup_json cJSON *body = cJSON_CreateObject();
    cleanup_free char *text = cli_to_base64(feed->chunk, feed->held);
    if (text == NULL || body == NULL ||
        json_add_number(body, "offset", (double)feed->offset) != 0 ||
        json_add_string(body, "base64", text) != 0 || json_add_bool(body, "eof", feed->ended) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the command's input");
    struct error failure = {0};
    if (post(feed, "stdin", body, &failure) != 0) {
        int longer_ms = feed->rest_ms > 0 ? feed->rest_ms * 2 : REST_MS;
        feed->rest_ms = longer_ms < REST_MAX_MS ? longer_ms : REST_MAX_MS;
        feed->again_ms = clock_mono_ms() + feed->rest_ms;
        return judge(feed, &failure, err);
    }
    feed->rest_ms = 0;
    feed->offset += feed->held;
    feed->held = 0;
    feed->done = feed->ended;
    return 0;
}

static int take(struct cli_feed *feed, struct error *err)
{
    ssize_t got = read(STDIN_FILENO, feed->chunk, sizeof(feed->chunk));
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (got < 0 && errno != EIO) /* EIO: the terminal went */
        return error_set(err, ERR_SYSTEM, errno, "cannot read the input");
    feed->held = got > 0 ? (size_t)got : 0;
    feed->ended = got <= 0;
    return give(feed, err);
}

/* A signal may have been taken where a request was waited for, so the size itself is asked. */
static int resize(struct cli_feed *feed, struct error *err)
{
    unsigned rows, columns;
    cli_terminal_size(&rows, &columns);
    if (rows == feed->rows && columns == feed->columns)
        return 0;
    cleanup_json cJSON *body = cJSON_CreateObject();
    if (body == NULL || json_add_number(body, "rows", rows) != 0 ||
        json_add_number(body, "cols", columns) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for the terminal's size");
    struct error failure = {0};
    if (post(feed, "resize", body, &failure) != 0)
        return judge(feed, &failure, err);
    feed->rows = rows;
    feed->columns = columns;
    return 0;
}

/* One thing at a time: bytes that wait go again after their rest, and only then is stdin read on. */
static int move_input(struct cli_feed *feed, int fd, struct error *err)
{
    bool waits = feed->held > 0 || feed->ended;
    int failed = 0;
    if (feed->done)
        return 0;
    if (waits && fd < 0 && clock_left_ms(feed->again_ms) == 0)
        failed = give(feed, err);
    else if (!waits && fd == feed->watched && fd >= 0)
        failed = take(feed, err);
    bool wanted = feed->held == 0 && !feed->ended && !feed->done;
    feed->watched = wanted ? STDIN_FILENO : -1;
    return failed;
}

int cli_feed_ready(void *context, int fd, struct error *err)
{
    struct cli_feed *feed = context;
    if (fd == feed->cli->signals && cli_signal_heed(feed->cli, err) != 0)
        return -1;
    if (feed->terminal && resize(feed, err) != 0)
        return -1;
    return move_input(feed, fd, err);
}
