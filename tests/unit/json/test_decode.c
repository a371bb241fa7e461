/* Field tables: bounds hold at every edge, every refusal names its field. */
#include "tests/unit/base/random.h"
#include "json/json.h"

#include <criterion/criterion.h>
#include <inttypes.h>

struct target {
    char *text;
    bool flag;
    uint32_t word;
    int64_t number;
    const cJSON *array, *object, *any;
};

static int decode(const char *text, const struct json_field *fields, size_t count,
                  struct target *out, cJSON **ret_json, struct error *err)
{
    cr_assert_eq(json_parse(text, strlen(text), ret_json, err), 0, "%s: %s", text, err->msg);
    return json_decode(*ret_json, fields, count, out, err);
}

/* The code that decoding `text` by one field gives. */
static enum error_code one(const char *text, struct json_field field, struct target *ret)
{
    cleanup_json cJSON *json = NULL;
    struct error err = {0};
    struct target target = {0};
    int result = decode(text, &field, 1, &target, &json, &err);
    cr_assert_eq(result == 0, err.code == ERR_NONE);
    if (result < 0)
        cr_assert_not_null(strstr(err.msg, field.name), "%s", err.msg);
    free(target.text);
    target.text = NULL;
    *ret = target;
    return err.code;
}

static int64_t pick_number(struct random *random)
{
    static const int64_t edges[] = {0,
                                    1,
                                    -1,
                                    INT32_MAX,
                                    INT32_MIN,
                                    UINT32_MAX,
                                    (int64_t)UINT32_MAX + 1,
                                    9007199254740991,
                                    9007199254740992,
                                    9007199254740993,
                                    -9007199254740991,
                                    -9007199254740992,
                                    -9007199254740993,
                                    INT64_MAX,
                                    INT64_MIN};
    int64_t edge = RANDOM_PICK(random, edges), step = (int64_t)random_below(random, 5) - 2;
    if ((edge == INT64_MAX && step > 0) || (edge == INT64_MIN && step < 0))
        step = 0;
    return random_below(random, 3) == 0 ? (int64_t)random_below(random, 2000) - 1000 : edge + step;
}

static bool whole_fits(int64_t value, int64_t min, int64_t max, bool word)
{
    bool safe = value >= -9007199254740991 && value <= 9007199254740991;
    return safe && value >= min && value <= max && (!word || (value >= 0 && value <= UINT32_MAX));
}

Test(json, R37_whole_numbers_are_taken_exactly_within_their_bounds)
{
    struct random random = random_start();
    int taken = 0, refused = 0;
    for (int round = 0; round < 50000; round++) {
        int64_t min = pick_number(&random), max = pick_number(&random);
        int64_t value = random_below(&random, 2) == 0
                            ? pick_number(&random)
                            : RANDOM_PICK(&random, ((int64_t[]){min, max}));
        bool word = random_below(&random, 2) == 0;
        struct json_field field = {.name = "n",
                                   .type = word ? JSON_U32 : JSON_I64,
                                   .offset = word ? offsetof(struct target, word)
                                                  : offsetof(struct target, number),
                                   .min = min,
                                   .max = max};
        char text[64];
        snprintf(text, sizeof(text), "{\"n\":%" PRId64 "}", value);
        bool fits = whole_fits(value, min, max, word);
        struct target target;
        enum error_code code = one(text, field, &target);
        cr_assert_eq(code, fits ? ERR_NONE : ERR_FIELD_RANGE,
                     "%s in %" PRId64 "…%" PRId64 " (seed %llu)", text, min, max,
                     (unsigned long long)random.seed);
        if (fits)
            cr_assert_eq(word ? (int64_t)target.word : target.number, value, "%s", text);
        *(fits ? &taken : &refused) += 1;
    }
    cr_assert(taken > 1000 && refused > 1000, "one-sided: %d taken, %d refused", taken, refused);
}

