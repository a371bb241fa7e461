/* What there is: commands, options, variables, statuses. Parsing, help, completion and the manual page
 * are made of these tables. */
#include "cli/internal.h"

static const struct cli_option globals[] = {
    {"address", "WHERE", "The service: a socket's path, or http(s)://HOST:PORT.", 0},
    {"ca", "FILE", "Trust these authorities, PEM, for https.", 0},
    {"json", NULL, "The service's own answer as JSON, also of errors.", 0},
    {"help", NULL, "Says what a command does.", 'h'},
    {"version", NULL, "Says which version this is.", 0},
};
static const struct cli_term environment[] = {
    {"MOTTE_ADDRESS", "As --address; /run/motte/motte.sock if neither is given."},
    {"MOTTE_TOKEN", "The token for http and https, as `motted token create` printed it."},
    {"MOTTE_CA", "As --ca."},
    {"NO_COLOR", "If set, there are no colours."},
};
static const struct cli_term statuses[] = {
    {"0", "It is done."},
    {"1", "The service refused, or it failed."},
    {"2", "The command line makes no sense."},
    {"3", "The service was not reached, or its answer broke off."},
    {"124", "run, exec: the command's time was up."},
    {"125", "run, exec: it is Motte that failed, not the command."},
    {"128+N", "run, exec: signal N ended the command."},
    {"130", "Interrupted."},
    {"other", "run, exec: the command's own."},
};

#define VM_OPTIONS                                                                                 \
    {"id", "ID", "Its name; made up if left out.", 0},                                             \
        {"image", "NAME", "What it boots; the host's first if left out.", 0},                      \
        {"snapshot", "ID", "Restore this snapshot instead.", 0}, {"mem", "MIB", "Memory.", 'm'},   \
        {"vcpus", "N", "CPUs: 1 or an even number.", 0}, {"disk", "MIB", "A scratch disk.", 0},    \
        {"seccomp", "LEVEL", "minimal or basic.", 0}, {"ttl", "SECONDS", "Its time to live.", 0},  \
    {                                                                                              \
        "label", "KEY=VALUE", "A label; any number.", 'l'                                          \
    }
#define EXEC_OPTIONS                                                                               \
    {"interactive", NULL, "Give it this program's input.", 'i'},                                   \
        {"tty", NULL, "Give it a terminal.", 't'},                                                 \
        {"env", "KEY=VALUE", "Environment; any number.", 'e'},                                     \
        {"user", "NAME", "Run it as this user.", 'u'}, {"cwd", "DIRECTORY", "Run it there.", 'w'}, \
    {                                                                                              \
        "timeout", "SECONDS", "End it after that time.", 0                                         \
    }

static const struct cli_option run_options[] = {
    VM_OPTIONS,
    EXEC_OPTIONS,
    {"rm", NULL, "Delete the VM at the end: it is so unless --keep is given.", 0},
    {"keep", NULL, "Do not delete the VM at the end.", 0},
};
static const struct cli_option create_options[] = {VM_OPTIONS};
static const struct cli_option exec_options[] = {EXEC_OPTIONS};
static const struct cli_option ps_options[] = {
    {"label", "KEY[=VALUE]", "Only those with this label.", 'l'},
    {"state", "STATE", "Only those that are running, paused, creating ...", 0},
    {"quiet", NULL, "Their ids alone.", 'q'},
};
static const struct cli_option logs_options[] = {
    {"follow", NULL, "Go on with what comes, until the VM ends.", 'f'},
};
static const struct cli_option events_options[] = {
    {"follow", NULL, "Go on with what comes; without --after from now on.", 'f'},
    {"vm", "VM", "Only those of this VM.", 0},
    {"kind", "KIND", "Only those of this kind (created, running, ended ...); any number.", 0},
    {"after", "SEQ", "Only those after the one with this number; 0 for all that is kept.", 0},
};
static const struct cli_option keepalive_options[] = {
    {"ttl", "SECONDS", "How long from now; its own time to live if left out.", 0},
};
static const struct cli_option snapshot_options[] = {
    {"label", "KEY=VALUE", "A label; any number.", 'l'},
};
static const struct cli_option snapshots_options[] = {
    {"label", "KEY[=VALUE]", "Only those with this label.", 'l'},
    {"quiet", NULL, "Their ids alone.", 'q'},
};
static const struct cli_option top_options[] = {
    {"label", "KEY[=VALUE]", "Only those with this label.", 'l'},
};
static const struct cli_option fork_options[] = {
    {"count", "N", "How many; one if left out.", 'n'},
    {"ttl", "SECONDS", "Their time to live.", 0},
    {"label", "KEY=VALUE", "A label; any number.", 'l'},
};
static const struct cli_option cp_options[] = {
    {"recursive", NULL, "A directory with all that is in it; with - a tar archive.", 'r'},
    {"parents", NULL, "Make the directories that lead to it, in the VM.", 'p'},
};

