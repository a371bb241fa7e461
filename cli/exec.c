/* A command in a VM, with this program's input, output and terminal. */
#include "cli/feed.h"
#include <errno.h>
#include <limits.h>
#include <poll.h>

enum { LONGEST_MS = 604800000, TIMED_OUT = 124, BY_SIGNAL = 128 };

struct exec {
    struct cli *cli;
    char *path;    /* /vms/ID/execs/EID; owned */
    cJSON *record; /* how it ended; owned */
    struct cli_feed feed;
};

static void exec_release(struct exec *exec)
{
    free(exec->path);
    cJSON_Delete(exec->record);
}

/* A reader that does not read keeps no signal from being seen: no write is more than a pipe that is
 * ready takes at once. */
static int write_all(const struct cli *cli, int fd, const char *bytes, size_t len,
                     struct error *err)
{
    while (len > 0) {
        struct pollfd ready[] = {{.fd = fd, .events = POLLOUT},
                                 {.fd = cli->signals, .events = POLLIN}};
        if (poll(ready, COUNT_OF(ready), -1) < 0 && errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "cannot wait for the output");
        if (ready[1].revents != 0 && cli_signal_heed(cli, err) != 0)
            return -1;
        ssize_t put = ready[0].revents != 0 ? write(fd, bytes, len < PIPE_BUF ? len : PIPE_BUF) : 0;
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "cannot write the command's output");
        bytes += put > 0 ? put : 0;
        len -= put > 0 ? (size_t)put : 0;
    }
    return 0;
}

static int write_out(const struct cli *cli, const struct cli_event *event, int fd,
                     struct error *err)
{
    cleanup_free char *bytes = NULL;
    size_t len;
    if (cli_base64(event->data, event->len, &bytes, &len, err) != 0)
        return -1;
    return write_all(cli, fd, bytes, len, err);
}

static int on_event(void *context, const struct cli_event *event, struct error *err)
{
    struct exec *exec = context;
    if (strcmp(event->name, "end") == 0)
        return json_parse(event->data, event->len, &exec->record, err) == 0 ? 1 : -1;
    if (exec->cli->json)
        return 0; /* its record has it */
    if (strcmp(event->name, "stdout") == 0)
        return write_out(exec->cli, event, STDOUT_FILENO, err);
    if (strcmp(event->name, "stderr") == 0)
        return write_out(exec->cli, event, STDERR_FILENO, err);
    if (strcmp(event->name, "gap") == 0)
        fputs("motte: the command wrote faster than it was read, and some of it is lost\n", stderr);
    return 0;
}

static int on_ready(void *context, int fd, struct error *err)
{
    struct exec *exec = context;
    return cli_feed_ready(&exec->feed, fd, err);
}

static int add_terminal(struct exec *exec, cJSON *spec)
{
    struct cli_feed *feed = &exec->feed;
    cJSON *size = cJSON_AddObjectToObject(spec, "pty");
    cli_terminal_size(&feed->rows, &feed->columns);
    if (size == NULL || json_add_number(size, "rows", feed->rows) != 0)
        return -1;
    return json_add_number(size, "cols", feed->columns);
}

/* *ret_signal: one came while the command was begun. */
static int begin(struct exec *exec, const struct cli_exec_plan *plan, int *ret_signal,
                 struct error *err)
{
    cleanup_free char *path = cli_path("/vms/%s/execs", plan->vm);
    if (path == NULL || (plan->terminal && add_terminal(exec, plan->spec) != 0) ||
        (plan->input && json_add_bool(plan->spec, "stdin_open", true) != 0))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command");
    const struct cli_making what = {.path = path,
                                    .body = plan->spec,
                                    .asynchronous = true,
                                    .there = plan->there,
                                    .ret_signal = ret_signal};
    struct cli_answer cleanup_answer answer = {0};
    if (cli_make(exec->cli, &what, &answer, err) != 0)
        return -1;
    exec->path = cli_path("/vms/%s/execs/%s", plan->vm, cli_text(answer.json, "id"));
    return exec->path != NULL ? 0 : error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
}

