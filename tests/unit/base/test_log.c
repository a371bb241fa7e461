/* A line is one event and nothing else, whatever it carries; in JSON an object that a parser takes. */
#include "base/base.h"
#include "json/json.h"

#include "random.h"

#include <criterion/criterion.h>

enum { LINE_MAX_BYTES = 2048 };

static int pipe_ends[2];

static void catch_stderr(void)
{
    cr_assert_eq(pipe(pipe_ends), 0);
    cr_assert_eq(dup2(pipe_ends[1], STDERR_FILENO), STDERR_FILENO);
}

TestSuite(log, .init = catch_stderr);

/* What one call wrote, without its newline. */
static size_t caught(char line[static LINE_MAX_BYTES + 1])
{
    ssize_t n = read(pipe_ends[0], line, LINE_MAX_BYTES + 1);
    cr_assert(n > 0 && n <= LINE_MAX_BYTES, "%zd", n);
    cr_assert_eq(line[n - 1], '\n');
    line[n - 1] = '\0';
    cr_assert_eq(strlen(line), (size_t)n - 1);
    cr_assert(strchr(line, '\n') == NULL);
    return (size_t)n - 1;
}

static const char *member(const cJSON *json, const char *name)
{
    const cJSON *found = cJSON_GetObjectItemCaseSensitive(json, name);
    return cJSON_IsString(found) ? found->valuestring : NULL;
}

static cJSON *caught_json(void)
{
    char line[LINE_MAX_BYTES + 1];
    struct error err = {0};
    cJSON *json = NULL;
    size_t len = caught(line);
    cr_assert_eq(json_parse(line, len, &json, &err), 0, "%s: %s", err.msg, line);
    return json;
}

Test(log, text_is_told_as_it_always_was)
{
    char line[LINE_MAX_BYTES + 1];
    log_open("motted", LOG_LEVEL_INFO, LOG_TEXT);
    log_warn("a %d\nb", 7);
    caught(line);
    cr_assert_str_eq(line + 24, " motted warn: a 7?b");
    const struct log_field fields[] = {{.name = "status", .value = "201", .told = true},
                                       {.name = "caller", .value = "alice"},
                                       {.name = "vm", .value = NULL}};
    log_fields(LOG_LEVEL_INFO, "POST /vms 201", fields, COUNT_OF(fields));
    caught(line);
    cr_assert_str_eq(line + 24, " motted info: POST /vms 201 caller=alice vm=-");
    log_set_request("0123456789abcdef");
    log_info("pool");
    caught(line);
    cr_assert_str_eq(line + 24, " motted info: pool request_id=0123456789abcdef");
}

Test(log, json_has_the_fields_as_members)
{
    const struct log_field fields[] = {
        {.name = "status", .value = "201", .told = true, .number = true},
        {.name = "caller", .value = "a\"b\\c"},
        {.name = "vm", .value = NULL}};
    log_open("motte-front", LOG_LEVEL_DEBUG, LOG_JSON);
    log_set_request("0123456789abcdef");
    log_fields(LOG_LEVEL_DEBUG, "POST /vms", fields, COUNT_OF(fields));
    cleanup_json cJSON *json = caught_json();
    cr_assert_str_eq(member(json, "level"), "debug");
    cr_assert_str_eq(member(json, "program"), "motte-front");
    cr_assert_str_eq(member(json, "message"), "POST /vms");
    cr_assert_str_eq(member(json, "caller"), "a\"b\\c");
    cr_assert_str_eq(member(json, "request_id"), "0123456789abcdef");
    cr_assert_eq(cJSON_GetObjectItemCaseSensitive(json, "status")->valuedouble, 201);
    cr_assert_eq(cJSON_GetObjectItemCaseSensitive(json, "vm"), NULL);
    cr_assert_eq(strlen(member(json, "time")), 24);
    log_set_request(NULL);
    log_error("later");
    cleanup_json cJSON *later = caught_json();
    cr_assert_eq(cJSON_GetObjectItemCaseSensitive(later, "request_id"), NULL);
}

Test(log, R06_any_bytes_of_any_length_make_one_line_of_json)
{
    struct random random = random_start();
    log_open("motted", LOG_LEVEL_INFO, LOG_JSON);
    log_set_request("0123456789abcdef");
    for (int round = 0; round < 3000; round++) {
        char message[3000], value[1200];
        size_t len = random_below(&random, sizeof(message)),
               size = random_below(&random, sizeof(value));
        bool nasty = random_below(&random, 2) == 0; /* nothing but what takes two bytes */
        for (size_t i = 0; i < len; i++)
            message[i] = (char)(nasty ? '"' : 1 + random_below(&random, 255));
        for (size_t i = 0; i < size; i++)
            value[i] = (char)(nasty ? '\\' : 1 + random_below(&random, 255));
        message[len] = value[size] = '\0';
        const struct log_field fields[] = {{.name = "a", .value = value},
                                           {.name = "b", .value = value}};
        log_fields(LOG_LEVEL_INFO, message, fields, COUNT_OF(fields));
        cleanup_json cJSON *json = caught_json();
        cr_assert_str_eq(member(json, "request_id"), "0123456789abcdef", "seed %llu",
                         (unsigned long long)random.seed);
        cr_assert_geq(strlen(member(json, "message")), len < 200 ? len : 200, "seed %llu",
                      (unsigned long long)random.seed);
    }
}

Test(log, what_is_below_the_level_is_not_written)
{
    char line[LINE_MAX_BYTES + 1];
    log_open("motted", LOG_LEVEL_WARN, LOG_TEXT);
    log_info("no");
    log_set_level(LOG_LEVEL_DEBUG);
    log_debug("yes");
    caught(line);
    cr_assert_str_eq(line + 24, " motted debug: yes");
}
