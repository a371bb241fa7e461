/* A hostile agent's words: hello said and asked for, a command's frames, a file's, the answer to a restore,
 * the control channel. */
#include "feed.h"

enum { RESTORE = 4, GET, PUT };

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

static void restore(struct vsock_conn *conn)
{
    static const uint8_t token[WIRE_TOKEN_SIZE] = "a token of sorts";
    const struct vsock_restore_request request = {.instance = instance,
                                                  .generation = 1,
                                                  .hostname = "abcdefghij23",
                                                  .machine_id = "0123456789abcdef0123456789abcdef",
                                                  .token = token};
    struct vsock_restored ret;
    struct error err = {0};
    int done = vsock_restore(conn, &request, clock_mono_ms() + 10000, &ret, &err);
    FUZZ_CHECK((done < 0) == (err.code != ERR_NONE));
    if (done == 0)
        FUZZ_CHECK(ret.clock_skew_ms >= -(INT64_C(1) << 53) && ret.clock_skew_ms <= INT64_C(1)
                                                                                        << 53);
}

static int count(void *context, const void *data, size_t len, struct error *err)
{
    (void)data;
    (void)err;
    *(int64_t *)context += (int64_t)len;
    return 0;
}

static void get(struct vsock_conn *conn)
{
    int64_t came = 0;
    const struct vsock_sink sink = {count, &came};
    struct vsock_file_info info = {0};
    struct error err = {0};
    int done = vsock_file_open(conn, "/f", -1, &info, &err);
    FUZZ_CHECK((done < 0) == (err.code != ERR_NONE));
    FUZZ_CHECK(info.size >= 0 && info.size < INT64_C(1) << 53 && info.mode <= 07777);
    if (done < 0)
        return;
    done = vsock_file_read(conn, 0, info.size, &sink, &err);
    FUZZ_CHECK((done < 0) == (err.code != ERR_NONE));
    FUZZ_CHECK(done < 0 ? came <= info.size : came == info.size);
}

static ssize_t give(void *context, void *data, size_t size, struct error *err)
{
    int *left = context;
    (void)err;
    memset(data, 'x', size);
    return (*left)-- > 0 ? (ssize_t)size : 0;
}

static void put(struct vsock_conn *conn)
{
    int left = 2;
    const struct vsock_file_put file = {.path = "/f", .mode = 0644};
    const struct vsock_source source = {give, &left};
    struct error err = {0};
    int done = vsock_file_put(conn, &file, &source, -1, &err);
    FUZZ_CHECK((done < 0) == (err.code != ERR_NONE));
    FUZZ_CHECK(done < 0 || left < 0); /* never before all was sent */
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
    switch (data[0] == 'r'   ? RESTORE
            : data[0] == 'g' ? GET
            : data[0] == 'p' ? PUT
                             : data[0] % RESTORE) {
    case RESTORE:
        restore(feed.conn);
        break;
    case GET:
        get(feed.conn);
        break;
    case PUT:
        put(feed.conn);
        break;
    case 0:
    case 1:
        hello(feed.conn, data[0] % RESTORE == 1);
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