static int follow(struct exec *exec, struct error *err)
{
    cleanup_free char *path = NULL;
    if (asprintf(&path, "%s/events", exec->path) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    struct cli_events events = {.path = path,
                                .there = true,
                                .handler = on_event,
                                .ready = on_ready,
                                .watched = &exec->feed.watched,
                                .context = exec};
    return cli_events_read(exec->cli, &events, err);
}

/* Keys go to the command as they are, those that make signals included. */
static int follow_raw(struct exec *exec, bool raw, struct error *err)
{
    struct cli_terminal *terminal = raw ? cli_terminal_raw(false, err) : NULL;
    if (raw && terminal == NULL)
        return -1;
    int failed = follow(exec, err);
    cli_terminal_restore(terminal);
    return failed;
}

static int number_of(const cJSON *record, const char *name)
{
    double number = cli_real(record, name);
    return number >= 0 && number <= 255 ? (int)number : -1;
}

/* As a shell tells it: 128 and the signal's number; as timeout(1) does for a time that is up. */
static int conclude(const struct exec *exec, struct error *err)
{
    int code = number_of(exec->record, "exit_code"), number = number_of(exec->record, "signal");
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(exec->record, "timed_out"))) {
        exec->cli->status = TIMED_OUT;
        return error_set(err, ERR_EXEC_TIMEOUT, 0, "the command's time was up: it was ended");
    }
    if (code < 0 && number < 0)
        return error_set(err, ERR_EXEC_LOST, 0, "nobody knows how the command ended (%s): %.160s",
                         cli_text(exec->record, "reason"), cli_text(exec->record, "message"));
    exec->cli->status = code >= 0 ? code : BY_SIGNAL + number;
    return 0;
}

static int print_record(const struct exec *exec, struct error *err)
{
    struct cli_answer cleanup_answer answer = {0};
    if (cli_get(exec->cli, exec->path, &answer, err) != 0)
        return -1;
    return cli_print_json(answer.json, err);
}

static int run_plan(struct exec *exec, const struct cli_exec_plan *plan, struct error *err)
{
    int interrupted = 0;
    if (begin(exec, plan, &interrupted, err) != 0)
        return -1;
    exec->feed.exec = exec->path;
    int failed = interrupted != 0 ? error_set(err, ERR_CANCELLED, 0, "interrupted")
                                  : follow_raw(exec, plan->terminal && plan->input, err);
    if (failed != 0 && exec->record == NULL) { /* nobody is there for it any more */
        struct error ignored = {0};
        cli_unmake(exec->cli, exec->path, &ignored);
    }
    if (failed != 0 || (exec->cli->json && print_record(exec, err) != 0))
        return -1;
    return conclude(exec, err);
}

int cli_exec_run(struct cli *cli, const struct cli_exec_plan *plan, struct error *err)
{
    if (plan->terminal && plan->input && isatty(STDIN_FILENO) != 1)
        return error_set(err, ERR_CONFIG, 0,
                         "-t with -i wants a terminal as standard input: leave -t out");
    struct exec cleanup(exec_release) exec = {.cli = cli,
                                              .feed = {.cli = cli,
                                                       .terminal = plan->terminal,
                                                       .watched = plan->input ? STDIN_FILENO : -1,
                                                       .done = !plan->input}};
    return run_plan(&exec, plan, err);
}

/* What the options say of the command, beside its words. */
static int add_options(const struct cli_call *call, cJSON *spec, struct error *err)
{
    uint64_t seconds = LONGEST_MS / 1000;
    if (cli_given_number(call, "timeout", 1, seconds, &seconds, err) != 0 ||
        cli_given_pairs(call, "env", spec, "env", err) != 0)
        return -1;
    const char *user = cli_given(call, "user"), *cwd = cli_given(call, "cwd");
    if (json_add_number(spec, "timeout_ms", (double)seconds * 1000) != 0 ||
        (user != NULL && json_add_string(spec, "user", user) != 0) ||
        (cwd != NULL && json_add_string(spec, "cwd", cwd) != 0))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command");
    return 0;
}

int cli_exec_plan_make(const struct cli_call *call, size_t first, struct cli_exec_plan *ret,
                       struct error *err)
{
    cleanup_json cJSON *spec = cJSON_CreateObject();
    cJSON *argv = cJSON_CreateStringArray((const char *const *)call->operands + first,
                                          (int)(call->count - first));
    if (spec == NULL || argv == NULL || json_add(spec, "argv", argv) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command");
    for (size_t i = first; i < call->count; i++)
        if (!json_is_utf8(call->operands[i], strlen(call->operands[i])))
            return error_set(err, ERR_CONFIG, 0, "the command's words are not all UTF-8");
    if (add_options(call, spec, err) != 0)
        return -1;
    ret->spec = TAKE_PTR(spec);
    ret->input = cli_given(call, "interactive") != NULL;
    ret->terminal = cli_given(call, "tty") != NULL;
    return 0;
}

int cli_exec(struct cli_call *call, struct error *err)
{
    struct cli_exec_plan plan = {.vm = call->operands[0]};
    if (cli_exec_plan_make(call, 1, &plan, err) != 0)
        return -1;
    int failed = cli_exec_run(call->cli, &plan, err);
    cJSON_Delete(plan.spec);
    return failed;
}
