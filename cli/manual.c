/* The manual page, out of the tables that the program itself is made of. */
#include "cli/internal.h"

/* Text in roff, to the end of its line: no letter of it is a request or an escape, and a minus is one
 * that can be copied. */
static void write_text(const char *text)
{
    bool begins = true;
    for (; *text != '\0'; text++) {
        if (begins && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        begins = *text == '\n';
    }
}

static void write_line(const char *text)
{
    write_text(text);
    putchar('\n');
}

static void write_options(const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fputs(".TP\n", stdout);
        if (options[i].letter != 0)
            printf("\\fB\\-%c\\fR, ", options[i].letter);
        fputs("\\fB\\-\\-", stdout);
        write_text(options[i].name);
        fputs("\\fR", stdout);
        if (options[i].value != NULL) {
            fputs("=\\fI", stdout);
            write_text(options[i].value);
            fputs("\\fR", stdout);
        }
        putchar('\n');
        write_line(options[i].help);
    }
}

static void write_command(const struct cli_command *command)
{
    fputs(".SS motte ", stdout);
    write_text(command->name);
    putchar(' ');
    write_line(command->operands);
    write_text(command->summary);
    fputs(".\n", stdout);
    if (command->about != NULL)
        write_line(command->about);
    write_options(command->options, command->option_count);
}

static void write_terms(const char *title, const struct cli_term *terms, size_t count)
{
    printf(".SH %s\n", title);
    for (size_t i = 0; i < count; i++) {
        fputs(".TP\n.B ", stdout);
        write_line(terms[i].name);
        write_line(terms[i].help);
    }
}

int cli_manual(struct cli_call *call, struct error *err)
{
    (void)call;
    (void)err; /* main() flushes and says what came of it */
    size_t count;
    fputs(
        ".TH MOTTE 1 \"\" \"motte " MOTTE_VERSION "\" \"User Commands\"\n"
        ".SH NAME\nmotte \\- microVMs, from the command line\n"
        ".SH SYNOPSIS\n.B motte\n.I COMMAND\n[\\fIOPTION\\fR...] [\\fIOPERAND\\fR...]\n"
        ".SH DESCRIPTION\nA client of Motte, which runs microVMs: it makes them, runs commands in\n"
        "them, and deletes them, here or over the network.\n"
        ".SH OPTIONS\nThese belong to all commands; they stand before or behind its name.\n",
        stdout);
    const struct cli_option *globals = cli_globals(&count);
    write_options(globals, count);
    fputs(".SH COMMANDS\n", stdout);
    const struct cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < count; i++)
        write_command(&commands[i]);
    const struct cli_term *terms = cli_environment(&count);
    write_terms("ENVIRONMENT", terms, count);
    terms = cli_statuses(&count);
    write_terms("EXIT STATUS", terms, count);
    return 0;
}
