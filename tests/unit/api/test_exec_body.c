/* The body of an exec, and strings through it (R06). */
#include "api/internal.h"

#include <criterion/criterion.h>

static enum error_code parse(const char *text, struct api_exec_body *body)
{
    struct error err = {0};
    return api_exec_body_parse(text, strlen(text), false, body, &err) == 0 ? ERR_NONE : err.code;
}

static enum error_code refused(const char *text)
{
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    return parse(text, &body);
}

Test(api_exec_body, argv_and_its_defaults)
{
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    cr_assert_eq(parse("{\"argv\":[\"echo\",\"\"]}", &body), ERR_NONE);
    cr_assert_eq(cJSON_GetArraySize(body.request.argv), 2);
    cr_assert_null(body.request.env);
    cr_assert_null(body.request.cwd);
    cr_assert_null(body.request.user);
    cr_assert_eq(body.request.input_len, 0);
    cr_assert_eq(body.request.timeout_ms, 30000);
    cr_assert_eq(body.request.output_max, 1024 * 1024);
}

Test(api_exec_body, shell_is_bin_sh)
{
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    cr_assert_eq(parse("{\"shell\":\"exit 3\",\"env\":{\"A\":\"b=c\"},\"cwd\":\"/tmp\","
                       "\"user\":\"nobody\",\"stdin\":\"in\",\"timeout_ms\":3600000}",
                       &body),
                 ERR_NONE);
    cleanup_free char *argv = json_print(body.request.argv);
    cr_assert_str_eq(argv, "[\"/bin/sh\",\"-c\",\"exit 3\"]");
    cleanup_free char *env = json_print(body.request.env);
    cr_assert_str_eq(env, "{\"A\":\"b=c\"}");
    cr_assert_str_eq(body.request.cwd, "/tmp");
    cr_assert_str_eq(body.request.user, "nobody");
    cr_assert_eq(body.request.input_len, 2);
    cr_assert_eq(body.request.timeout_ms, 3600000);
}

