/* `key = value` files. */
#include "base/base.h"

#include <criterion/criterion.h>

static int collect(void *context, const char *key, const char *value, struct error *err)
{
    struct buf *buf = context;
    if (strcmp(key, "stop") == 0)
        return error_set(err, ERR_CONFIG, 0, "told to stop");
    return buf_printf(buf, "[%s|%s]", key, value);
}

static int parse(const char *text, struct buf *out, struct error *err)
{
    char copy[512];
    snprintf(copy, sizeof(copy), "%s", text);
    return kv_parse(copy, "motte.conf", collect, out, err);
}

Test(kv, reads_pairs_comments_and_blank_lines)
{
    struct buf out = {.max = 1000};
    struct error err = {0};
    int result = parse("# c\n\n a = b \n\tx=y = z\nempty =\r\nlast=1", &out, &err);
    cr_assert_eq(result, 0, "%s", err.msg);
    cr_assert_str_eq(out.data, "[a|b][x|y = z][empty|][last|1]");
    buf_release(&out);
}

Test(kv, errors_name_file_and_line)
{
    struct buf out = {.max = 1000};
    struct error err = {0};
    cr_assert_eq(parse("a = 1\nnonsense\n", &out, &err), -1);
    cr_assert_eq(err.code, ERR_CONFIG);
    cr_assert_not_null(strstr(err.msg, "motte.conf:2"), "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(parse("a = 1\n\nstop = 1\nb = 2", &out, &err), -1);
    cr_assert_not_null(strstr(err.msg, "motte.conf:3: told to stop"), "%s", err.msg);
    cr_assert_null(strstr(out.data, "[b"), "went on after the error");
    buf_release(&out);
}

Test(kv, numbers_are_decimal_whole_and_in_range)
{
    static const char *const bad[] = {"",
                                      "-1",
                                      "+5",
                                      "0x10",
                                      "5 ",
                                      " 5",
                                      "5k",
                                      "1e3",
                                      "4",
                                      "101",
                                      "18446744073709551616",
                                      "99999999999999999999999"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct error err = {0};
        uint64_t number = 7;
        cr_assert_eq(kv_number("limit", bad[i], 5, 100, &number, &err), -1, "`%s`", bad[i]);
        cr_assert_eq(number, 7, "written on failure");
        cr_assert_not_null(strstr(err.msg, "limit"), "%s", err.msg);
    }
    struct error err = {0};
    uint64_t number = 0;
    cr_assert_eq(kv_number("limit", "100", 5, 100, &number, &err), 0);
    cr_assert_eq(number, 100);
    cr_assert_eq(kv_number("limit", "18446744073709551615", 0, UINT64_MAX, &number, &err), 0);
    cr_assert_eq(number, UINT64_MAX);
}
