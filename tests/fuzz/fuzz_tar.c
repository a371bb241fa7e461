/* The agent's tar reader over the host's bytes, in pieces of any size; what it takes is written and read
 * again. */
#include "fuzz.h"
#include "guest/tar.h"

#include <string.h>

struct input {
    const uint8_t *data;
    size_t left, most; /* of a piece */
};

static ssize_t take(void *context, void *out, size_t size)
{
    struct input *input = context;
    size_t len = size < input->left ? size : input->left;
    len = len < input->most ? len : input->most;
    if (len > 0)
        memcpy(out, input->data, len);
    input->data += len;
    input->left -= len;
    return (ssize_t)len;
}

static void again(const struct guest_tar_member *member)
{
    static uint8_t bytes[GUEST_TAR_HEADERS_MAX];
    static struct guest_tar_member back;
    struct input input = {bytes, guest_tar_headers(member, bytes), sizeof bytes};
    struct guest_tar_reader reader = {.read = take, .context = &input};
    FUZZ_CHECK(input.left <= sizeof bytes && input.left % GUEST_TAR_BLOCK == 0);
    FUZZ_CHECK(guest_tar_next(&reader, &back) == 1);
    FUZZ_CHECK(strcmp(back.name, member->name) == 0 && strcmp(back.target, member->target) == 0);
    FUZZ_CHECK(back.size == member->size && back.mtime_s == member->mtime_s);
    FUZZ_CHECK(back.mode == member->mode && back.type == member->type);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct guest_tar_member member;
    if (size == 0)
        return 0;
    struct input input = {data + 1, size - 1, (size_t)data[0] * 8 + 1};
    struct guest_tar_reader reader = {.read = take, .context = &input};
    int got;
    while ((got = guest_tar_next(&reader, &member)) > 0) {
        uint8_t content[100];
        FUZZ_CHECK(member.size >= 0 && member.mode <= 07777);
        FUZZ_CHECK(strnlen(member.name, PATH_MAX) < PATH_MAX);
        FUZZ_CHECK(strnlen(member.target, PATH_MAX) < PATH_MAX);
        again(&member);
        if (data[0] % 2 == 0)
            FUZZ_CHECK(guest_tar_content(&reader, content, sizeof content) <=
                       (ssize_t)sizeof content);
    }
    FUZZ_CHECK(got == 0 || reader.wrong != NULL);
    return 0;
}
