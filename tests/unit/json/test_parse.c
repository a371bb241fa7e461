/* The grammar, as RFC 8259 has it, and our limits on it. */
#include "tests/unit/base/random.h"
#include "json/json.h"

#include <criterion/criterion.h>

/* 0 or the error's code. The text stands on the heap to the byte. */
static enum error_code parse(const char *text, size_t len)
{
    char *exact = malloc(len == 0 ? 1 : len);
    memcpy(exact, text, len);
    cleanup_json cJSON *json = NULL;
    struct error err = {0};
    int result = json_parse(exact, len, &json, &err);
    free(exact);
    cr_assert_eq(result == 0, json != NULL);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    return err.code;
}

Test(json, R31_depth_is_bounded)
{
    for (size_t depth = 1; depth <= 2 * JSON_DEPTH_MAX; depth++) {
        char arrays[4 * JSON_DEPTH_MAX], objects[16 * JSON_DEPTH_MAX] = "";
        memset(arrays, '[', depth);
        memset(arrays + depth, ']', depth);
        for (size_t i = 0; i < depth; i++)
            strcat(objects, i + 1 < depth ? "{\"a\":" : "{");
        size_t open = strlen(objects);
        memset(objects + open, '}', depth);
        enum error_code expected = depth <= JSON_DEPTH_MAX ? ERR_NONE : ERR_JSON;
        cr_assert_eq(parse(arrays, 2 * depth), expected, "%zu", depth);
        cr_assert_eq(parse(objects, open + depth), expected, "%zu", depth);
    }
    enum { DEEP = 1 << 20 };
    char *deep = malloc(DEEP);
    memset(deep, '[', DEEP);
    cr_assert_eq(parse(deep, DEEP), ERR_JSON, "a million levels");
    free(deep);
}

Test(json, R06_a_name_given_twice_is_refused_however_it_is_spelt)
{
    static const char *const twice[] = {
        "{\"a\":1,\"a\":1}",       "{\"a\":1,\"b\":2,\"a\":3}",
        "{\"a\":1,\"\\u0061\":1}", "[{\"x\":{\"k\":1,\"k\":null}}]",
        "{\"\":1,\"\":2}",         "{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}",
    };
    static const char *const once[] = {"{\"a\":1,\"A\":2}", "{\"a\":{\"a\":{\"a\":1}}}",
                                       "[{\"a\":1},{\"a\":1}]", "{\"e\\u0301\":1,\"\\u00e9\":2}"};
    for (size_t i = 0; i < COUNT_OF(twice); i++)
        cr_assert_eq(parse(twice[i], strlen(twice[i])), ERR_JSON, "%s", twice[i]);
    for (size_t i = 0; i < COUNT_OF(once); i++)
        cr_assert_eq(parse(once[i], strlen(once[i])), ERR_NONE, "%s", once[i]);
}

Test(json, R31_an_object_of_very_many_names_costs_no_square)
{
    enum { NAMES = 200000 };
    struct buf text = {.max = 16 << 20};
    buf_printf(&text, "{");
    for (int i = 0; i < NAMES; i++)
        buf_printf(&text, "%s\"%d\":0", i == 0 ? "" : ",", i * 7919 % NAMES);
    buf_printf(&text, "}");
    int64_t start = clock_mono_ms();
    cr_assert_eq(parse(text.data, text.len), ERR_NONE);
    cr_assert_lt(clock_mono_ms() - start, 10000, "the square takes minutes");
    buf_release(&text);
}

static const char *const grammatical[] = {
    "0",
    "-0",
    "10",
    "-1",
    "0.5",
    "1e5",
    "1E+5",
    "1e-5",
    "1.25e10",
    "true",
    "false",
    "null",
    "\"\"",
    "[]",
    "{}",
    " [ 1 , 2 ] ",
    "\t\r\n{ \"a\" : [ ] }\n",
    "[[],[{}]]",
};
static const char *const ungrammatical[] = {
    "",
    " ",
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "1.e5",
    "-.5",
    "1e",
    "1e+",
    "0x10",
    "1_000",
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "[1e999]",
    "True",
    "nul",
    "nulll",
    "truefalse",
    "[1,]",
    "[,1]",
    "[1 2]",
    "{,}",
    "{\"a\":1,}",
    "{\"a\"}",
    "{\"a\" 1}",
    "{a:1}",
    "{'a':1}",
    "{1:1}",
    "[",
    "]",
    "{",
    "}",
    "[}",
    "{]",
    "[1",
    "{\"a\":",
    "\"",
    "\"abc",
    "\"\\",
    "\"\\u00",
    "{} {}",
    "{}x",
    "1 2",
    "[]]",
    "// c\n1",
    "/* c */1",
    "\xef\xbb\xbf{}",
    "\v1",
    "\f1",
    "\xc2\xa0"
    "1",
    "1\x01",
    "{}\x1f",
    "1111111111111111111111111111111111111111111111111111111111111111111111",
};

Test(json, R06_only_what_the_grammar_allows_is_read)
{
    for (size_t i = 0; i < COUNT_OF(grammatical); i++)
        cr_assert_eq(parse(grammatical[i], strlen(grammatical[i])), ERR_NONE, "%s", grammatical[i]);
    for (size_t i = 0; i < COUNT_OF(ungrammatical); i++)
        cr_assert_eq(parse(ungrammatical[i], strlen(ungrammatical[i])), ERR_JSON, "%s",
                     ungrammatical[i]);
    cr_assert_eq(parse("{}\0", 3), ERR_JSON, "a NUL after the text");
    cr_assert_eq(parse("[1\0]", 4), ERR_JSON, "a NUL inside");
}

Test(json, R37_mutated_text_is_refused_or_read_to_something_that_writes_and_reads_the_same)
{
    static const char seed_text[] =
        "{\"id\":\"vm-1\",\"n\":[1,-2.5e3,0,true,null],\"o\":{\"\\u00e9\":\"\\ud83d\\ude00\"},"
        "\"s\":\"a\\\"b\\\\c\\/\\n\"}";
    static const char alphabet[] = "{}[]\",:\\u0019eE+-.tfn \x80\xc3\xa9";
    struct random random = random_start();
    int taken = 0;
    for (int round = 0; round < 50000; round++) {
        char text[sizeof(seed_text)];
        memcpy(text, seed_text, sizeof(text));
        size_t len =
            random_below(&random, 4) == 0 ? random_below(&random, sizeof(text)) : sizeof(text) - 1;
        for (uint64_t i = random_below(&random, 3); i > 0 && len > 0; i--)
            text[random_below(&random, len)] = RANDOM_PICK(&random, alphabet);
        cleanup_json cJSON *first = NULL, *second = NULL;
        struct error err = {0};
        if (json_parse(text, len, &first, &err) < 0)
            continue;
        taken++;
        cleanup_free char *printed = json_print(first);
        cr_assert_eq(json_parse(printed, strlen(printed), &second, &err), 0, "%s: %s (seed %llu)",
                     printed, err.msg, (unsigned long long)random.seed);
        cr_assert(cJSON_Compare(first, second, true), "%s (seed %llu)", printed,
                  (unsigned long long)random.seed);
    }
    cr_assert_gt(taken, 1000);
}
