/* What a front that was taken over may send the root half; and the records that a restart reads. */
#include "fuzz.h"
#include "priv/internal.h"

#include <fcntl.h>

static void request(const uint8_t *data, size_t size)
{
    struct priv_request request = {0};
    memcpy(&request, data, size < sizeof(request) ? size : sizeof(request));
    if (priv_request_refusal(&request) != NULL)
        return;
    FUZZ_CHECK(request.protocol == PRIV_PROTOCOL && request.op > 0 && request.op < PRIV_OP_END);
    FUZZ_CHECK(request.instance[0] == '\0' || id_instance_valid(request.instance));
    if (request.op == PRIV_OPEN && request.u.open.what != PRIV_SOCKET_PORT)
        FUZZ_CHECK(request.u.open.port == 0);
    if (request.op == PRIV_KILL || request.op == PRIV_CHECK)
        for (size_t i = 0; i < sizeof(request.u); i++)
            FUZZ_CHECK(request.u.bytes[i] == 0);
}

static void record(const uint8_t *data, size_t size)
{
    static const char name[] = "aaaaaaaaaaaaaaaaaaaa";
    char path[] = "/tmp/motte-fuzz.XXXXXX";
    struct priv_record record;
    struct error err = {0};
    FUZZ_CHECK(mkdtemp(path) != NULL);
    cleanup_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && fs_write_all(fd, data, size) == 0);
    if (priv_record_read(dir, name, &record, &err) == 0) {
        FUZZ_CHECK(strcmp(record.instance, name) == 0 && record.pid >= 0);
        FUZZ_CHECK(record.state >= PRIV_RESERVED && record.state <= PRIV_DEAD);
        FUZZ_CHECK(memchr(record.boot_id, '\0', sizeof(record.boot_id)) != NULL);
    } else {
        FUZZ_CHECK(strstr(err.msg, name) != NULL);
    }
    FUZZ_CHECK(unlinkat(dir, name, 0) == 0 && rmdir(path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        record(data + 1, size - 1);
    else
        request(data + 1, size - 1);
    return 0;
}
