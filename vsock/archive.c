/* A directory of a guest as one stream: a tar archive, which the guest packs and unpacks. The host
 * carries the bytes and looks at none of them. */
#include "vsock/internal.h"

#define WHOLE_MAX ((INT64_C(1) << 53) - 1)

int vsock_archive_open(struct vsock_conn *conn, const char *path, int cancel, uint64_t *ret_id,
                       struct error *err)
{
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *json = vsock_file_request("pack", id, path);
    conn->cancel = cancel;
    int result =
        vsock_file_send(conn, json, err) || vsock_file_answer(conn, id, &reply, err) ? -1 : 0;
    *ret_id = id;
    return vsock_file_ended(conn, result, err);
}

int vsock_archive_read(struct vsock_conn *conn, uint64_t id, const struct vsock_sink *sink,
                       struct error *err)
{
    cleanup_json cJSON *reply = NULL;
    int result =
        vsock_file_take_all(conn, -1, sink, err) || vsock_file_answer(conn, id, &reply, err) ? -1
                                                                                             : 0;
    return vsock_file_ended(conn, result, err);
}

static int decode(const cJSON *reply, struct vsock_unpacked *ret, struct error *err)
{
    struct answer {
        int64_t id;
        bool ok;
        struct vsock_unpacked unpacked;
    } answer = {0};
    static const struct json_field table[] = {
        {"id", JSON_I64, offsetof(struct answer, id), true, 1, INT64_C(1) << 53},
        {"ok", JSON_BOOL, offsetof(struct answer, ok), true, 0, 0},
        {"entries", JSON_I64, offsetof(struct answer, unpacked.entries), true, 0, WHOLE_MAX},
        {"size", JSON_I64, offsetof(struct answer, unpacked.size), true, 0, WHOLE_MAX},
        {"created", JSON_BOOL, offsetof(struct answer, unpacked.created), true, 0, 0},
    };
    struct error inner = {0};
    if (json_decode(reply, table, COUNT_OF(table), &answer, &inner))
        return vsock_blame(&inner, "the guest's answer is wrong", err);
    *ret = answer.unpacked;
    return 0;
}

static int put(struct vsock_conn *conn, const char *path, bool parents,
               const struct vsock_source *source, struct vsock_unpacked *ret, struct error *err)
{
    uint64_t id = conn->next_id++;
    int64_t size = 0;
    cleanup_json cJSON *reply = NULL;
    cleanup_json cJSON *json = vsock_file_request("unpack", id, path);
    if (json != NULL && json_add_bool(json, "parents", parents))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    if (vsock_file_send(conn, json, err) || vsock_file_send_all(conn, source, &size, err) ||
        vsock_file_answer(conn, id, &reply, err) || decode(reply, ret, err))
        return -1;
    if (ret->size > size) /* or it said yes before it had all */
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: it unpacked more than it was sent");
    return 0;
}

int vsock_archive_put(struct vsock_conn *conn, const char *path, bool parents,
                      const struct vsock_source *source, int cancel, struct vsock_unpacked *ret,
                      struct error *err)
{
    conn->cancel = cancel;
    int result = put(conn, path, parents, source, ret, err);
    conn->over = conn->over || result < 0; /* after a refusal too: the rest was not sent */
    return result;
}