Test(json, R37_lengths_and_counts_are_bounded_exactly)
{
    struct random random = random_start();
    for (int round = 0; round < 20000; round++) {
        size_t len = random_below(&random, 12);
        int64_t min = (int64_t)random_below(&random, 12), max = (int64_t)random_below(&random, 12);
        enum error_code expected =
            (int64_t)len >= min && (int64_t)len <= max ? ERR_NONE : ERR_FIELD_RANGE;
        struct buf string = {.max = 200}, array = {.max = 200}, object = {.max = 200};
        buf_printf(&string, "{\"n\":\"");
        buf_printf(&array, "{\"n\":[");
        buf_printf(&object, "{\"n\":{");
        for (size_t i = 0; i < len; i++) {
            buf_printf(&string, "x");
            buf_printf(&array, "%s%zu", i == 0 ? "" : ",", i);
            buf_printf(&object, "%s\"%zu\":%zu", i == 0 ? "" : ",", i, i);
        }
        buf_printf(&string, "\"}");
        buf_printf(&array, "]}");
        buf_printf(&object, "}}");
        struct target target;
        struct json_field field = {"n", JSON_STRING, offsetof(struct target, text), true, min, max};
        cr_assert_eq(one(string.data, field, &target), expected, "seed %llu",
                     (unsigned long long)random.seed);
        field.type = JSON_ARRAY;
        field.offset = offsetof(struct target, array);
        cr_assert_eq(one(array.data, field, &target), expected, "seed %llu",
                     (unsigned long long)random.seed);
        field.type = JSON_OBJECT;
        field.offset = offsetof(struct target, object);
        cr_assert_eq(one(object.data, field, &target), expected, "seed %llu",
                     (unsigned long long)random.seed);
        buf_release(&string);
        buf_release(&array);
        buf_release(&object);
    }
}

Test(json, R06_string_length_counts_bytes_not_characters)
{
    struct target target;
    struct json_field field = {"n", JSON_STRING, offsetof(struct target, text), true, 0, 3};
    cr_assert_eq(one("{\"n\":\"\\u20ac\"}", field, &target), ERR_NONE);
    cr_assert_eq(one("{\"n\":\"\\ud83d\\ude00\"}", field, &target), ERR_FIELD_RANGE);
}

Test(json, R01_text_length_counts_characters_as_the_contract_does)
{
    struct target target;
    struct json_field field = {"n", JSON_TEXT, offsetof(struct target, text), true, 2, 3};
    cr_assert_eq(one("{\"n\":\"\\ud83d\\ude00\"}", field, &target), ERR_FIELD_RANGE);
    cr_assert_eq(one("{\"n\":\"\\ud83d\\ude00\\u20ac\"}", field, &target), ERR_NONE);
    cr_assert_eq(one("{\"n\":\"\\u20ac\\u00e4\\ud83d\\ude00\"}", field, &target), ERR_NONE);
    cr_assert_eq(one("{\"n\":\"\\u20ac\\u00e4\\u00e4\\u00e4\"}", field, &target), ERR_FIELD_RANGE);
}

Test(json, R37_each_type_takes_its_own_values_only)
{
    static const struct {
        const char *json;
        unsigned fits; /* one bit a type */
    } values[] = {
#define BIT(type) (1U << JSON_##type)
        {"{\"n\":\"x\"}", BIT(STRING) | BIT(TEXT) | BIT(ANY)},
        {"{\"n\":true}", BIT(BOOL) | BIT(ANY)},
        {"{\"n\":1}", BIT(U32) | BIT(I64) | BIT(ANY)},
        {"{\"n\":1.0}", BIT(U32) | BIT(I64) | BIT(ANY)},
        {"{\"n\":1.5}", BIT(ANY)},
        {"{\"n\":0.9999999999}", BIT(ANY)},
        {"{\"n\":1e-300}", BIT(ANY)},
        {"{\"n\":[1]}", BIT(ARRAY) | BIT(ANY)},
        {"{\"n\":{\"a\":1}}", BIT(OBJECT) | BIT(ANY)},
        {"{\"n\":null}", BIT(ANY)},
        {"{\"n\":\"1\"}", BIT(STRING) | BIT(TEXT) | BIT(ANY)},
#undef BIT
    };
    static const size_t offsets[] = {
        [JSON_STRING] = offsetof(struct target, text),
        [JSON_TEXT] = offsetof(struct target, text),
        [JSON_BOOL] = offsetof(struct target, flag),
        [JSON_U32] = offsetof(struct target, word),
        [JSON_I64] = offsetof(struct target, number),
        [JSON_ARRAY] = offsetof(struct target, array),
        [JSON_OBJECT] = offsetof(struct target, object),
        [JSON_ANY] = offsetof(struct target, any),
    };
    for (size_t i = 0; i < COUNT_OF(values); i++)
        for (unsigned type = JSON_STRING; type <= JSON_ANY; type++) {
            struct target target;
            struct json_field field = {"n", (enum json_type)type, offsets[type], true, 0, 100};
            cr_assert_eq(one(values[i].json, field, &target),
                         values[i].fits & 1U << type ? ERR_NONE : ERR_FIELD_TYPE, "%s as %u",
                         values[i].json, type);
        }
}

