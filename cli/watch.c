/* What VMs say and what happens to them: their consoles, and events. */
#include "cli/internal.h"
#include <errno.h>

static int write_console(const char *text, size_t len, struct error *err)
{
    return fs_write_all(STDOUT_FILENO, text, len) == 0
               ? 0
               : error_set(err, ERR_SYSTEM, errno, "cannot write the console's output");
}

/* What others said of it: on a terminal without what would move its cursor. */
static void print_line(const struct cli *cli, const char *text, size_t len)
{
    if (cli->out_terminal)
        cli_print_text(stdout, text, len, false);
    else
        fwrite(text, 1, len, stdout);
    fputc('\n', stdout);
}

static int flush(struct error *err)
{
    return fflush(stdout) == 0 ? 0 : error_set(err, ERR_SYSTEM, errno, "cannot write the output");
}

static void say(const char *what, const char *detail)
{
    fprintf(stderr, "motte: %s", what);
    cli_print_text(stderr, detail, strlen(detail), false);
    fputc('\n', stderr);
}

/* An event as a line of JSON. `value` is taken. */
static int print_event(const struct cli *cli, const struct cli_event *event, cJSON *value,
                       struct error *err)
{
    cleanup_json cJSON *line = cJSON_CreateObject();
    bool whole = line != NULL && json_add_string(line, "event", event->name) == 0 &&
                 json_add_string(line, "id", event->id) == 0;
    whole = json_add(line, "data", value) == 0 && whole;
    cleanup_free char *text = whole ? json_print(line) : NULL;
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an event");
    print_line(cli, text, strlen(text));
    return flush(err);
}

/* ---- consoles ---------------------------------------------------------------------------------- */

static int print_console_event(const struct cli *cli, const struct cli_event *event,
                               struct error *err)
{
    cJSON *value = NULL;
    if (strcmp(event->name, "console") == 0)
        value = cJSON_CreateString(event->data);
    else if (json_parse(event->data, event->len, &value, err) != 0)
        return -1;
    return print_event(cli, event, value, err);
}

static int on_console(void *context, const struct cli_event *event, struct error *err)
{
    const struct cli *cli = context;
    bool last = strcmp(event->name, "end") == 0;
    if (cli->json)
        return print_console_event(cli, event, err) == 0 ? last : -1;
    if (strcmp(event->name, "console") == 0) {
        cleanup_free char *bytes = NULL;
        size_t len;
        return cli_base64(event->data, event->len, &bytes, &len, err) == 0
                   ? write_console(bytes, len, err)
                   : -1;
    }
    if (strcmp(event->name, "gap") == 0)
        say("some of the console was overwritten before it was read", "");
    if (last) {
        cleanup_json cJSON *how = NULL;
        if (json_parse(event->data, event->len, &how, err) != 0)
            return -1;
        say("the VM has ended: ", cli_text(how, "reason"));
    }
    return last;
}

static int follow_console(struct cli *cli, const char *vm, struct error *err)
{
    cleanup_free char *path = cli_path("/vms/%s/console?follow=true", vm);
    struct cli_events events = {.path = path, .handler = on_console, .context = cli};
    return path != NULL ? cli_events_read(cli, &events, err)
                        : error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
}

/* Of one that has ended its certificate has the console's end. */
static const cJSON *console_of(struct cli *cli, const struct cli_answer *answer)
{
    return answer->json != NULL ? answer->json
                                : cJSON_GetObjectItemCaseSensitive(cli->problem, "context");
}

int cli_logs(struct cli_call *call, struct error *err)
{
    struct cli *cli = call->cli;
    if (cli_given(call, "follow") != NULL)
        return follow_console(cli, call->operands[0], err);
    cleanup_free char *path = cli_path("/vms/%s/console", call->operands[0]);
    if (path == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    struct cli_answer cleanup_answer answer = {0};
    if (cli_get(cli, path, &answer, err) != 0 && err->code != ERR_VM_GONE)
        return -1;
    const cJSON *record = console_of(cli, &answer);
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(record, "console"));
    if (text == NULL)
        return err->code != ERR_NONE ? -1 : error_set(err, ERR_JSON, 0, "there is no console");
    *err = (struct error){0};
    return cli->json ? cli_print_json(record, err) : write_console(text, strlen(text), err);
}

/* ---- events ------------------------------------------------------------------------------------ */

/* Words as they are, all else as JSON. */
static int append_detail(struct buf *line, const cJSON *detail)
{
    const cJSON *item;
    int failed = 0;
    cJSON_ArrayForEach(item, detail)
    {
        cleanup_free char *text = cJSON_IsString(item) ? NULL : json_print(item);
        failed |= buf_printf(line, "  %s=%s", item->string,
                             cJSON_IsString(item) ? item->valuestring
                             : text != NULL       ? text
                                                  : "?");
    }
    return failed;
}

static int print_happening(const struct cli_event *event, struct error *err)
{
    cleanup_json cJSON *entry = NULL;
    if (json_parse(event->data, event->len, &entry, err) != 0)
        return -1;
    struct buf cleanup(buf_release) line = {.max = CLI_SSE_MAX};
    if (buf_printf(&line, "%s  %-18s %s", cli_text(entry, "at"), cli_text(entry, "kind"),
                   cli_text(entry, "id")) != 0 ||
        append_detail(&line, cJSON_GetObjectItemCaseSensitive(entry, "detail")) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an event");
    cli_print_text(stdout, line.data, line.len, false);
    fputc('\n', stdout);
    return flush(err);
}

static int on_happening(void *context, const struct cli_event *event, struct error *err)
{
    const struct cli *cli = context;
    if (strcmp(event->name, "start") == 0)
        return 0;
    if (strcmp(event->name, "gap") == 0)
        say("events that were wanted are no longer kept; those that are follow", "");
    else if (!cli->json)
        return print_happening(event, err);
    else {
        print_line(cli, event->data, event->len);
        return flush(err);
    }
    return 0;
}

/* Without --follow all that is kept, unless it says after which; with it what comes from now on. */
static int events_path(const struct cli_call *call, bool follow, struct buf *path,
                       struct error *err)
{
    uint64_t after = 0;
    if (cli_given_number(call, "after", 0, (1ull << 53) - 1, &after, err) != 0)
        return -1;
    int failed = buf_printf(path, "/events?follow=%s", follow ? "true" : "false");
    if (!follow || cli_given(call, "after") != NULL)
        failed |= buf_printf(path, "&after=%llu", (unsigned long long)after);
    for (size_t i = 0; i < call->given_count; i++) {
        const char *name = call->given[i].option->name;
        if (strcmp(name, "vm") != 0 && strcmp(name, "kind") != 0)
            continue;
        cleanup_free char *word = cli_path("&%s=%s", name, call->given[i].value);
        failed |= word == NULL ? -1 : buf_append(path, word, strlen(word));
    }
    return failed == 0 ? 0 : error_set(err, ERR_CONFIG, 0, "there are too many kinds");
}

int cli_watch(struct cli_call *call, struct error *err)
{
    bool follow = cli_given(call, "follow") != NULL;
    struct buf cleanup(buf_release) path = {.max = 16384};
    if (events_path(call, follow, &path, err) != 0)
        return -1;
    struct cli_events events = {
        .path = path.data, .ends = !follow, .handler = on_happening, .context = call->cli};
    return cli_events_read(call->cli, &events, err);
}
