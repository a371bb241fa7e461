#include "file.h"
#include "session.h"

enum {
    FROM = 32 << 20, /* guest.ld holds the guest below */
    BLOCK = 65536,
    MEMMAP_OFFSET = 40, /* of struct hvm_start_info, in bytes, as the next */
    MEMMAP_ENTRIES_OFFSET = 48,
    MAPPED_MAX_GIB = 2, /* by start.S */
    MODE_DEFAULT = 0644,
};

struct file_block {
    struct file_block *next;
    uint8_t data[BLOCK - sizeof(struct file_block *)];
};
enum { ROOM = sizeof((struct file_block *)0)->data };

struct memory_range { /* struct hvm_memmap_table_entry */
    uint64_t from, size;
    uint32_t type, reserved;
};

void file_start(struct files *files, const uint32_t *start_info)
{
    uint64_t most = (uint64_t)MAPPED_MAX_GIB << 30, at;
    uint32_t count;
    memcpy(&at, (const uint8_t *)start_info + MEMMAP_OFFSET, sizeof(at));
    memcpy(&count, (const uint8_t *)start_info + MEMMAP_ENTRIES_OFFSET, sizeof(count));
    const struct memory_range *ranges = (const struct memory_range *)(uintptr_t)at;
    files->next = files->end = FROM;
    for (uint32_t i = 0; i < count; i++) {
        uint64_t end = ranges[i].from + ranges[i].size;
        if (ranges[i].type == 1 && ranges[i].from < FROM && end > FROM) {
            files->end = end < most ? end : most;
        }
    }
}

/* ---- blocks and files ---- */

static struct file_block *take_block(struct files *files)
{
    struct file_block *block = files->free;
    if (block) {
        files->free = block->next;
    } else if (files->end - files->next >= BLOCK) {
        block = (struct file_block *)(uintptr_t)files->next;
        files->next += BLOCK;
    }
    if (block) {
        block->next = NULL;
    }
    return block;
}

static void unref(struct files *files, struct file *file)
{
    if (--file->refs == 0 && file->first) {
        file->last->next = files->free;
        files->free = file->first;
        file->first = file->last = NULL;
    }
}

static struct file *find(struct files *files, const char *path)
{
    for (unsigned i = 0; i < FILES; i++) {
        if (files->files[i].named && guest_equal(files->files[i].path, path)) {
            return &files->files[i];
        }
    }
    return NULL;
}

static void forget(struct files *files, const char *path)
{
    struct file *file = find(files, path);
    if (file) {
        file->named = false;
        unref(files, file);
    }
}

void file_abandon(struct files *files, struct file_transfer *transfer)
{
    if (transfer->file) {
        unref(files, transfer->file);
    }
    *transfer = (struct file_transfer){0};
}

/* ---- requests ---- */

static char *put_ok(struct guest *guest, uint64_t id)
{
    char *at = guest_put_number(guest_put_text(guest->text, "{\"id\":"), id);
    return guest_put_text(at, ",\"ok\":true");
}

static void send_text(struct guest *guest, struct vsock_conn *conn, char *at)
{
    at = guest_put_text(at, "}");
    session_send(conn, WIRE_CONTROL, guest->text, (size_t)(at - guest->text));
}

static const char *put(struct files *files, struct file_transfer *transfer,
                       const struct message *message, const char **ret_words)
{
    struct file *file = files->files;
    while (file < files->files + FILES && file->refs) {
        file++;
    }
    if (file == files->files + FILES) {
        *ret_words = "The guest has too many files.";
        return "no_space";
    }
    *file = (struct file){.refs = 1, .mode = message->has_mode ? message->mode : MODE_DEFAULT};
    memcpy(file->path, message->path, sizeof(file->path));
    *transfer = (struct file_transfer){.file = file, .id = message->id, .writing = true};
    return NULL;
}

static void get(struct guest *guest, struct vsock_conn *conn, struct file_transfer *transfer,
                struct file *file, uint64_t id)
{
    file->refs++;
    *transfer = (struct file_transfer){.file = file, .id = id, .at = file->first};
    char *at = guest_put_number(guest_put_text(put_ok(guest, id), ",\"size\":"), file->size);
    at = guest_put_number(guest_put_text(at, ",\"mode\":"), file->mode);
    send_text(guest, conn, guest_put_text(at, ",\"mtime_ms\":0"));
}

/* ---- lists ---- */

/* Its name in hexadecimal digits, if it lies in `dir` itself. */
static bool name_in(const struct file *file, const char *dir, char *hex)
{
    size_t len = 0;
    while (dir[len] && file->path[len] == dir[len]) {
        len++;
    }
    if (!file->named || dir[len] || (len > 1 && file->path[len++] != '/')) {
        return false;
    }
    const char *name = file->path + len;
    for (len = 0; name[len]; len++) {
        if (name[len] == '/') {
            return false;
        }
    }
    *guest_put_hex(hex, (const uint8_t *)name, len) = '\0';
    return len > 0;
}

static bool before(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    return *a < *b; /* digits and letters below 128 */
}

