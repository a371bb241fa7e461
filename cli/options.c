/* The command line, by the tables. */
#include "cli/internal.h"

static const struct cli_option *find(const struct cli_option *options, size_t count,
                                     const char *name, size_t len, char letter)
{
    for (size_t i = 0; i < count; i++) {
        bool same = name != NULL
                        ? strlen(options[i].name) == len && memcmp(options[i].name, name, len) == 0
                        : options[i].letter != 0 && options[i].letter == letter;
        if (same)
            return &options[i];
    }
    return NULL;
}

/* By its name, or by its letter where that is NULL; the command's own before the global ones. */
static const struct cli_option *known(const struct cli_call *call, const char *name, size_t len,
                                      char letter)
{
    size_t count;
    const struct cli_option *globals = cli_globals(&count), *found = NULL;
    if (call->command != NULL)
        found = find(call->command->options, call->command->option_count, name, len, letter);
    return found != NULL ? found : find(globals, count, name, len, letter);
}

static int give(struct cli_call *call, const struct cli_option *option, const char *value,
                struct error *err)
{
    if (call->given_count == CLI_GIVEN_MAX)
        return error_set(err, ERR_CONFIG, 0, "more than %d options", CLI_GIVEN_MAX);
    call->given[call->given_count++] = (struct cli_given){option, value};
    return 0;
}

/* `next` is the word behind it; *ret_used tells if that was its value. */
static int take_long(struct cli_call *call, const char *word, const char *next, bool *ret_used,
                     struct error *err)
{
    const char *equals = strchr(word, '=');
    size_t len = equals != NULL ? (size_t)(equals - word) : strlen(word);
    const struct cli_option *option = known(call, word, len, 0);
    if (option == NULL)
        return error_set(err, ERR_CONFIG, 0, "there is no option --%.*s", (int)len, word);
    if (option->value == NULL && equals != NULL)
        return error_set(err, ERR_CONFIG, 0, "--%s takes no value", option->name);
    if (option->value == NULL || equals != NULL)
        return give(call, option, equals != NULL ? equals + 1 : "", err);
    if (next == NULL)
        return error_set(err, ERR_CONFIG, 0, "--%s needs %s", option->name, option->value);
    *ret_used = true;
    return give(call, option, next, err);
}

/* "-it", "-n3", "-n 3". */
static int take_letters(struct cli_call *call, const char *letters, const char *next,
                        bool *ret_used, struct error *err)
{
    for (; *letters != '\0'; letters++) {
        const struct cli_option *option = known(call, NULL, 0, *letters);
        if (option == NULL)
            return error_set(err, ERR_CONFIG, 0, "there is no option -%c", *letters);
        if (option->value == NULL) {
            if (give(call, option, "", err) != 0)
                return -1;
            continue;
        }
        if (letters[1] != '\0')
            return give(call, option, letters + 1, err);
        if (next == NULL)
            return error_set(err, ERR_CONFIG, 0, "-%c needs %s", *letters, option->value);
        *ret_used = true;
        return give(call, option, next, err);
    }
    return 0;
}

static bool all_given(const struct cli_call *call)
{
    return call->command != NULL && call->command->rest && call->count > 0;
}

/* Are all words from here on a command's of a VM, "--" as well? */
static bool begun(const struct cli_call *call)
{
    return call->command != NULL && call->command->rest && call->count > call->command->most;
}

int cli_options_parse(struct cli_call *call, int argc, char **argv, struct error *err)
{
    bool only_operands = false;
    call->operands = argv;
    for (int i = 0; i < argc; i++) {
        char *word = argv[i];
        bool used = false;
        if (!only_operands && !begun(call) && strcmp(word, "--") == 0) {
            only_operands = true;
            continue;
        }
        int failed = 0;
        char *next = i + 1 < argc ? argv[i + 1] : NULL;
        if (only_operands || all_given(call) || word[0] != '-' || word[1] == '\0')
            call->operands[call->count++] = word;
        else if (word[1] == '-')
            failed = take_long(call, word + 2, next, &used, err);
        else
            failed = take_letters(call, word + 1, next, &used, err);
        if (failed != 0)
            return -1;
        i += used ? 1 : 0;
    }
    return 0;
}

const char *cli_given(const struct cli_call *call, const char *name)
{
    for (size_t i = call->given_count; i-- > 0;)
        if (strcmp(call->given[i].option->name, name) == 0)
            return call->given[i].value;
    return NULL;
}

int cli_given_number(const struct cli_call *call, const char *name, uint64_t min, uint64_t max,
                     uint64_t *ret, struct error *err)
{
    const char *value = cli_given(call, name);
    return value != NULL ? kv_number(name, value, min, max, ret, err) : 0;
}

int cli_given_pairs(const struct cli_call *call, const char *name, cJSON *object,
                    const char *member, struct error *err)
{
    cJSON *pairs = NULL;
    for (size_t i = 0; i < call->given_count; i++) {
        const struct cli_given *given = &call->given[i];
        if (strcmp(given->option->name, name) != 0)
            continue;
        const char *equals = strchr(given->value, '=');
        if (equals == NULL || equals == given->value)
            return error_set(err, ERR_CONFIG, 0, "--%s wants KEY=VALUE, not \"%.100s\"", name,
                             given->value);
        cleanup_free char *key = strndup(given->value, (size_t)(equals - given->value));
        if (pairs == NULL)
            pairs = cJSON_AddObjectToObject(object, member);
        cJSON_DeleteItemFromObjectCaseSensitive(pairs, key);
        if (key == NULL || pairs == NULL || json_add_string(pairs, key, equals + 1) != 0)
            return error_set(err, ERR_NO_MEMORY, 0, "out of memory for --%s", name);
    }
    return 0;
}

static void help_options(FILE *out, const struct cli_option *options, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char word[64];
        snprintf(word, sizeof(word), "--%s%s%s", options[i].name,
                 options[i].value != NULL ? "=" : "",
                 options[i].value != NULL ? options[i].value : "");
        fprintf(out, "  %c%c%c %-20s %s\n", options[i].letter != 0 ? '-' : ' ',
                options[i].letter != 0 ? options[i].letter : ' ',
                options[i].letter != 0 ? ',' : ' ', word, options[i].help);
    }
}

static void help_terms(FILE *out, const char *title, const struct cli_term *terms, size_t count)
{
    fprintf(out, "\n%s:\n", title);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "  %-15s %s\n", terms[i].name, terms[i].help);
}

static void help_all(FILE *out)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    fputs("motte COMMAND [OPTION...] [OPERAND...]: microVMs, from the command line\n\n", out);
    for (size_t i = 0; i < count; i++)
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].summary);
    const struct cli_option *globals = cli_globals(&count);
    fputs("\nOf all commands:\n", out);
    help_options(out, globals, count);
    const struct cli_term *terms = cli_environment(&count);
    help_terms(out, "In the environment", terms, count);
    terms = cli_statuses(&count);
    help_terms(out, "It ends with", terms, count);
    fputs("\n`motte COMMAND --help` says more of each.\n", out);
}

void cli_help(const struct cli_command *command, FILE *out)
{
    if (command == NULL) {
        help_all(out);
        return;
    }
    fprintf(out, "motte %s %s\n%s.\n", command->name, command->operands, command->summary);
    if (command->about != NULL)
        fprintf(out, "\n%s\n", command->about);
    if (command->option_count > 0)
        fputs("\n", out);
    help_options(out, command->options, command->option_count);
}
