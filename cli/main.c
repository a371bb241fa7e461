/* The command-line client: finds the command, runs it, and says what went wrong. */
#include "cli/internal.h"
#include <errno.h>
#include <locale.h>
#include <signal.h>
#include <sys/signalfd.h>

static const char default_address[] = "/run/motte/motte.sock";

static const struct cli_command *find_command(const char *name)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static const char *setting(const struct cli_call *call, const char *option, const char *variable)
{
    const char *value = cli_given(call, option);
    if (value == NULL)
        value = getenv(variable);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

/* Signals are read where the program waits, so that no command ends without putting the terminal, a
 * half-written file and a VM of its own in order. */
static int take_signals(struct cli *cli, struct error *err)
{
    static const int numbers[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGWINCH};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < COUNT_OF(numbers); i++)
        sigaddset(&set, numbers[i]);
    signal(SIGPIPE, SIG_IGN); /* a reader of ours that goes shows as EPIPE */
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 ||
        (cli->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot take signals");
    return 0;
}

static int open_client(struct cli_call *call, struct error *err)
{
    struct cli *cli = call->cli;
    const char *address = setting(call, "address", "MOTTE_ADDRESS"), *term = getenv("TERM");
    if (address != NULL && strncmp(address, "unix:", 5) == 0)
        address += 5;
    cli->address = address != NULL ? address : default_address;
    cli->token = setting(call, "", "MOTTE_TOKEN");
    cli->ca = setting(call, "ca", "MOTTE_CA");
    cli->json = cli_given(call, "json") != NULL;
    cli->out_terminal = isatty(STDOUT_FILENO) == 1;
    cli->err_terminal = isatty(STDERR_FILENO) == 1;
    cli->colours = cli->out_terminal && getenv("NO_COLOR") == NULL && term != NULL &&
                   strcmp(term, "dumb") != 0;
    if (cli->address[0] != '/' && strncmp(cli->address, "http://", 7) != 0 &&
        strncmp(cli->address, "https://", 8) != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "the address is a socket's path, or http(s)://HOST:PORT, not \"%.100s\"",
                         cli->address);
    if (take_signals(cli, err) != 0)
        return -1;
    return cli_http_open(cli, err);
}

static int check_operands(const struct cli_call *call, struct error *err)
{
    const struct cli_command *command = call->command;
    if (call->count >= command->least && (call->count <= command->most || command->rest))
        return 0;
    return error_set(err, ERR_CONFIG, 0, "usage: motte %s %s", command->name, command->operands);
}

static void say_member(const cJSON *problem, const char *name)
{
    const char *text = cli_text(problem, name);
    cli_print_text(stderr, text, strlen(text), false);
}

/* For people: what happened and what to do. With --json: the problem document as it came. */
static void say_error(const struct cli *cli, const struct error *err)
{
    if (cli->json && cli->problem != NULL) {
        cleanup_free char *text = json_print(cli->problem);
        fprintf(stderr, "%s\n", text != NULL ? text : "{}");
        return;
    }
    fputs("motte: ", stderr);
    cli_print_text(stderr, err->msg, strlen(err->msg), false);
    fputc('\n', stderr);
    const char *remedy = cJSON_GetStringValue(cJSON_GetObjectItem(cli->problem, "remediation"));
    if (remedy != NULL && err->code != ERR_CANCELLED) {
        fputs("  ", stderr);
        cli_print_text(stderr, remedy, strlen(remedy), false);
        fputs("\n  (", stderr);
        say_member(cli->problem, "code");
        fputs(", request ", stderr);
        say_member(cli->problem, "request_id");
        fputs(")\n", stderr);
    }
}

static int status_of(const struct cli_call *call, const struct error *err)
{
    if (err->code == ERR_CANCELLED)
        return CLI_INTERRUPTED;
    if (call->command != NULL && call->command->rest)
        return call->cli->status != CLI_OK ? call->cli->status : CLI_NOT_RUN;
    if (err->code == ERR_CONFIG)
        return CLI_USAGE;
    if (call->cli->status != CLI_OK)
        return call->cli->status;
    return call->cli->unreached ? CLI_UNREACHED : CLI_FAILED;
}

static int run(struct cli_call *call, struct error *err)
{
    if (cli_given(call, "help") != NULL) {
        cli_help(call->command, stdout);
        return 0;
    }
    if (check_operands(call, err) != 0 || open_client(call, err) != 0)
        return -1;
    int failed = call->command->run(call, err);
    if (failed == 0 && fflush(stdout) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot write the output");
    return failed;
}

/* `motte NAME` is the program motte-NAME, if there is one on the PATH; else it comes back. */
static void run_other(char **argv)
{
    char name[80];
    if (id_name_valid(argv[0]) && snprintf(name, sizeof(name), "motte-%s", argv[0]) > 0)
        execvp(name, argv);
}

/* Options may stand before the command's name, as far as they are of all commands. */
static int find(struct cli_call *call, int argc, char **argv, struct error *err)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-')
        at += strcmp(argv[at], "--address") == 0 || strcmp(argv[at], "--ca") == 0 ? 2 : 1;
    if (at >= argc)
        return cli_options_parse(call, argc - 1, argv + 1, err);
    call->command = find_command(argv[at]);
    if (call->command == NULL)
        run_other(argv + at);
    if (call->command == NULL)
        return error_set(err, ERR_CONFIG, 0, "there is no command \"%.60s\": see `motte --help`",
                         argv[at]);
    memmove(argv + 2, argv + 1, (size_t)(at - 1) * sizeof(*argv)); /* the name goes */
    return cli_options_parse(call, argc - 2, argv + 2, err);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "");
    struct cli cli = {.signals = -1};
    struct cli_call call = {.cli = &cli};
    struct error err = {0};
    int failed = find(&call, argc, argv, &err);
    if (failed == 0 && cli_given(&call, "version") != NULL) {
        puts("motte " MOTTE_VERSION);
    } else if (failed == 0 && call.command == NULL) {
        bool asked = cli_given(&call, "help") != NULL;
        cli_help(NULL, asked ? stdout : stderr);
        cli.status = asked ? CLI_OK : CLI_USAGE;
    } else if (failed == 0) {
        failed = run(&call, &err);
    }
    if (failed != 0) {
        fflush(stdout);
        say_error(&cli, &err);
        cli.status = status_of(&call, &err);
    }
    cli_http_close(&cli);
    return cli.status;
}
