/* SHA-256 against the values FIPS 180 gives, and hex both ways. */
#include "base/base.h"
#include "tests/unit/base/random.h"

#include <criterion/criterion.h>
#include <fcntl.h>

static const char abc_hex[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

Test(hash, known_answers)
{
    uint8_t digest[HASH_SIZE];
    char hex[HASH_HEX_SIZE];
    hash_sha256("abc", 3, digest);
    hash_to_hex(digest, sizeof(digest), hex);
    cr_assert_str_eq(hex, abc_hex);
    hash_sha256("", 0, digest);
    hash_to_hex(digest, sizeof(digest), hex);
    cr_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

Test(hash, a_file_hashes_like_its_bytes_wherever_its_offset_stands)
{
    enum { SIZE = (1 << 18) + 12345 }; /* more than one read */
    char *data = malloc(SIZE);
    memset(data, 'z', SIZE);
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_eq(fs_write_all(fd, data, SIZE), 0);
    uint8_t memory[HASH_SIZE], file[HASH_SIZE];
    struct error err = {0};
    hash_sha256(data, SIZE, memory);
    cr_assert_eq(hash_sha256_fd(fd, file, &err), 0, "%s", err.msg);
    cr_assert_arr_eq(memory, file, HASH_SIZE);
    close(fd);
    free(data);
}

Test(hash, R37_hex_round_trips_and_anything_else_is_refused)
{
    struct random random = random_start();
    for (int round = 0; round < 2000; round++) {
        uint8_t bytes[HASH_SIZE], back[HASH_SIZE];
        char hex[HASH_HEX_SIZE];
        for (size_t i = 0; i < sizeof(bytes); i++)
            bytes[i] = (uint8_t)random_below(&random, 256);
        hash_to_hex(bytes, sizeof(bytes), hex);
        cr_assert_eq(hash_from_hex(hex, back, sizeof(back)), 0);
        cr_assert_arr_eq(bytes, back, sizeof(bytes), "seed %llu", (unsigned long long)random.seed);
        size_t place = random_below(&random, 2 * HASH_SIZE);
        hex[place] = RANDOM_PICK(&random, "ghxG/:@` \n\xff"); /* the last is the NUL: too short */
        cr_assert_eq(hash_from_hex(hex, back, sizeof(back)), -1, "seed %llu",
                     (unsigned long long)random.seed);
    }
}
