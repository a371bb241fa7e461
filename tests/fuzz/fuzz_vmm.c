/* A broken-out VMM's answers: Firecracker's faults, QEMU's monitor. */
#include "feed.h"
#include "vmm/internal.h"

static void fault(const uint8_t *data, size_t size)
{
    struct error err = {0};
    vmm_firecracker_fault("PUT /actions", 400, (const char *)data, size, &err);
    FUZZ_CHECK(err.code == ERR_HYPERVISOR && strstr(err.msg, "/actions") != NULL);
}

static void monitor(const uint8_t *data, size_t size)
{
    struct feed feed = feed_new();
    struct error err = {0};
    feed_bytes(&feed, data, size, true);
    int result = vmm_qmp_talk(vsock_conn_fd(feed.conn), "cont", VMM_API_TIMEOUT_MS, &err);
    FUZZ_CHECK((result < 0) == (err.code != ERR_NONE));
    feed_end(&feed);
}

static void status(const uint8_t *data, size_t size)
{
    struct feed feed = feed_new();
    struct error err = {0};
    bool paused = false;
    feed_bytes(&feed, data, size, true);
    int result = vmm_qmp_status(vsock_conn_fd(feed.conn), VMM_API_TIMEOUT_MS, &paused, &err);
    FUZZ_CHECK((result < 0) == (err.code != ERR_NONE) && !(result < 0 && paused));
    feed_end(&feed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FEED_MAX)
        return 0;
    if (data[0] & 1 && data[0] & 2)
        status(data + 1, size - 1);
    else if (data[0] & 1)
        monitor(data + 1, size - 1);
    else
        fault(data + 1, size - 1);
    return 0;
}
