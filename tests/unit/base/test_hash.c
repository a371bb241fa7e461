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

static void hash_pages(int fd, uint8_t out[static HASH_SIZE])
{
    struct error err = {0};
    cr_assert_eq(hash_pages_fd(fd, NULL, NULL, out, &err), 0, "%s", err.msg);
}

/* Computed here another way: from the bytes in memory. */
static void expect_pages(const uint8_t *data, size_t size, uint8_t out[static HASH_SIZE])
{
    cleanup_free uint8_t *text = malloc(size + (size / HASH_PAGE + 2) * 8);
    size_t len = 0;
    for (size_t at = 0; at < size; at += HASH_PAGE) {
        size_t page = size - at < HASH_PAGE ? size - at : HASH_PAGE, set = 0;
        for (size_t i = 0; i < page; i++)
            set += data[at + i] != 0;
        if (set == 0)
            continue;
        uint64_t number = at / HASH_PAGE;
        memcpy(text + len, &number, 8); /* little-endian, as this machine is */
        memcpy(text + len + 8, data + at, page);
        len += 8 + page;
    }
    uint64_t end = size;
    memcpy(text + len, &end, 8);
    hash_sha256(text, len + 8, out);
}

Test(hash, R37_pages_hash_by_what_is_in_them_whether_zeros_are_written_or_not)
{
    enum { PAGES = 600, ROUNDS = 20 }; /* more than one read */
    struct random random = random_start();
    uint8_t expected[HASH_SIZE], sparse[HASH_SIZE], full[HASH_SIZE];
    for (int round = 0; round < ROUNDS; round++) {
        size_t size = random_below(&random, PAGES * HASH_PAGE);
        uint8_t *data = calloc(1, size + 1);
        cleanup_close int holes = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        cleanup_close int written = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        cr_assert_eq(ftruncate(holes, (off_t)size), 0);
        for (uint64_t n = random_below(&random, 40); n > 0 && size > 0; n--) {
            size_t at = random_below(&random, size);
            data[at] = (uint8_t)(1 + random_below(&random, 255));
            cr_assert_eq(pwrite(holes, data + at, 1, (off_t)at), 1);
        }
        cr_assert_eq(fs_write_all(written, data, size), 0);
        expect_pages(data, size, expected);
        hash_pages(holes, sparse);
        hash_pages(written, full);
        cr_assert_arr_eq(sparse, expected, HASH_SIZE);
        cr_assert_arr_eq(full, expected, HASH_SIZE);
        cr_assert_eq(ftruncate(holes, (off_t)size + 1), 0); /* only zeros more, and yet another */
        hash_pages(holes, sparse);
        cr_assert_arr_neq(sparse, expected, HASH_SIZE);
        free(data);
    }
}

static int refuse(void *context, struct error *err)
{
    return --*(int *)context > 0 ? 0 : error_set(err, ERR_CANCELLED, 0, "enough");
}

Test(hash, hashing_pages_ends_when_it_is_told_to)
{
    enum { SIZE = 4 << 20 };
    int left = 2;
    uint8_t digest[HASH_SIZE];
    struct error err = {0};
    cleanup_free uint8_t *data = malloc(SIZE);
    memset(data, 'z', SIZE);
    cleanup_close int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    cr_assert_eq(fs_write_all(fd, data, SIZE), 0);
    cr_assert_eq(hash_pages_fd(fd, refuse, &left, digest, &err), -1);
    cr_assert(err.code == ERR_CANCELLED && left == 0);
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
