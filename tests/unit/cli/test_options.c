/* The command line, by the tables of the program itself. */
#include "cli/internal.h"
#include <criterion/criterion.h>

enum { WORDS_MAX = 16 };

/* `line` is cut at blanks. */
struct parsed {
    char *words[WORDS_MAX + 1], line[256];
    struct cli_call call;
    struct error err;
    int failed;
};

static const struct cli_command *command_of(const char *name)
{
    size_t count;
    const struct cli_command *commands = cli_commands(&count);
    for (size_t i = 0; i < count; i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    cr_assert_fail("no command %s", name);
    return NULL;
}

static void parse(struct parsed *parsed, const char *command, const char *line)
{
    *parsed = (struct parsed){.call.command = command_of(command)};
    snprintf(parsed->line, sizeof(parsed->line), "%s", line);
    int count = 0;
    char *left = NULL;
    for (char *word = strtok_r(parsed->line, " ", &left); word != NULL && count < WORDS_MAX;
         word = strtok_r(NULL, " ", &left))
        parsed->words[count++] = word;
    parsed->failed = cli_options_parse(&parsed->call, count, parsed->words, &parsed->err);
}

static void expect_operands(const char *command, const char *line, const char *operands)
{
    struct parsed parsed;
    struct buf seen = {.max = 4096};
    parse(&parsed, command, line);
    cr_assert_eq(parsed.failed, 0, "%s: %s", line, parsed.err.msg);
    for (size_t i = 0; i < parsed.call.count; i++)
        buf_printf(&seen, "%s%s", i > 0 ? "," : "", parsed.call.operands[i]);
    cr_assert_str_eq(seen.data != NULL ? seen.data : "", operands, "%s", line);
    buf_release(&seen);
}

static void expect_given(const char *command, const char *line, const char *option,
                         const char *value)
{
    struct parsed parsed;
    parse(&parsed, command, line);
    cr_assert_eq(parsed.failed, 0, "%s: %s", line, parsed.err.msg);
    cr_assert_not_null(cli_given(&parsed.call, option), "%s", line);
    cr_assert_str_eq(cli_given(&parsed.call, option), value, "%s", line);
}

static void expect_refusal(const char *command, const char *line, const char *said)
{
    struct parsed parsed;
    parse(&parsed, command, line);
    cr_assert_eq(parsed.failed, -1, "%s", line);
    cr_assert_eq(parsed.err.code, ERR_CONFIG);
    cr_assert_not_null(strstr(parsed.err.msg, said), "%s: %s", line, parsed.err.msg);
}

Test(cli_options, R27_each_way_to_write_one)
{
    expect_given("run", "--image=debian true", "image", "debian");
    expect_given("run", "--image debian true", "image", "debian");
    expect_given("run", "-m512 true", "mem", "512");
    expect_given("run", "-m 512 true", "mem", "512");
    expect_given("exec", "-it vm sh", "tty", "");
    expect_given("exec", "-ite A=b vm sh", "env", "A=b");
    expect_given("run", "--image=a --image=b true", "image", "b");
    expect_given("ps", "--json", "json", "");
    expect_given("rm", "a --address=/x b", "address", "/x");
}

Test(cli_options, R27_what_is_a_commands_of_the_vm_is_not_ours)
{
    expect_operands("exec", "vm ls -l", "vm,ls,-l");
    expect_operands("exec", "-i vm -- ls -l", "vm,ls,-l");
    expect_operands("exec", "vm git checkout -- file", "vm,git,checkout,--,file");
    expect_operands("exec", "vm -- git checkout -- file", "vm,git,checkout,--,file");
    expect_operands("run", "git checkout -- file", "git,checkout,--,file");
    expect_operands("run", "--keep -- -x --keep", "-x,--keep");
    expect_operands("run", "echo --help", "echo,--help");
    expect_operands("rm", "a -- -b", "a,-b");
    expect_operands("rm", "a -", "a,-");
}

Test(cli_options, R27_what_makes_no_sense_is_named)
{
    expect_refusal("run", "--imagee=x true", "no option --imagee");
    expect_refusal("run", "-Z true", "no option -Z");
    expect_refusal("run", "--image", "--image needs NAME");
    expect_refusal("run", "-m", "-m needs MIB");
    expect_refusal("ps", "--json=yes", "--json takes no value");
}

Test(cli_options, R27_numbers_and_pairs)
{
    struct parsed parsed;
    uint64_t number = 7;
    parse(&parsed, "run", "--mem=12x true");
    cr_assert_eq(cli_given_number(&parsed.call, "mem", 0, 1024, &number, &parsed.err), -1);
    cr_assert_not_null(strstr(parsed.err.msg, "mem"));
    cr_assert_eq(number, 7);
    cleanup_json cJSON *object = cJSON_CreateObject();
    parse(&parsed, "exec", "-e A=1 -e B= -e A=x=y vm true");
    cr_assert_eq(cli_given_pairs(&parsed.call, "env", object, "env", &parsed.err), 0);
    cleanup_free char *text = json_print(object);
    cr_assert_str_eq(text, "{\"env\":{\"B\":\"\",\"A\":\"x=y\"}}");
    parse(&parsed, "exec", "-e =1 vm true");
    cr_assert_eq(cli_given_pairs(&parsed.call, "env", object, "env", &parsed.err), -1);
}

Test(cli_options, R27_no_option_means_two_things)
{
    size_t count, globals;
    const struct cli_command *commands = cli_commands(&count);
    const struct cli_option *of_all = cli_globals(&globals);
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < commands[i].option_count; j++) {
            const struct cli_option *one = &commands[i].options[j];
            for (size_t k = 0; k < j + globals; k++) {
                const struct cli_option *two = k < j ? &commands[i].options[k] : &of_all[k - j];
                cr_assert_str_neq(one->name, two->name, "motte %s", commands[i].name);
                cr_assert(one->letter == 0 || one->letter != two->letter, "motte %s -%c",
                          commands[i].name, one->letter);
            }
        }
}

Test(cli_text, shows_nothing_that_moves_a_cursor)
{
    static const struct {
        const char *text, *shown;
    } cases[] = {
        {"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80", "\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"},
        {"\x1b[2J\x7f", "?[2J?"},
        {"a\xc2\x9b"
         "31m",
         "a?31m"},
        {"a\x9b"
         "31m",
         "a?31m"},
        {"\xc3", "?"},
        {"\xe2\x9b"
         "2J",
         "??2J"},
        {"\xff\xf0\x9f\x98", "????"}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char shown[64] = "";
        FILE *out = fmemopen(shown, sizeof(shown), "w");
        cli_print_text(out, cases[i].text, strlen(cases[i].text), false);
        fclose(out);
        cr_expect_str_eq(shown, cases[i].shown, "%zu", i);
    }
}
