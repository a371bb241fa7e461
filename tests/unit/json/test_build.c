/* Building: numbers keep every digit, failures leave no leak behind. */
#include "tests/unit/base/random.h"
#include "json/json.h"

#include <criterion/criterion.h>
#include <inttypes.h>

static double round_trip(double value)
{
    cleanup_json cJSON *object = cJSON_CreateObject(), *back = NULL;
    struct error err = {0};
    cr_assert_eq(json_add_number(object, "n", value), 0);
    cleanup_free char *text = json_print(object);
    cr_assert_eq(json_parse(text, strlen(text), &back, &err), 0, "%s: %s", text, err.msg);
    return cJSON_GetNumberValue(back->child);
}

Test(json, R37_whole_numbers_up_to_2_to_the_53_are_written_to_the_digit)
{
    struct random random = random_start();
    for (int round = 0; round < 50000; round++) {
        uint64_t bits = 1 + random_below(&random, 53);
        int64_t number = (int64_t)(random_next(&random) >> (64 - bits));
        if (random_below(&random, 2) == 0)
            number = -number;
        cr_assert_eq((int64_t)round_trip((double)number), number, "%" PRId64 " (seed %llu)", number,
                     (unsigned long long)random.seed);
    }
    cr_assert_eq((int64_t)round_trip(9007199254740991.0), 9007199254740991);
    cr_assert_eq((int64_t)round_trip(9007199254740992.0), 9007199254740992);
}

Test(json, values_of_each_kind_are_written_as_json_has_them)
{
    cleanup_json cJSON *object = cJSON_CreateObject();
    cr_assert_eq(json_add_string(object, "s", "a\"b"), 0);
    cr_assert_eq(json_add_string(object, "none", NULL), 0);
    cr_assert_eq(json_add_bool(object, "yes", true), 0);
    cr_assert_eq(json_add_bool(object, "no", false), 0);
    cr_assert_eq(json_add_number(object, "half", 0.5), 0);
    cr_assert_eq(json_add_number(object, "time", 1769860800123.0), 0);
    cr_assert_eq(json_add(object, "list", cJSON_CreateArray()), 0);
    cleanup_free char *text = json_print(object);
    cr_assert_str_eq(text, "{\"s\":\"a\\\"b\",\"none\":null,\"yes\":true,\"no\":false,\"half\":0.5,"
                           "\"time\":1769860800123,\"list\":[]}");
}

Test(json, a_failed_add_frees_its_value_and_leaves_the_object_as_it_was)
{
    cleanup_json cJSON *object = cJSON_CreateObject();
    cr_assert_eq(json_add_bool(object, "a", true), 0);
    cr_assert_eq(json_add(object, "b", NULL), -1);
    cr_assert_eq(json_add(NULL, "b", cJSON_CreateString("freed or a leak is reported")), -1);
    cleanup_free char *text = json_print(object);
    cr_assert_str_eq(text, "{\"a\":true}");
}
