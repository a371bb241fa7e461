/* A directory of a guest, page by page. Its names are bytes, which JSON does not carry: they come in
 * hexadecimal digits. */
#include "vsock/internal.h"

enum { BYTES_MAX = 256 * 1024 }; /* of names and targets in a page */

#define WHOLE_MAX ((INT64_C(1) << 53) - 1)

struct wire_entry {
    char *name, *type, *target; /* owned */
    int64_t size, mtime_ms;
    uint32_t mode;
};

static void release(struct wire_entry *entry)
{
    free(entry->name);
    free(entry->type);
    free(entry->target);
}

/* As many bytes as `hex` has, and a NUL that is none of them; -1: not so. */
static int take_bytes(const char *hex, char *out, size_t max)
{
    size_t len = strlen(hex) / 2;
    if (len == 0 || len > max || hash_from_hex(hex, (uint8_t *)out, len) < 0)
        return -1;
    out[len] = '\0';
    return strlen(out) == len ? 0 : -1;
}

static int take_type(const char *type, struct vsock_entry *ret)
{
    static const char *const types[] = {"file",   "directory",   "symlink",     "fifo",
                                        "socket", "char_device", "block_device"};
    for (size_t i = 0; i < COUNT_OF(types); i++)
        if (strcmp(types[i], type) == 0)
            ret->type = types[i];
    ret->link = strcmp(type, "symlink") == 0;
    return ret->type == NULL ? -1 : 0;
}

static int take_entry(const cJSON *message, struct vsock_entry *ret, struct error *err)
{
    static const struct json_field table[] = {
        {"name", JSON_STRING, offsetof(struct wire_entry, name), true, 2, VSOCK_NAME_HEX_SIZE - 1},
        {"type", JSON_STRING, offsetof(struct wire_entry, type), true, 1, 20},
        {"target", JSON_STRING, offsetof(struct wire_entry, target), false, 2,
         (int64_t)2 * VSOCK_LINK_MAX},
        {"size", JSON_I64, offsetof(struct wire_entry, size), true, 0, WHOLE_MAX},
        {"mode", JSON_U32, offsetof(struct wire_entry, mode), true, 0, 07777},
        {"mtime_ms", JSON_I64, offsetof(struct wire_entry, mtime_ms), true, -WHOLE_MAX, WHOLE_MAX},
    };
    struct wire_entry wire cleanup(release) = {0};
    struct error inner = {0};
    if (json_decode(message, table, COUNT_OF(table), &wire, &inner) < 0)
        return vsock_blame(&inner, "an entry of a directory is wrong", err);
    *ret = (struct vsock_entry){.size = wire.size, .mode = wire.mode, .mtime_ms = wire.mtime_ms};
    bool bad = take_type(wire.type, ret) < 0 ||
               take_bytes(wire.name, ret->name, VSOCK_NAME_MAX) < 0 || strchr(ret->name, '/') ||
               (wire.target != NULL && !ret->link);
    ret->link = ret->link && wire.target != NULL; /* else it went while it was looked at */
    if (bad || (ret->link && take_bytes(wire.target, ret->target, VSOCK_LINK_MAX) < 0))
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: an entry of a directory is wrong");
    return 0;
}

static int take_end(const cJSON *reply, uint64_t id, char ret_next[static VSOCK_NAME_HEX_SIZE],
                    struct error *err)
{
    char name[VSOCK_NAME_MAX + 1];
    if (vsock_file_check(reply, id, err))
        return -1;
    const cJSON *next = cJSON_GetObjectItemCaseSensitive(reply, "next");
    const char *text = cJSON_GetStringValue(next);
    if (next != NULL && (text == NULL || take_bytes(text, name, VSOCK_NAME_MAX) < 0))
        return error_set(err, ERR_GUEST_PROTOCOL, 0,
                         "the guest broke the protocol: a directory goes on at no name");
    snprintf(ret_next, VSOCK_NAME_HEX_SIZE, "%s", next != NULL ? text : "");
    return 0;
}

/* Entries have no id; the answer that ends them has. */
static int take_page(struct vsock_conn *conn, uint64_t id, uint32_t limit,
                     const struct vsock_lister *lister, char ret_next[static VSOCK_NAME_HEX_SIZE],
                     struct error *err)
{
    size_t bytes = 0;
    int64_t deadline_ms = vsock_file_patience(); /* a page is small: for all of it */
    for (uint32_t count = 0;; count++) {
        cleanup_json cJSON *message = NULL;
        struct vsock_entry entry;
        if (vsock_read_json(conn, deadline_ms, &message, err))
            return -1;
        if (cJSON_GetObjectItemCaseSensitive(message, "id") != NULL)
            return take_end(message, id, ret_next, err);
        if (take_entry(message, &entry, err))
            return -1;
        bytes += strlen(entry.name) + strlen(entry.target);
        if (count == limit || bytes > BYTES_MAX)
            return error_set(err, ERR_GUEST_PROTOCOL, 0,
                             "the guest broke the protocol: a page of a directory has more than "
                             "was asked for");
        if (lister->entry(lister->context, &entry, err) < 0)
            return -1;
    }
}

int vsock_file_list(struct vsock_conn *conn, const char *path, const char *after, uint32_t limit,
                    const struct vsock_lister *lister, int cancel,
                    char ret_next[static VSOCK_NAME_HEX_SIZE], struct error *err)
{
    uint64_t id = conn->next_id++;
    cleanup_json cJSON *json = vsock_file_request("list", id, path);
    conn->cancel = cancel;
    if (json != NULL &&
        (json_add_string(json, "after", after) || json_add_number(json, "limit", limit)))
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for a request to the guest");
    int result =
        vsock_file_send(conn, json, err) || take_page(conn, id, limit, lister, ret_next, err) ? -1
                                                                                              : 0;
    return vsock_file_ended(conn, result, err);
}