static const struct json_field table[] = {
    {"name", JSON_STRING, offsetof(struct target, text), true, 1, 10},
    {"flag", JSON_BOOL, offsetof(struct target, flag), false, 0, 0},
    {"word", JSON_U32, offsetof(struct target, word), false, 1, 32},
};

Test(json, absent_fields_keep_their_defaults_and_given_ones_are_set)
{
    cleanup_json cJSON *json = NULL;
    struct error err = {0};
    struct target target = {.flag = true, .word = 7};
    cr_assert_eq(
        decode("{\"name\":\"n\",\"word\":32}", table, COUNT_OF(table), &target, &json, &err), 0,
        "%s", err.msg);
    cr_assert_str_eq(target.text, "n");
    cr_assert_eq(target.word, 32);
    cr_assert(target.flag);
    free(target.text);
}

Test(json, unknown_missing_and_wrong_shapes_are_refused_by_name)
{
    static const struct {
        const char *json, *named;
        enum error_code code;
    } cases[] = {
        {"{\"name\":\"n\",\"owner\":\"root\"}", "owner", ERR_FIELD_UNKNOWN},
        {"{\"Name\":\"n\"}", "Name", ERR_FIELD_UNKNOWN},
        {"{\"word\":1}", "name", ERR_FIELD_MISSING},
        {"{}", "name", ERR_FIELD_MISSING},
        {"{\"name\":\"n\",\"word\":33}", "word", ERR_FIELD_RANGE},
        {"{\"name\":\"n\",\"word\":0}", "word", ERR_FIELD_RANGE},
        {"{\"name\":\"n\",\"word\":-1}", "word", ERR_FIELD_RANGE},
        {"{\"name\":\"\"}", "name", ERR_FIELD_RANGE},
        {"{\"name\":null}", "name", ERR_FIELD_TYPE},
        {"[]", "object", ERR_FIELD_TYPE},
        {"\"name\"", "object", ERR_FIELD_TYPE},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        cleanup_json cJSON *json = NULL;
        struct error err = {0};
        struct target target = {0};
        cr_assert_eq(decode(cases[i].json, table, COUNT_OF(table), &target, &json, &err), -1, "%s",
                     cases[i].json);
        cr_assert_eq(err.code, cases[i].code, "%s: %s", cases[i].json, err.msg);
        cr_assert_not_null(strstr(err.msg, cases[i].named), "%s", err.msg);
        free(target.text);
    }
}

Test(json, a_tree_not_from_our_parser_cannot_give_a_field_twice_or_leak)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "name", "one");
    cJSON_AddStringToObject(json, "name", "two");
    struct error err = {0};
    struct target target = {0};
    cr_assert_eq(json_decode(json, table, COUNT_OF(table), &target, &err), -1);
    cr_assert_eq(err.code, ERR_JSON);
    cr_assert_str_eq(target.text, "one");
    free(target.text);
}

Test(json, an_unknown_name_of_any_length_is_quoted_as_whole_characters)
{
    char text[400] = "{\"";
    for (int i = 0; i < 60; i++)
        strcat(text, "\xe2\x82\xac");
    strcat(text, "\":1}");
    cleanup_json cJSON *json = NULL, *out = cJSON_CreateObject();
    struct error err = {0};
    struct target target = {0};
    cr_assert_eq(decode(text, table, COUNT_OF(table), &target, &json, &err), -1);
    cr_assert_eq(json_add_string(out, "detail", err.msg), 0);
    cr_assert_str_eq(out->child->valuestring, err.msg, "the message was cut inside a character");
}
