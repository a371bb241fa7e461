/* Files of a guest: a request, and bytes that follow it or its answer. */
#include "vsock/internal.h"

enum { STALL_MS = 30000 };

#define WHOLE_MAX ((INT64_C(1) << 53) - 1)

int64_t vsock_file_patience(void)
{
    return clock_mono_ms() + STALL_MS;
}

/* ---- requests and answers ---- */

cJSON *vsock_file_request(const char *op, uint64_t id, const char *path)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    bool failed = json == NULL || json_add_number(json, "id", (double)id) ||
                  json_add_string(json, "op", op) || json_add_string(json, "path", path);
    return failed ? NULL : TAKE_PTR(json);
}

int vsock_file_send(struct vsock_conn *conn, const cJSON *json, struct error *err)
{
    if (json == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    return vsock_write_json(conn, json, vsock_file_patience(), err);
}

/* The guest's word on why, where it means more to a caller than that it refused. */
static enum error_code code_of(const cJSON *reply)
{
    const cJSON *why = cJSON_GetObjectItemCaseSensitive(reply, "error");
    const char *code = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(why, "code"));
    if (code != NULL && strcmp(code, "no_file") == 0)
        return ERR_FILE_UNKNOWN;
    if (code != NULL && strcmp(code, "bad_archive") == 0)
        return ERR_ARCHIVE;
    return code != NULL && strcmp(code, "no_space") == 0 ? ERR_GUEST_FULL : ERR_GUEST_REFUSED;
}

int vsock_file_check(const cJSON *reply, uint64_t id, struct error *err)
{
    if (vsock_message_id(reply) != id)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an answer to a request never made");
    if (vsock_reply_check(reply, err)) {
        if (err->code == ERR_GUEST_REFUSED)
            err->code = code_of(reply);
        return -1;
    }
    return 0;
}

int vsock_file_answer(struct vsock_conn *conn, uint64_t id, cJSON **ret, struct error *err)
{
    cleanup_json cJSON *reply = NULL;
    if (vsock_read_json(conn, vsock_file_patience(), &reply, err) ||
        vsock_file_check(reply, id, err))
        return -1;
    *ret = TAKE_PTR(reply);
    return 0;
}

struct answer {
    int64_t id, size, mtime_ms;
    uint32_t mode;
    bool ok;
};

#define COMMON                                                                                     \
    {"id", JSON_I64, offsetof(struct answer, id), true, 1, INT64_C(1) << 53},                      \
    {                                                                                              \
        "ok", JSON_BOOL, offsetof(struct answer, ok), true, 0, 0                                   \
    }
#define SIZE                                                                                       \
    {                                                                                              \
        "size", JSON_I64, offsetof(struct answer, size), true, 0, WHOLE_MAX                        \
    }

static int decode(const cJSON *reply, const struct json_field *table, size_t count,
                  struct answer *ret, struct error *err)
{
    struct error inner = {0};
    if (json_decode(reply, table, count, ret, &inner))
        return vsock_blame(&inner, "the guest's answer is wrong", err);
    return 0;
}

int vsock_file_ended(struct vsock_conn *conn, int result, const struct error *err)
{
    bool refused = err->code == ERR_GUEST_REFUSED || err->code == ERR_FILE_UNKNOWN;
    conn->over = conn->over || (result < 0 && !refused);
    return result;
}

/* ---- put ---- */

int vsock_file_send_all(struct vsock_conn *conn, const struct vsock_source *source,
                        int64_t *ret_size, struct error *err)
{
    uint8_t chunk[VSOCK_CHUNK];
    for (int64_t size = 0;;) {
        ssize_t got = source->read(source->context, chunk, sizeof chunk, err);
        if (got < 0 ||
            vsock_write(conn, WIRE_STDIN, chunk, (size_t)got, vsock_file_patience(), err))
            return -1;
        size += got;
        int word = got == 0 ? 1 : vsock_conn_fill(conn, VSOCK_FRAME_SIZE, err);
        if (word < 0)
            return -1;
        if (word > 0) {
            *ret_size = got == 0 ? size : -1;
            return 0;
        }
    }
}

