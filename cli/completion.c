/* What bash needs to complete command lines, out of the tables that the program itself is made of. */
#include "cli/internal.h"

/* Names come from the service, and bash would run what a list of offers says: so nothing but the
 * letters of names gets into one. */
static const char head[] = "# Completion of motte for bash, made by `motte completion bash`.\n"
                           "_motte_names() {\n"
                           "    motte \"$1\" -q 2>/dev/null | tr -cd 'A-Za-z0-9._\\n-'\n"
                           "}\n"
                           "\n"
                           "# What there is to know of a command, into the variables of _motte.\n"
                           "_motte_command() {\n"
                           "    case $1 in\n";
static const char middle[] =
    "    esac\n"
    "}\n"
    "\n"
    "_motte() {\n"
    "    local word=${COMP_WORDS[COMP_CWORD]} last=${COMP_WORDS[COMP_CWORD - 1]}\n"
    "    local command='' options='' valued files kind='' most=0 rest='' count=0 at words=''\n";
static const char tail[] = "    for ((at = 1; at < COMP_CWORD; at++)); do\n"
                           "        if [[ \" $valued \" == *\" ${COMP_WORDS[at]} \"* ]]; then\n"
                           "            [ \"${COMP_WORDS[at + 1]}\" != = ] || ((at++))\n"
                           "            ((at++))\n"
                           "        elif [[ ${COMP_WORDS[at]} == -* ]]; then\n"
                           "            continue\n"
                           "        elif [ -z \"$command\" ]; then\n"
                           "            command=${COMP_WORDS[at]}\n"
                           "            _motte_command \"$command\"\n"
                           "        else\n"
                           "            ((count++))\n"
                           "        fi\n"
                           "    done\n"
                           "    if [ \"$word\" = = ]; then\n"
                           "        word=''\n"
                           "    elif [ \"$last\" = = ]; then\n"
                           "        last=${COMP_WORDS[COMP_CWORD - 2]}\n"
                           "    fi\n"
                           "    COMPREPLY=()\n"
                           "    if [[ \" $valued \" == *\" $last \"* ]]; then\n"
                           "        [[ \" $files \" != *\" $last \"* ]] || mapfile -t COMPREPLY < "
                           "<(compgen -f -- \"$word\")\n"
                           "        return\n"
                           "    elif [ -n \"$rest\" ] && [ $count -gt 0 ]; then\n"
                           "        return # these words are a command's of the VM\n"
                           "    elif [[ $word == -* ]]; then\n"
                           "        words=\"$options $globals\"\n"
                           "    elif [ -z \"$command\" ]; then\n"
                           "        words=$commands\n"
                           "    elif [ $count -lt $most ]; then\n"
                           "        case $kind in\n"
                           "        vm) words=$(_motte_names ps) ;;\n"
                           "        snapshot) words=$(_motte_names snapshots) ;;\n"
                           "        copy) # what is behind a VM's name and a colon lies there\n"
                           "            [[ \"$word$last\" == *:* ]] ||\n"
                           "                mapfile -t COMPREPLY < <(compgen -f -- \"$word\")\n"
                           "            return\n"
                           "            ;;\n"
                           "        esac\n"
                           "    fi\n"
                           "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
                           "}\n"
                           "complete -F _motte motte\n";

/* `which` NULL: all of them; else those with a value, or with a value of this name. */
static void write_names(const struct cli_option *options, size_t count, const char *which)
{
    for (size_t i = 0; i < count; i++) {
        const char *value = options[i].value;
        if (which != NULL && (value == NULL || (which[0] != '\0' && strcmp(value, which) != 0)))
            continue;
        printf(" --%s", options[i].name);
        if (options[i].letter != 0)
            printf(" -%c", options[i].letter);
    }
}

static void write_list(const char *name, const struct cli_option *options, size_t count,
                       const char *which)
{
    printf("%s'", name);
    write_names(options, count, which);
    fputs("'\n", stdout);
}

static const char *kind_of(enum cli_operand operand)
{
    if (operand == CLI_VM)
        return "vm";
    if (operand == CLI_COPY)
        return "copy";
    return operand == CLI_SNAPSHOT ? "snapshot" : "none";
}

static void write_command(const struct cli_command *command)
{
    const struct cli_option *options = command->options;
    size_t count = command->option_count;
    printf("    %s)\n", command->name);
    write_list("        options+=", options, count, NULL);
    write_list("        valued+=", options, count, "");
    write_list("        files+=", options, count, "FILE");
    printf("        kind=%s most=%u rest=%s\n        ;;\n", kind_of(command->operand),
           command->most, command->rest ? "yes" : "''");
}

static void write_bash(void)
{
    size_t count, option_count;
    const struct cli_command *commands = cli_commands(&count);
    const struct cli_option *globals = cli_globals(&option_count);
    fputs(head, stdout);
    for (size_t i = 0; i < count; i++)
        write_command(&commands[i]);
    fputs(middle, stdout);
    fputs("    local commands='", stdout);
    for (size_t i = 0; i < count; i++)
        printf(" %s", commands[i].name);
    fputs("'\n", stdout);
    write_list("    local globals=", globals, option_count, NULL);
    write_list("    valued=", globals, option_count, "");
    write_list("    files=", globals, option_count, "FILE");
    fputs(tail, stdout);
}

int cli_completion(struct cli_call *call, struct error *err)
{
    if (strcmp(call->operands[0], "bash") != 0)
        return error_set(err, ERR_CONFIG, 0, "there is a completion for bash, not for \"%.40s\"",
                         call->operands[0]);
    write_bash();
    return 0;
}
