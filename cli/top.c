/* What VMs take of their host, again and again on a terminal, else once. */
#include "cli/internal.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>

enum { EVERY_MS = 1000, AROUND_ROWS = 2 };

/* Another screen without a cursor, on which long lines are cut; and back. */
static const char enter[] = "\033[?1049h\033[?25l\033[?7l";
static const char leave[] = "\033[?7h\033[?25h\033[?1049l";

struct top {
    struct cli_call *call;
    cJSON *rows; /* of the last time: the service's stats, and more; owned */
};

static const cJSON *row_of(const cJSON *rows, const char *instance)
{
    const cJSON *row;
    cJSON_ArrayForEach(row, rows) if (strcmp(cli_text(row, "instance"), instance) == 0) return row;
    return NULL;
}

/* Processor time of one processor since the time before, in percent; -1: not known yet. */
static double percent_of(const cJSON *before, const cJSON *row)
{
    const cJSON *old = row_of(before, cli_text(row, "instance"));
    int64_t ms = cli_time_ms(cli_text(row, "at")) - cli_time_ms(cli_text(old, "at"));
    double used_us = cli_real(row, "cpu_us") - cli_real(old, "cpu_us");
    return old != NULL && ms > 0 && used_us >= 0 ? used_us / (double)ms / 10 : -1;
}

