/* What a front that was taken over may send the root half; the records that a restart reads; and what
 * a snapshot says of itself. */
#include "fuzz.h"
#include "priv/snapshot_internal.h"

#include <fcntl.h>
#include <sys/stat.h>

/* The snapshot that a request names, where it names one. */
static void check_named(const struct priv_request *request)
{
    static const struct {
        uint32_t op;
        size_t at; /* of its id in the union */
        bool may_be_empty;
    } named[] = {{PRIV_LAUNCH, HASH_SIZE, true},
                 {PRIV_SNAPSHOTS, 0, true},
                 {PRIV_FORGET_SNAPSHOT, 0, false}};
    for (size_t i = 0; i < COUNT_OF(named); i++) {
        const char *id = (const char *)request->u.bytes + named[i].at;
        if (request->op == named[i].op)
            FUZZ_CHECK(memchr(id, '\0', ID_INSTANCE_SIZE) != NULL &&
                       (id_instance_valid(id) || (id[0] == '\0' && named[i].may_be_empty)));
    }
}

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
    check_named(&request);
    if (request.op == PRIV_KILL || request.op == PRIV_CHECK ||
        (request.op >= PRIV_STAGE && request.op <= PRIV_UNSTAGE))
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
        FUZZ_CHECK(memchr(record.snapshot, '\0', sizeof(record.snapshot)) != NULL);
        FUZZ_CHECK(record.snapshot[0] == '\0' || id_instance_valid(record.snapshot));
    } else {
        FUZZ_CHECK(strstr(err.msg, name) != NULL);
    }
    FUZZ_CHECK(unlinkat(dir, name, 0) == 0 && rmdir(path) == 0);
}

/* What a snapshot says of itself; with `sum` its digest is right, so that what is in it counts. */
static void meta(const uint8_t *data, size_t size, bool sum)
{
    static const char name[] = "aaaaaaaaaaaaaaaaaaaa";
    enum { SUMMED = offsetof(struct priv_snapshot_meta, digest) };
    char path[] = "/tmp/motte-fuzz.XXXXXX";
    struct priv_snapshot_meta meta;
    struct error err = {0};
    uint8_t digest[HASH_SIZE];
    FUZZ_CHECK(mkdtemp(path) != NULL);
    cleanup_close int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    FUZZ_CHECK(mkdirat(dir, name, 0700) == 0);
    cleanup_close int at = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int fd = openat(at, "meta", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && fs_write_all(fd, data, size) == 0);
    if (sum && size >= sizeof(meta)) {
        hash_sha256(data, SUMMED, digest);
        FUZZ_CHECK(pwrite(fd, digest, HASH_SIZE, SUMMED) == HASH_SIZE);
    }
    if (priv_meta_read(dir, name, &meta, NULL, &err) == 0) {
        FUZZ_CHECK(strcmp(meta.snapshot, name) == 0 && id_instance_valid(meta.instance));
        FUZZ_CHECK(memchr(meta.vmm_version, '\0', sizeof(meta.vmm_version)) != NULL);
        FUZZ_CHECK(memchr(meta.host.kernel, '\0', sizeof(meta.host.kernel)) != NULL);
        FUZZ_CHECK(memchr(meta.host.vendor, '\0', sizeof(meta.host.vendor)) != NULL);
        FUZZ_CHECK(size == sizeof(meta));
    } else {
        FUZZ_CHECK(err.code == ERR_SNAPSHOT_DAMAGED);
    }
    FUZZ_CHECK(unlinkat(at, "meta", 0) == 0 && unlinkat(dir, name, AT_REMOVEDIR) == 0 &&
               rmdir(path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        record(data + 1, size - 1);
    else if (data[0] & 2)
        meta(data + 1, size - 1, (data[0] & 4) != 0);
    else
        request(data + 1, size - 1);
    return 0;
}