Test(api_exec_body, each_mistake_has_its_own_code)
{
    static const struct {
        const char *text;
        enum error_code code;
    } bad[] = {
        {"", ERR_JSON},
        {"{\"argv\":[\"a\"]", ERR_JSON},
        {"{\"argv\":[\"a\"]} x", ERR_JSON},
        {"{\"argv\":[\"a\"],\"argv\":[\"b\"]}", ERR_JSON},
        {"[]", ERR_FIELD_TYPE},
        {"{}", ERR_FIELD_MISSING},
        {"{\"argv\":[\"a\"],\"shell\":\"b\"}", ERR_FIELD_VALUE},
        {"{\"argv\":\"a\"}", ERR_FIELD_TYPE},
        {"{\"argv\":[]}", ERR_FIELD_RANGE},
        {"{\"argv\":[\"\"]}", ERR_FIELD_VALUE},
        {"{\"argv\":[\"a\",1]}", ERR_FIELD_TYPE},
        {"{\"argv\":[null]}", ERR_FIELD_TYPE},
        {"{\"shell\":\"\"}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"timeout_ms\":0}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"timeout_ms\":3600001}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"timeout_ms\":1.5}", ERR_FIELD_TYPE},
        {"{\"shell\":\"a\",\"timeout_ms\":\"1\"}", ERR_FIELD_TYPE},
        {"{\"shell\":\"a\",\"env\":[]}", ERR_FIELD_TYPE},
        {"{\"shell\":\"a\",\"env\":{\"A\":1}}", ERR_FIELD_TYPE},
        {"{\"shell\":\"a\",\"env\":{\"\":\"b\"}}", ERR_FIELD_VALUE},
        {"{\"shell\":\"a\",\"env\":{\"A=B\":\"b\"}}", ERR_FIELD_VALUE},
        {"{\"shell\":\"a\",\"cwd\":\"tmp\"}", ERR_FIELD_VALUE},
        {"{\"shell\":\"a\",\"user\":\"\"}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"user\":\"no body\"}", ERR_FIELD_VALUE},
        {"{\"shell\":\"a\",\"user\":\"\u00fc\"}", ERR_FIELD_VALUE},
        {"{\"shell\":\"a\",\"Timeout_ms\":1}", ERR_FIELD_UNKNOWN},
        {"{\"shell\":\"a\",\"image\":\"x\"}", ERR_FIELD_UNKNOWN},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(refused(bad[i].text), bad[i].code, "%s: %s", bad[i].text,
                     error_code_name(refused(bad[i].text)));
}

Test(api_exec_body, a_command_that_no_frame_can_carry_is_refused_here)
{
    cleanup_free char *text = malloc(WIRE_FRAME_MAX + 64);
    int at = sprintf(text, "{\"argv\":[\"a\",\"");
    memset(text + at, 'x', WIRE_FRAME_MAX);
    memcpy(text + at + WIRE_FRAME_MAX, "\"]}", 4);
    cr_assert_eq(refused(text), ERR_FIELD_RANGE);
}

/* ---- R06 ---- */

Test(api_exec_body, R06_nul_and_lone_surrogates_are_refused)
{
    static const char *const bad[] = {"\\u0000",  "a\\u0000b", "\\ud800",  "\\udc00",
                                      "\\ud800x", "\xff",      "\xc0\x80", "\xed\xa0\x80"};
    static const char *const fields[] = {
        "{\"shell\":\"%s\"}", "{\"argv\":[\"a\",\"%s\"]}", "{\"shell\":\"a\",\"stdin\":\"%s\"}",
        "{\"shell\":\"a\",\"env\":{\"A\":\"%s\"}}", "{\"shell\":\"a\",\"env\":{\"A%s\":\"\"}}"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        for (size_t j = 0; j < COUNT_OF(fields); j++) {
            char text[128];
            const char *hole = strstr(fields[j], "%s");
            snprintf(text, sizeof(text), "%.*s%s%s", (int)(hole - fields[j]), fields[j], bad[i],
                     hole + 2);
            cr_assert_eq(refused(text), ERR_JSON, "%s", text);
        }
}

/* Any code point but 0 and the surrogates. */
static size_t random_character(unsigned *seed, char *out)
{
    unsigned point = 0;
    do {
        unsigned kind = (unsigned)rand_r(seed) % 4;
        point = (unsigned)rand_r(seed) % (kind == 0   ? 0x80
                                          : kind == 1 ? 0x800
                                          : kind == 2 ? 0x10000
                                                      : 0x110000);
    } while (point == 0 || (point >= 0xd800 && point < 0xe000));
    if (point < 0x80) {
        out[0] = (char)point;
        return 1;
    }
    size_t more = point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
    static const unsigned lead[] = {0, 0xc0, 0xe0, 0xf0};
    out[0] = (char)(lead[more] | point >> (6 * more));
    for (size_t i = 1; i <= more; i++)
        out[i] = (char)(0x80 | (point >> (6 * (more - i)) & 0x3f));
    return more + 1;
}

Test(api_exec_body, R06_every_other_string_arrives_as_it_was_sent)
{
    unsigned seed = (unsigned)clock_mono_us();
    cr_log_info("seed %u", seed);
    for (int round = 0; round < 3000; round++) {
        char wanted[256];
        size_t len = 0, characters = 1 + (size_t)rand_r(&seed) % 40;
        for (size_t i = 0; i < characters; i++)
            len += random_character(&seed, wanted + len);
        wanted[len] = '\0';
        cleanup_json cJSON *json = cJSON_CreateObject();
        json_add_string(json, "shell", wanted);
        json_add_string(json, "stdin", wanted);
        cleanup_free char *text = json_print(json);
        struct api_exec_body body cleanup(api_exec_body_release) = {0};
        cr_assert_eq(parse(text, &body), ERR_NONE, "seed %u: %s", seed, text);
        cr_assert_str_eq(cJSON_GetArrayItem(body.request.argv, 2)->valuestring, wanted);
        cr_assert_eq(body.request.input_len, len);
        cr_assert_str_eq(body.request.input, wanted);
    }
}

static enum error_code parse_watched(const char *text, struct api_exec_body *body)
{
    struct error err = {0};
    return api_exec_body_parse(text, strlen(text), true, body, &err) == 0 ? ERR_NONE : err.code;
}

Test(api_exec_body, what_only_a_watched_command_takes)
{
    static const char text[] = "{\"shell\":\"a\",\"stdin_open\":true,\"timeout_ms\":604800000,"
                               "\"pty\":{\"rows\":40}}";
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    cr_assert_eq(parse(text, &body), ERR_FIELD_UNKNOWN);
    cr_assert_eq(parse_watched(text, &body), ERR_NONE);
    cr_assert(body.input_open && body.request.pty);
    cr_assert_eq(body.request.size.rows, 40);
    cr_assert_eq(body.request.size.cols, 80);
    cr_assert_eq(body.request.timeout_ms, 604800000);
    static const struct {
        const char *text;
        enum error_code code;
    } bad[] = {
        {"{\"shell\":\"a\",\"timeout_ms\":604800001}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"pty\":true}", ERR_FIELD_TYPE},
        {"{\"shell\":\"a\",\"pty\":{\"rows\":0}}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"pty\":{\"cols\":65536}}", ERR_FIELD_RANGE},
        {"{\"shell\":\"a\",\"pty\":{\"depth\":1}}", ERR_FIELD_UNKNOWN},
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct api_exec_body none cleanup(api_exec_body_release) = {0};
        cr_assert_eq(parse_watched(bad[i].text, &none), bad[i].code, "%s", bad[i].text);
    }
}
