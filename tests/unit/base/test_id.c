/* Identifiers: what may pass, by property and by a list of what attackers try. */
#include "base/base.h"
#include "tests/unit/base/random.h"

#include <criterion/criterion.h>

/* The rule again, as slowly and plainly as it can be said. */
static bool slow_vm_valid(const char *id, size_t len)
{
    if (len < 1 || len > 64)
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = id[i];
        bool fits = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-';
        if (!fits)
            return false;
    }
    return true;
}

/* On the heap to the byte, so that a sanitizer sees a read past the NUL. */
static bool vm_valid(const char *bytes, size_t len)
{
    char *exact = malloc(len + 1);
    memcpy(exact, bytes, len);
    exact[len] = '\0';
    bool valid = id_vm_valid(exact, len);
    free(exact);
    return valid;
}

Test(id, R10_R37_vm_id_agrees_with_a_slow_reference_on_random_bytes)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    struct random random = random_start();
    size_t accepted = 0;
    for (int round = 0; round < 200000; round++) {
        char id[80];
        size_t len = random_below(&random, 70);
        for (size_t i = 0; i < len; i++)
            id[i] = good[random_below(&random, sizeof(good) - 1)];
        for (uint64_t spoil = random_below(&random, 3); spoil > 0 && len > 0; spoil--)
            id[random_below(&random, len)] = (char)random_below(&random, 256);
        bool expected = slow_vm_valid(id, len);
        accepted += expected;
        cr_assert_eq(vm_valid(id, len), expected, "round %d, seed %llu", round,
                     (unsigned long long)random.seed);
    }
    cr_assert(accepted > 1000 && accepted < 199000, "the input tests one side only: %zu", accepted);
}

Test(id, R10_every_single_byte_at_every_place_agrees_with_the_reference)
{
    for (size_t place = 0; place < ID_VM_MAX; place += 21) {
        for (int byte = 0; byte < 256; byte++) {
            char id[ID_VM_MAX];
            memset(id, 'a', sizeof(id));
            id[place] = (char)byte;
            cr_assert_eq(vm_valid(id, sizeof(id)), slow_vm_valid(id, sizeof(id)), "byte %d at %zu",
                         byte, place);
        }
    }
}

Test(id, R10_nasty_ids_are_refused)
{
    static const char *const nasty[] = {
        "../../etc/passwd",
        "/",
        ".",
        "..",
        "",
        "a/b",
        "a.b",
        "%00",
        "a%2e",
        "a b",
        " a",
        "a ",
        "a\n",
        "\r\n",
        "\t",
        "vm;reboot",
        "$(id)",
        "`id`",
        "a'b",
        "a\"b",
        "a\\b",
        "--help=",
        "caf\xc3\xa9",
        "\xef\xbc\xa1",
        "\xe2\x80\x8b",
        "a\x7f",
        "\xff",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", /* 65 */
    };
    for (size_t i = 0; i < COUNT_OF(nasty); i++)
        cr_assert_not(vm_valid(nasty[i], strlen(nasty[i])), "`%s`", nasty[i]);
    cr_assert_not(vm_valid("a\0b", 3), "a NUL inside");
    cr_assert_not(vm_valid("ab\0", 3), "a NUL at the end");
    cr_assert_not(id_vm_valid("abc", 2), "a length that cuts the text");
}

Test(id, R10_ids_that_the_jailer_would_not_take_are_fine)
{
    cr_assert(vm_valid("test_vm", 7));
    cr_assert(vm_valid("-", 1));
    cr_assert(vm_valid("_", 1));
    cr_assert(vm_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 64));
}

static int by_text(const void *a, const void *b)
{
    return strcmp(a, b);
}

Test(id, R10_made_instance_ids_are_valid_distinct_and_use_the_whole_alphabet)
{
    enum { COUNT = 10000 };
    char(*ids)[ID_INSTANCE_SIZE] = calloc(COUNT, sizeof(*ids));
    bool seen[256] = {false};
    for (size_t i = 0; i < COUNT; i++) {
        struct error err = {0};
        cr_assert_eq(id_instance_make(ids[i], &err), 0, "%s", err.msg);
        cr_assert(id_instance_valid(ids[i]), "%s", ids[i]);
        for (size_t c = 0; c < ID_INSTANCE_LEN; c++)
            seen[(unsigned char)ids[i][c]] = true;
    }
    qsort(ids, COUNT, sizeof(*ids), by_text);
    for (size_t i = 1; i < COUNT; i++)
        cr_assert_str_neq(ids[i - 1], ids[i]);
    size_t letters = 0;
    for (size_t c = 0; c < sizeof(seen); c++)
        letters += seen[c];
    cr_assert_eq(letters, 32);
    free(ids);
}

Test(id, R10_instance_ids_of_another_form_are_refused)
{
    static const char *const bad[] = {
        "",
        "abcdefghijklmnopqrs",
        "abcdefghijklmnopqrstu",
        "abcdefghijklmnopqrsT",
        "abcdefghijklmnopqrs0",
        "abcdefghijklmnopqrs1",
        "abcdefghij/lmnopqrst",
        "../../../../../../et",
        "abcdefghijklmnopqrs8",
        "abcdefghijklmnopqrs ",
        "abcdefghijklmnopqrs\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_not(id_instance_valid(bad[i]), "`%s`", bad[i]);
}

Test(id, R10_names_of_images_cannot_leave_their_folder)
{
    static const char *const bad[] = {"",
                                      ".",
                                      "..",
                                      ".hidden",
                                      "-x",
                                      "_x",
                                      "a/b",
                                      "/a",
                                      "A",
                                      "a b",
                                      "a\n",
                                      "caf\xc3\xa9",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    static const char *const good[] = {
        "a", "0", "python", "python-3.11_x", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a..b"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_not(id_name_valid(bad[i]), "`%s`", bad[i]);
    for (size_t i = 0; i < COUNT_OF(good); i++)
        cr_assert(id_name_valid(good[i]), "`%s`", good[i]);
}

Test(id, boot_id_is_what_the_kernel_says)
{
    char boot[ID_BOOT_SIZE], kernel[ID_BOOT_SIZE] = "";
    struct error err = {0};
    cr_assert_eq(id_boot_read(boot, &err), 0, "%s", err.msg);
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
    cr_assert_not_null(fgets(kernel, sizeof(kernel), file));
    fclose(file);
    cr_assert_str_eq(boot, kernel);
}