/* The least name after `after`. */
static const struct file *next_in(const struct files *files, const char *dir, const char *after,
                                  char *least)
{
    const struct file *found = NULL;
    char hex[2 * FILE_PATH_SIZE];
    for (unsigned i = 0; i < FILES; i++) {
        if (name_in(&files->files[i], dir, hex) && before(after, hex) &&
            (!found || before(hex, least))) {
            found = &files->files[i];
            guest_put_text(least, hex);
        }
    }
    return found;
}

/* There are no directories, so every one is there, and most are empty. */
static void list(struct guest *guest, struct vsock_conn *conn, const struct message *message)
{
    char after[2 * FILE_PATH_SIZE], next[2 * FILE_PATH_SIZE];
    const struct file *file = NULL;
    guest_put_text(after, message->after);
    for (uint64_t count = 0; (file = next_in(&guest->files, message->path, after, next)) &&
                             count < message->limit && vsock_room(conn) >= 2 * SESSION_RESERVE;
         count++) {
        char *at = guest_put_text(guest_put_text(guest->text, "{\"name\":\""), next);
        at = guest_put_number(guest_put_text(at, "\",\"type\":\"file\",\"size\":"), file->size);
        at = guest_put_number(guest_put_text(at, ",\"mode\":"), file->mode);
        send_text(guest, conn, guest_put_text(at, ",\"mtime_ms\":0"));
        guest_put_text(after, next);
    }
    char *at = put_ok(guest, message->id);
    if (file) {
        at = guest_put_text(guest_put_text(guest_put_text(at, ",\"next\":\""), after), "\"");
    }
    send_text(guest, conn, at);
}

/* ---- which ---- */

const char *file_request(struct guest *guest, struct vsock_conn *conn,
                         struct file_transfer *transfer, const struct message *message,
                         const char **ret_words)
{
    struct files *files = &guest->files;
    if (message->path[0] != '/') {
        *ret_words = "path must be absolute.";
        return "bad_request";
    }
    if (guest_equal(message->op, "put")) {
        return put(files, transfer, message, ret_words);
    }
    if (guest_equal(message->op, "list")) {
        list(guest, conn, message);
        return NULL;
    }
    if (guest_equal(message->op, "unpack")) {
        *ret_words = "The guest has no directories.";
        return "cannot_access";
    }
    struct file *file = guest_equal(message->op, "pack") ? NULL : find(files, message->path);
    if (!file) {
        *ret_words = "There is no such file.";
        return "no_file";
    }
    if (guest_equal(message->op, "get")) {
        get(guest, conn, transfer, file, message->id);
        return NULL;
    }
    forget(files, message->path);
    send_text(guest, conn, put_ok(guest, message->id));
    return NULL;
}

/* ---- bytes ---- */

static bool append(struct files *files, struct file *file, const uint8_t *data, size_t len)
{
    while (len) {
        uint64_t used = file->size % ROOM;
        if (used == 0) {
            struct file_block *block = take_block(files);
            if (!block) {
                return false;
            }
            *(file->first ? &file->last->next : &file->first) = block;
            file->last = block;
        }
        size_t part = len < ROOM - used ? len : ROOM - used;
        memcpy(file->last->data + used, data, part);
        file->size += part;
        data += part;
        len -= part;
    }
    return true;
}

const char *file_input(struct guest *guest, struct vsock_conn *conn, struct file_transfer *transfer,
                       const uint8_t *data, size_t len, const char **ret_words)
{
    struct files *files = &guest->files;
    struct file *file = transfer->file;
    if (!file || !transfer->writing) { /* of one that was refused */
        return NULL;
    }
    if (!append(files, file, data, len)) {
        file_abandon(files, transfer);
        *ret_words = "The guest's memory is full.";
        return "no_space";
    }
    if (len == 0) {
        forget(files, file->path);
        file->named = true;
        file->refs++;
        char *at = guest_put_text(put_ok(guest, transfer->id), ",\"size\":");
        send_text(guest, conn, guest_put_number(at, file->size));
        file_abandon(files, transfer);
    }
    return NULL;
}

bool file_send(struct file_transfer *transfer, const struct message *message)
{
    const struct file *file = transfer->file;
    if (!file || transfer->writing || transfer->sending || message->offset > file->size ||
        message->length > file->size - message->offset) {
        return false;
    }
    for (uint64_t skip = message->offset / ROOM; skip && transfer->at; skip--) {
        transfer->at = transfer->at->next;
    }
    transfer->offset = message->offset % ROOM;
    transfer->left = message->length;
    transfer->sending = true;
    return true;
}

bool file_step(struct guest *guest, struct vsock_conn *conn, struct file_transfer *transfer)
{
    bool any = false;
    while (transfer->sending && vsock_room(conn) >= BLOCK + SESSION_RESERVE) {
        uint64_t there = ROOM - transfer->offset;
        uint64_t len = transfer->left < there ? transfer->left : there;
        session_send(conn, WIRE_STDOUT, len ? transfer->at->data + transfer->offset : NULL, len);
        any = true;
        if (len == 0) {
            file_abandon(&guest->files, transfer);
            return true;
        }
        transfer->left -= len;
        transfer->at = transfer->at->next;
        transfer->offset = 0;
    }
    return any;
}
