/* replay CORPUS...: where there is no libFuzzer, gives every file of the directories to the target,
 * and mutants of each. FUZZ_SEED repeats a run, FUZZ_MUTANTS says how many of each file. */
#include "base/base.h"
#include "fuzz.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

enum { INPUT_MAX = 1 << 17, FILES_MAX = 1024, MUTANTS = 3000, CHANGES_MAX = 8 };

struct input {
    uint8_t *data;
    size_t len;
};

struct corpus {
    size_t count;
    struct input files[FILES_MAX];
};

static uint64_t next(uint64_t *state) /* xorshift64* */
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static size_t below(uint64_t *state, size_t bound)
{
    return bound == 0 ? 0 : (size_t)(next(state) % bound);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtoull(text, NULL, 10);
}

static void read_file(int dir, const char *name, struct corpus *corpus)
{
    struct input *input = &corpus->files[corpus->count];
    cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && corpus->count < FILES_MAX);
    input->data = malloc(INPUT_MAX);
    FUZZ_CHECK(input->data != NULL);
    ssize_t len = read(fd, input->data, INPUT_MAX);
    FUZZ_CHECK(len >= 0);
    input->len = (size_t)len;
    corpus->count++;
}

static void read_directory(const char *path, struct corpus *corpus)
{
    DIR *dir = opendir(path);
    FUZZ_CHECK(dir != NULL);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        if (entry->d_name[0] != '.')
            read_file(dirfd(dir), entry->d_name, corpus);
    closedir(dir);
}

/* Cuts `count` bytes out at `at`. */
static void drop(struct input *input, size_t at, size_t count)
{
    memmove(input->data + at, input->data + at + count, input->len - at - count);
    input->len -= count;
}

/* Puts a piece of another file in at `at`. */
static void insert(struct input *input, size_t at, const struct input *other, uint64_t *state)
{
    size_t from = below(state, other->len), count = below(state, other->len - from + 1);
    if (count > INPUT_MAX - input->len)
        return;
    memmove(input->data + at + count, input->data + at, input->len - at);
    memcpy(input->data + at, other->data + from, count);
    input->len += count;
}

static void change(struct input *input, const struct corpus *corpus, uint64_t *state)
{
    static const uint8_t odd[] = {0, '"', '\\', '{', '[', '\n', '%', '=', 0x7f, 0x80, 0xff};
    size_t at = below(state, input->len);
    switch (below(state, 5)) {
    case 0:
        if (input->len > 0)
            input->data[at] ^= (uint8_t)(1u << below(state, 8));
        break;
    case 1:
        if (input->len > 0)
            input->data[at] = odd[below(state, sizeof(odd))];
        break;
    case 2:
        drop(input, at, below(state, input->len - at + 1));
        break;
    case 3:
        if (input->len > 0)
            input->data[at] = (uint8_t)next(state);
        break;
    default:
        insert(input, at, &corpus->files[below(state, corpus->count)], state);
        break;
    }
}

/* A copy of exactly the input's size, so that a sanitizer sees a read past its end. */
static void give(const struct input *input)
{
    cleanup_free uint8_t *exact = malloc(input->len + (input->len == 0));
    FUZZ_CHECK(exact != NULL);
    memcpy(exact, input->data, input->len);
    LLVMFuzzerTestOneInput(exact, input->len);
}

static void mutate(const struct corpus *corpus, uint64_t mutants, uint64_t *state)
{
    struct input input = {.data = malloc(INPUT_MAX)};
    FUZZ_CHECK(input.data != NULL);
    for (uint64_t i = 0; i < mutants * corpus->count; i++) {
        const struct input *file = &corpus->files[i % corpus->count];
        memcpy(input.data, file->data, file->len);
        input.len = file->len;
        for (size_t changes = 1 + below(state, CHANGES_MAX); changes > 0; changes--)
            change(&input, corpus, state);
        give(&input);
    }
    free(input.data);
}

int main(int argc, char **argv)
{
    static struct corpus corpus;
    uint64_t seed = from_environment("FUZZ_SEED", (uint64_t)clock_mono_us());
    uint64_t mutants = from_environment("FUZZ_MUTANTS", MUTANTS);
    for (int i = 1; i < argc; i++)
        read_directory(argv[i], &corpus);
    FUZZ_CHECK(corpus.count > 0);
    printf("FUZZ_SEED=%llu\ncounted: %llu fuzz executions\n", (unsigned long long)seed,
           (unsigned long long)(corpus.count * (mutants + 1)));
    fflush(stdout);
    for (size_t i = 0; i < corpus.count; i++)
        give(&corpus.files[i]);
    seed |= 1; /* the generator must not start at 0 */
    mutate(&corpus, mutants, &seed);
    for (size_t i = 0; i < corpus.count; i++)
        free(corpus.files[i].data);
    return 0;
}
