/* A hostile agent's words: hello said and asked for, a command's frames, the control channel. */
#include "feed.h"

static const char instance[] = "abcdefghij234567abcd";

static void hello(struct vsock_conn *conn, bool asked)
{
    struct vsock_hello ret;
    struct error err = {0};
    int64_t deadline = clock_mono_ms() + 10000;
    int result = asked ? vsock_hello_ask(conn, instance, deadline, &ret, &err)
                       : vsock_hello_accept(conn, instance, deadline, &ret, &err);
    FUZZ_CHECK((result < 0) == (err.code != ERR_NONE));
    if (result == 0)
        FUZZ_CHECK(strcmp(ret.instance, instance) == 0 && ret.protocol == WIRE_PROTOCOL);
}

static void command(struct vsock_conn *conn)
{
    cleanup_json cJSON *argv = cJSON_CreateArray();
    cJSON_AddItemToArray(argv, cJSON_CreateString("true"));
    const struct vsock_exec_request request = {
        .argv = argv, .input = "in", .input_len = 2, .timeout_ms = 10000, .output_max = 16};
    struct vsock_exec_result result = {0};
    struct error err = {0};
    int done = vsock_exec(conn, &request, -1, &result, &err);
    FUZZ_CHECK((done < 0) == (err.code != ERR_NONE));
    FUZZ_CHECK(result.out.len <= 16 && result.err_out.len <= 16);
    if (done == 0)
        FUZZ_CHECK((result.exit_code >= 0) != (result.exit_signal > 0));
    vsock_exec_result_release(&result);
}

static void notify(void *context, const cJSON *message)
{
    (void)context;
    FUZZ_CHECK(cJSON_IsObject(message));
}

static void channel(struct vsock_conn *conn /* taken */)
{
    struct error err = {0};
    struct vsock_channel *channel = vsock_channel_new(conn, notify, NULL, &err);
    FUZZ_CHECK(channel != NULL);
    while (vsock_channel_readable(channel, &err) == 0)
        ;
    FUZZ_CHECK(err.code != ERR_NONE);
    vsock_channel_free(channel);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > FEED_MAX)
        return 0;
    struct feed feed = feed_new();
    feed_bytes(&feed, data + 1, size - 1, true);
    switch (data[0] % 4) {
    case 0:
    case 1:
        hello(feed.conn, data[0] % 4 == 1);
        break;
    case 2:
        command(feed.conn);
        break;
    default:
        channel(TAKE_PTR(feed.conn));
    }
    feed_end(&feed);
    return 0;
}