static int put(struct vsock_conn *conn, const struct vsock_file_put *file,
               const struct vsock_source *source, struct error *err)
{
    static const struct json_field TABLE[] = {COMMON, SIZE};
    struct answer answer = {0};
    int64_t size = 0;
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *json = vsock_file_request("put", id, file->path);
    if (json != NULL && (json_add_number(json, "mode", file->mode) ||
                         json_add_bool(json, "parents", file->parents)))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    if (vsock_file_send(conn, json, err) || vsock_file_send_all(conn, source, &size, err) ||
        vsock_file_answer(conn, id, &reply, err) ||
        decode(reply, TABLE, COUNT_OF(TABLE), &answer, err))
        return -1;
    if (answer.size != size)
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: it wrote another number of bytes than it "
                         "was sent");
    return 0;
}

int vsock_file_put(struct vsock_conn *conn, const struct vsock_file_put *file,
                   const struct vsock_source *source, int cancel, struct error *err)
{
    conn->cancel = cancel;
    int result = put(conn, file, source, err);
    conn->over = conn->over || result < 0; /* after a refusal too: the rest was not sent */
    return result;
}

/* ---- get ---- */

int vsock_file_open(struct vsock_conn *conn, const char *path, int cancel,
                    struct vsock_file_info *ret, struct error *err)
{
    static const struct json_field TABLE[] = {
        COMMON,
        SIZE,
        {"mode", JSON_U32, offsetof(struct answer, mode), true, 0, 07777},
        {"mtime_ms", JSON_I64, offsetof(struct answer, mtime_ms), true, -WHOLE_MAX, WHOLE_MAX},
    };
    struct answer answer = {0};
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *json = vsock_file_request("get", id, path);
    conn->cancel = cancel;
    int result = vsock_file_send(conn, json, err) || vsock_file_answer(conn, id, &reply, err) ||
                         decode(reply, TABLE, COUNT_OF(TABLE), &answer, err)
                     ? -1
                     : 0;
    if (result == 0)
        *ret = (struct vsock_file_info){
            .size = answer.size, .mode = answer.mode, .mtime_ms = answer.mtime_ms};
    return vsock_file_ended(conn, result, err);
}

static int send_wish(struct vsock_conn *conn, int64_t offset, int64_t length, struct error *err)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    if (json != NULL &&
        (json_add_string(json, "op", "send") || json_add_number(json, "offset", (double)offset) ||
         json_add_number(json, "length", (double)length)))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    return vsock_file_send(conn, json, err);
}

int vsock_file_take_all(struct vsock_conn *conn, int64_t length, const struct vsock_sink *sink,
                        struct error *err)
{
    bool sized = length >= 0;
    length = sized ? length : INT64_MAX;
    int64_t deadline_ms = vsock_file_patience(), renewed_at = length;
    for (;;) {
        struct vsock_frame frame;
        if (vsock_read(conn, deadline_ms, &frame, err))
            return -1;
        if (frame.kind != WIRE_STDOUT || (int64_t)frame.len > length)
            return error_set(err, ERR_GUEST_PROTOCOL, 0,
                             "the guest broke the protocol: what it sends is not of the file");
        if (frame.len == 0 && length > 0 && sized)
            return error_set(err, ERR_GUEST_CLOSED, 0,
                             "the file became shorter, or could not be read to its end");
        if (frame.len == 0)
            return 0;
        length -= (int64_t)frame.len;
        int64_t before_ms = clock_mono_ms();
        if (sink->write(sink->context, frame.data, frame.len, err))
            return -1;
        deadline_ms += clock_mono_ms() - before_ms; /* the sink's time is not the guest's */
        if (renewed_at - length >= VSOCK_CHUNK) {   /* not by every drop of one that dribbles */
            deadline_ms = vsock_file_patience();
            renewed_at = length;
        }
    }
}

int vsock_file_read(struct vsock_conn *conn, int64_t offset, int64_t length,
                    const struct vsock_sink *sink, struct error *err)
{
    int result =
        send_wish(conn, offset, length, err) || vsock_file_take_all(conn, length, sink, err) ? -1
                                                                                             : 0;
    return vsock_file_ended(conn, result, err);
}

/* ---- remove ---- */

int vsock_file_remove(struct vsock_conn *conn, const char *path, bool recursive, int cancel,
                      struct error *err)
{
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *json = vsock_file_request("remove", id, path);
    conn->cancel = cancel;
    if (recursive && json != NULL && json_add_bool(json, "recursive", true))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    int result =
        vsock_file_send(conn, json, err) || vsock_file_answer(conn, id, &reply, err) ? -1 : 0;
    return vsock_file_ended(conn, result, err);
}
