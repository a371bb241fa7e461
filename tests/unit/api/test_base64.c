/* Bytes as text and back. */
#include "api/internal.h"
#include "tests/unit/base/random.h"

#include <criterion/criterion.h>

Test(api_base64, what_is_encoded_is_decoded)
{
    struct random random = random_start();
    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[100];
        char text[API_BASE64_SIZE(sizeof(bytes))];
        size_t len = random_below(&random, sizeof(bytes) + 1);
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)random_next(&random);
        size_t size = api_base64_encode(bytes, len, text);
        cr_assert_eq(size, API_BASE64_SIZE(len));
        cr_assert_eq(api_base64_decode(text, size), (ssize_t)len);
        cr_assert_eq(memcmp(text, bytes, len), 0);
    }
}

Test(api_base64, as_the_standard_has_it)
{
    char text[16];
    cr_assert_eq(api_base64_encode("foobar", 6, text), 8);
    cr_assert_eq(memcmp(text, "Zm9vYmFy", 8), 0);
    cr_assert_eq(api_base64_encode("fo", 2, text), 4);
    cr_assert_eq(memcmp(text, "Zm8=", 4), 0);
    static const char *const bad[] = {
        "a", "ab", "abc", "a===", "====", "Zm9=", "Zh==", "Zm8=Zm8=", "Zm 8", "Zm-_", "Zm8\n"};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        snprintf(text, sizeof(text), "%s", bad[i]);
        cr_assert_eq(api_base64_decode(text, strlen(bad[i])), -1, "%s", bad[i]);
    }
}