#define OPTIONS(table) .options = (table), .option_count = COUNT_OF(table)

static const struct cli_command commands[] = {
    {.name = "run",
     .operands = "[OPTION...] [--] COMMAND [WORD...]",
     .summary = "Runs a command in a VM of its own",
     .about = "Makes a VM, runs the command in it, and deletes the VM, also when this program is\n"
              "interrupted. Output comes as it is written, stdout and stderr apart; the status is\n"
              "the command's.",
     OPTIONS(run_options),
     .run = cli_run,
     .operand = CLI_WORD,
     .least = 1,
     .most = 0,
     .rest = true},
    {.name = "create",
     .operands = "[OPTION...]",
     .summary = "Makes a VM and prints its id",
     .about = "It is there when this ends well. What does not come to run is not left behind.",
     OPTIONS(create_options),
     .run = cli_create},
    {.name = "exec",
     .operands = "[OPTION...] VM [--] COMMAND [WORD...]",
     .summary = "Runs a command in a VM",
     .about = "With -it like a shell of one's own: each key goes to the command. Without -t an\n"
              "interrupt ends the command with all it started. The status is the command's.",
     OPTIONS(exec_options),
     .run = cli_exec,
     .operand = CLI_VM,
     .least = 2,
     .most = 1,
     .rest = true},
    {.name = "ps",
     .operands = "[OPTION...]",
     .summary = "Lists VMs",
     OPTIONS(ps_options),
     .run = cli_ps},
    {.name = "rm",
     .operands = "VM...",
     .summary = "Deletes VMs",
     .about = "One that is gone already is no error.",
     .run = cli_rm,
     .operand = CLI_VM,
     .least = 1,
     .most = 1000},
    {.name = "cp",
     .operands = "[OPTION...] SOURCE TARGET",
     .summary = "Copies files into a VM or out of it",
     .about =
         "One side is VM:PATH, the other a path here, or - for standard input or output; a path\n"
         "here that has a colon begins with ./ or /. A file is written whole or not at all. A\n"
         "directory that comes out of a VM is made anew, without owners and set-id bits, and\n"
         "refused if it has devices, hard links, or links that may lead out of it. A target in\n"
         "the VM that ends with / is a directory to put it in, as is one here.",
     OPTIONS(cp_options),
     .run = cli_cp,
     .operand = CLI_COPY,
     .least = 2,
     .most = 2},
    {.name = "logs",
     .operands = "[OPTION...] VM",
     .summary = "Prints a VM's console",
     .about = "What its guest and its hypervisor wrote last, byte for byte, and with -f what they\n"
              "write. It is the word of untrusted code, and may change a terminal's state.",
     OPTIONS(logs_options),
     .run = cli_logs,
     .operand = CLI_VM,
     .least = 1,
     .most = 1},
    {.name = "events",
     .operands = "[OPTION...]",
     .summary = "Prints what happens to VMs",
     .about =
         "An event a line: all that are kept, or with -f those that come. With --json each is\n"
         "a line of JSON, whose `seq` can be given as --after to go on behind it.",
     OPTIONS(events_options),
     .run = cli_watch},
    {.name = "pause",
     .operands = "VM...",
     .summary = "Freezes VMs",
     .about = "They keep their memory; their time to live goes on.",
     .run = cli_pause,
     .operand = CLI_VM,
     .least = 1,
     .most = 1000},
    {.name = "resume",
     .operands = "VM...",
     .summary = "Lets paused VMs go on",
     .run = cli_resume,
     .operand = CLI_VM,
     .least = 1,
     .most = 1000},
    {.name = "keepalive",
     .operands = "[OPTION...] VM...",
     .summary = "Prolongs the life of VMs",
     OPTIONS(keepalive_options),
     .run = cli_keepalive,
     .operand = CLI_VM,
     .least = 1,
     .most = 1000},
    {.name = "snapshot",
     .operands = "[OPTION...] VM",
     .summary = "Keeps a VM as it is now and prints the snapshot's id",
     .about = "The VM goes on. `motte create --snapshot=ID` makes VMs that go on from there.",
     OPTIONS(snapshot_options),
     .run = cli_snapshot,
     .operand = CLI_VM,
     .least = 1,
     .most = 1},
    {.name = "snapshots",
     .operands = "[OPTION...]",
     .summary = "Lists snapshots",
     OPTIONS(snapshots_options),
     .run = cli_snapshots},
    {.name = "snapshot-rm",
     .operands = "SNAPSHOT...",
     .summary = "Deletes snapshots",
     .about = "Not while there are VMs that were restored from it.",
     .run = cli_snapshot_rm,
     .operand = CLI_SNAPSHOT,
     .least = 1,
     .most = 1000},
    {.name = "fork",
     .operands = "[OPTION...] VM",
     .summary = "Makes VMs that go on from where one is and prints their ids",
     .about = "All that were asked for, or none. The VM itself goes on.",
     OPTIONS(fork_options),
     .run = cli_fork,
     .operand = CLI_VM,
     .least = 1,
     .most = 1},
    {.name = "top",
     .operands = "[OPTION...]",
     .summary = "Shows what VMs take of their host",
     .about =
         "On a terminal every second until q is pressed; else, and with --json, once. 100 percent\n"
         "are one processor; memory is the whole VMM's.",
     OPTIONS(top_options),
     .run = cli_top},
    {.name = "doctor",
     .operands = "",
     .summary = "Says whether VMs can be had from here, and what to do if not",
     .about =
         "Looks for the service, who one is there, and what it holds VMs in. Each line is ok,\n"
         "warn or fail; it ends with 0 if none is fail. `motted doctor` looks at the host.",
     .run = cli_doctor},
    {.name = "completion",
     .operands = "SHELL",
     .summary = "Prints what a shell needs to complete command lines",
     .about = "For bash: `source <(motte completion bash)`.",
     .run = cli_completion,
     .operand = CLI_WORD,
     .least = 1,
     .most = 1},
    {.name = "manual",
     .operands = "",
     .summary = "Prints the manual page",
     .about = "To read where none is installed: `motte manual | man -l -`.",
     .run = cli_manual},
};

const struct cli_command *cli_commands(size_t *ret_count)
{
    *ret_count = COUNT_OF(commands);
    return commands;
}

const struct cli_option *cli_globals(size_t *ret_count)
{
    *ret_count = COUNT_OF(globals);
    return globals;
}

const struct cli_term *cli_environment(size_t *ret_count)
{
    *ret_count = COUNT_OF(environment);
    return environment;
}

const struct cli_term *cli_statuses(size_t *ret_count)
{
    *ret_count = COUNT_OF(statuses);
    return statuses;
}