/* One that does not run any more, or is gone, has no row. */
static int add_row(struct top *top, const cJSON *vm, cJSON *rows, struct error *err)
{
    struct cli_answer cleanup_answer answer = {0};
    cleanup_free char *path = cli_path("/vms/%s/stats", cli_text(vm, "id"));
    if (path == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    if (cli_get(top->call->cli, path, &answer, err) != 0) {
        if (err->code != ERR_NOT_FOUND && err->code != ERR_VM_NOT_RUNNING &&
            err->code != ERR_VM_GONE)
            return -1;
        *err = (struct error){0};
        return 0;
    }
    double percent = percent_of(top->rows, answer.json);
    if (json_add_string(answer.json, "state", cli_text(vm, "state")) != 0 ||
        json_add_number(answer.json, "memory_mib", cli_real(vm, "memory_mib")) != 0 ||
        json_add(answer.json, "cpu_percent",
                 percent < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(percent)) != 0 ||
        !cJSON_AddItemToArray(rows, answer.json))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a VM's stats");
    answer.json = NULL; /* it is the array's */
    return 0;
}

static int look(struct top *top, struct error *err)
{
    static const char *const filters[] = {"label", NULL};
    cleanup_json cJSON *list = cli_list(top->call, "vms", filters, err);
    if (list == NULL)
        return -1;
    cleanup_json cJSON *rows = cJSON_CreateArray();
    if (rows == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for stats");
    const cJSON *vm;
    cJSON_ArrayForEach(vm, cJSON_GetObjectItemCaseSensitive(list, "vms"))
    {
        if (add_row(top, vm, rows, err) != 0)
            return -1;
    }
    cJSON_Delete(top->rows);
    top->rows = TAKE_PTR(rows);
    return 0;
}

static void add_size(struct cli_table *table, double bytes)
{
    char size[16] = "-";
    if (bytes >= 0)
        cli_size((uint64_t)bytes, size);
    cli_table_cell(table, CLI_PLAIN, "%s", size);
}

static void add_cells(struct cli_table *table, const cJSON *row)
{
    const char *state = cli_text(row, "state");
    double percent = cli_real(row, "cpu_percent"), pids = cli_real(row, "pids");
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(row, "id"));
    cli_table_cell(table, cli_state_colour(state), "%s", state);
    if (percent < 0)
        cli_table_cell(table, CLI_PLAIN, "-");
    else
        cli_table_cell(table, CLI_PLAIN, "%.1f", percent);
    add_size(table, cli_real(row, "memory_bytes"));
    add_size(table, cli_real(row, "memory_mib") * 1048576);
    add_size(table, cli_real(row, "disk_bytes"));
    if (pids < 0)
        cli_table_cell(table, CLI_PLAIN, "-");
    else
        cli_table_cell(table, CLI_PLAIN, "%.0f", pids);
}

/* The first `most` of them. */
static int print_rows(const struct top *top, unsigned most, const char *ending, struct error *err)
{
    static const char *const heads[] = {"ID", "STATE", "CPU%", "MEMORY", "OF", "DISK", "TASKS"};
    struct cli_table cleanup_table table = {0};
    cli_table_heads(&table, heads, COUNT_OF(heads));
    const cJSON *row;
    cJSON_ArrayForEach(row, top->rows) if (most > 0)
    {
        most--;
        add_cells(&table, row);
    }
    if (table.failed)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a table");
    cli_table_print(top->call->cli, &table, ending);
    return 0;
}

static int draw(const struct top *top, struct error *err)
{
    unsigned rows, columns;
    cli_terminal_size(&rows, &columns);
    fputs("\033[H", stdout);
    if (print_rows(top, rows > AROUND_ROWS ? rows - AROUND_ROWS : 0, "\033[K\n", err) != 0)
        return -1;
    fputs("\033[Jq ends it", stdout);
    return fflush(stdout) == 0 ? 0 : error_set(err, ERR_SYSTEM, errno, "cannot write the table");
}

/* Until it is time to look again. 1: its user has enough of it. */
static int rest(const struct top *top, int64_t until_us, struct error *err)
{
    for (int64_t left_us; (left_us = until_us - clock_mono_us()) > 0;) {
        struct pollfd fds[] = {{.fd = STDIN_FILENO, .events = POLLIN},
                               {.fd = top->call->cli->signals, .events = POLLIN}};
        char key = 0;
        if (poll(fds, COUNT_OF(fds), (int)(left_us / 1000) + 1) < 0)
            return error_set(err, ERR_SYSTEM, errno, "cannot wait");
        if (fds[0].revents != 0 && (read(STDIN_FILENO, &key, 1) <= 0 || key == 'q'))
            return 1;
        if (fds[1].revents != 0 &&
            (cli_signal_heed(top->call->cli, err) != 0 || draw(top, err) != 0))
            return -1;
    }
    return 0;
}

static int go_on(struct top *top, struct error *err)
{
    int ended = 0;
    while (ended == 0) {
        int64_t until_us = clock_mono_us() + (int64_t)EVERY_MS * 1000;
        ended = look(top, err) != 0 || draw(top, err) != 0 ? -1 : rest(top, until_us, err);
    }
    return ended > 0 ? 0 : -1;
}

static int show(struct top *top, struct error *err)
{
    struct cli_terminal *terminal = cli_terminal_raw(true, err);
    if (terminal == NULL)
        return -1;
    fputs(enter, stdout);
    int failed = go_on(top, err);
    fputs(leave, stdout);
    fflush(stdout);
    cli_terminal_restore(terminal);
    return failed;
}

/* Twice, as what a processor did is known between two times only. */
static int print_once(struct top *top, struct error *err)
{
    struct pollfd signals = {.fd = top->call->cli->signals, .events = POLLIN};
    if (look(top, err) != 0)
        return -1;
    if (poll(&signals, 1, EVERY_MS) > 0 && cli_signal_heed(top->call->cli, err) != 0)
        return -1;
    if (look(top, err) != 0)
        return -1;
    if (!top->call->cli->json)
        return print_rows(top, UINT32_MAX, "\n", err);
    cleanup_json cJSON *told = cJSON_CreateObject();
    if (json_add(told, "vms", TAKE_PTR(top->rows)) != 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for stats");
    return cli_print_json(told, err);
}

int cli_top(struct cli_call *call, struct error *err)
{
    struct top top = {.call = call};
    bool live = call->cli->out_terminal && !call->cli->json && isatty(STDIN_FILENO) == 1;
    int failed = live ? show(&top, err) : print_once(&top, err);
    cJSON_Delete(top.rows);
    return failed;
}
