/* Files of the image, written, read and removed for the host. A file that is written gets its name
 * when it is whole; until then it lies beside it under a name of ours. */
#include "guest/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ABSENT_MAX_MS = 1000,   /* serial ports: then the host is taken for gone */
    READ_CHUNK = 15 * 4096, /* whole pages that fit a frame */
    LIMIT_MAX = 500,
};

/* ---- requests ---- */

/* How many bytes of a path to show: JSON takes no part of a character. */
static int shown(const char *path)
{
    size_t len = strnlen(path, 100);
    while (len > 0 && ((unsigned char)path[len] & 0xc0) == 0x80)
        len--;
    return (int)len;
}

int guest_file_refuse(struct guest_refusal *why, const char *path)
{
    int sys = errno;
    const char *code = "cannot_access";
    if (sys == ENOENT || sys == ENOTDIR)
        code = "no_file";
    else if (sys == ENOSPC || sys == EDQUOT || sys == EFBIG || sys == ENOMEM)
        code = "no_space";
    return guest_deny(why, code, "%.*s: %s", shown(path), path, strerror(sys));
}

int guest_file_parse(json_t *request, struct guest_file *ret, struct guest_refusal *why)
{
    struct guest_file file = {.mode = 0644};
    const char *op = "", *after = "";
    json_int_t id, mode = file.mode, limit = LIMIT_MAX;
    json_error_t error;
    int parents = 0, recursive = 0;
    if (json_unpack_ex(request, &error, JSON_STRICT, "{s:I,s:s,s:s,s?I,s?b,s?b,s?s,s?I}", "id", &id,
                       "op", &op, "path", &file.path, "mode", &mode, "parents", &parents,
                       "recursive", &recursive, "after", &after, "limit", &limit))
        return guest_deny(why, "bad_request", "%.120s", error.text);
    if (file.path[0] != '/' || strlen(file.path) >= PATH_MAX)
        return guest_deny(why, "bad_request", "path must be absolute, of less than %d bytes",
                          PATH_MAX);
    if (mode < 0 || mode > GUEST_MODE_MAX)
        return guest_deny(why, "bad_request", "mode must be a whole number from 0 to %d",
                          GUEST_MODE_MAX);
    if (limit < 1 || limit > LIMIT_MAX)
        return guest_deny(why, "bad_request", "limit must be a whole number from 1 to %d",
                          LIMIT_MAX);
    size_t len = strlen(after) / 2;
    if (len >= sizeof file.after ||
        guest_hex_parse(after, strlen(after), (uint8_t *)file.after, len))
        return guest_deny(why, "bad_request", "after must be a name in hexadecimal digits");
    file.mode = (uint32_t)mode;
    file.limit = (size_t)limit;
    file.parents = parents;
    file.recursive = recursive;
    *ret = file;
    return 0;
}

json_int_t guest_file_mtime_ms(const struct stat *st)
{
    const int64_t max_s = INT64_C(1) << 42; /* times 1000 it is still a number that JSON has */
    int64_t s = st->st_mtim.tv_sec < -max_s ? -max_s : st->st_mtim.tv_sec;
    return (json_int_t)(s > max_s ? max_s : s) * 1000 + st->st_mtim.tv_nsec / 1000000;
}

int guest_file_frame(struct guest_conn *conn, struct guest_frame *ret)
{
    for (;;) {
        int got = guest_conn_next(conn, ret);
        if (got != 0)
            return got < 0 ? -1 : 0;
        struct pollfd fds[1];
        guest_conn_poll(conn, fds, 1, -1);
        if (guest_conn_absent_ms(conn) > ABSENT_MAX_MS)
            conn->ended = true;
    }
}

/* ---- put ---- */

int guest_file_split(const char *path, char dir[static PATH_MAX], const char **ret_name,
                     struct guest_refusal *why)
{
    const char *slash = strrchr(path, '/');
    size_t len = (size_t)(slash - path);
    if (slash[1] == '\0' || strcmp(slash, "/.") == 0 || strcmp(slash, "/..") == 0)
        return guest_deny(why, "not_a_file", "path must end in the name of a file");
    memcpy(dir, path, len);
    memcpy(dir + len, len == 0 ? "/" : "", len == 0 ? 2 : 1);
    *ret_name = slash + 1;
    return 0;
}

int guest_file_make_parents(char *dir)
{
    for (char *at = dir + 1;; at++) {
        char end = *at;
        if (end != '/' && end != '\0')
            continue;
        *at = '\0';
        if (mkdir(dir, 0755) && errno != EEXIST)
            return -1;
        *at = end;
        if (end == '\0')
            return 0;
    }
}

/* *ret_dir: open from here on, or -1. */
static int begin(const struct guest_file *file, int *ret_dir, const char **ret_name,
                 struct guest_temp *ret, struct guest_refusal *why)
{
    char dir[PATH_MAX];
    struct stat st;
    if (guest_file_split(file->path, dir, ret_name, why))
        return -1;
    if (file->parents && guest_file_make_parents(dir))
        return guest_file_refuse(why, dir);
    *ret_dir = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir < 0)
        return guest_file_refuse(why, dir);
    if (fstatat(*ret_dir, *ret_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode) &&
        !S_ISLNK(st.st_mode))
        return guest_deny(why, "not_a_file", "%.*s is there, and not a file", shown(file->path),
                          file->path);
    return guest_temp_open(*ret_dir, ret) ? guest_file_refuse(why, file->path) : 0;
}

/* How many bytes came. -1: refused. -2: the session is over. */
static json_int_t receive(struct guest_temp *temp, struct guest_conn *conn,
                          const struct guest_file *file, struct guest_refusal *why)
{
    struct guest_frame frame;
    for (json_int_t size = 0;; size += (json_int_t)frame.len) {
        if (guest_file_frame(conn, &frame) || frame.kind != WIRE_STDIN)
            return -2;
        if (frame.len == 0)
            return size;
        if (guest_temp_write(temp, frame.data, frame.len))
            return guest_file_refuse(why, file->path);
    }
}

int guest_file_put(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_file file;
    struct guest_refusal why;
    struct guest_temp temp = {.fd = -1};
    const char *name;
    int dir = -1;
    json_int_t size = -1;
    if (guest_file_parse(request, &file, &why) == 0 && begin(&file, &dir, &name, &temp, &why) == 0)
        size = receive(&temp, session->conn, &file, &why);
    if (size >= 0 && guest_temp_keep(&temp, name, file.mode))
        size = guest_file_refuse(&why, file.path);
    guest_temp_drop(&temp);
    if (dir >= 0)
        close(dir);
    if (size == -2)
        return -1;
    /* What still comes of a file that was refused, the session takes and forgets. */
    if (size < 0)
        return guest_refuse(session, id, why.code, why.message);
    return guest_conn_send_json(
        session->conn, json_pack("{s:I,s:b,s:I}", "id", (json_int_t)id, "ok", 1, "size", size));
}

/* ---- get ---- */

static int open_file(const char *path, struct stat *ret, struct guest_refusal *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* it may be a FIFO */
    if (fd < 0 || fstat(fd, ret)) {
        guest_file_refuse(why, path);
    } else if (!S_ISREG(ret->st_mode)) {
        guest_deny(why, "not_a_file", "%.*s is not a file", shown(path), path);
    } else {
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

/* Which part the host wants, having seen how much there is. */
static int wait_for_send(struct guest_conn *conn, json_int_t *ret_offset, json_int_t *ret_length)
{
    struct guest_frame frame;
    const char *op = "";
    if (guest_file_frame(conn, &frame) || frame.kind != WIRE_CONTROL)
        return -1;
    json_t *message = json_loadb((const char *)frame.data, frame.len, JSON_REJECT_DUPLICATES, NULL);
    int bad = json_unpack_ex(message, NULL, JSON_STRICT, "{s:s,s:I,s:I}", "op", &op, "offset",
                             ret_offset, "length", ret_length) ||
              strcmp(op, "send") != 0 || *ret_offset < 0 || *ret_length < 0;
    json_decref(message);
    return bad ? -1 : 0;
}

/* The end comes early if the file has become shorter or cannot be read: the host counts. */
static int send_part(struct guest_conn *conn, int fd, json_int_t offset, json_int_t length)
{
    static uint8_t bytes[READ_CHUNK];
    for (;;) {
        ssize_t got = pread(fd, bytes, length < READ_CHUNK ? (size_t)length : READ_CHUNK, offset);
        size_t len = got > 0 ? (size_t)got : 0;
        if (guest_conn_queue(conn, WIRE_STDOUT, bytes, len) || guest_conn_send_all(conn))
            return -1;
        if (len == 0)
            return 0;
        offset += (json_int_t)len;
        length -= (json_int_t)len;
    }
}

int guest_file_get(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_file file;
    struct guest_refusal why;
    struct stat st;
    json_int_t offset, length;
    int fd = guest_file_parse(request, &file, &why) ? -1 : open_file(file.path, &st, &why);
    if (fd < 0)
        return guest_refuse(session, id, why.code, why.message);
    json_t *answer = json_pack(
        "{s:I,s:b,s:I,s:I,s:I}", "id", (json_int_t)id, "ok", 1, "size", (json_int_t)st.st_size,
        "mode", (json_int_t)(st.st_mode & GUEST_MODE_MAX), "mtime_ms", guest_file_mtime_ms(&st));
    int result = guest_conn_send_json(session->conn, answer);
    if (result == 0)
        result = wait_for_send(session->conn, &offset, &length);
    if (result == 0)
        result = send_part(session->conn, fd, offset, length);
    close(fd);
    return result;
}

/* ---- remove ---- */

static int remove_tree(const char *path, struct guest_refusal *why)
{
    char dir[PATH_MAX];
    const char *name;
    if (guest_file_split(path, dir, &name, why))
        return -1;
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    int result = fd < 0 || guest_tree_remove(fd, name) ? guest_file_refuse(why, path) : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

int guest_file_remove(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_file file;
    struct guest_refusal why;
    int result = guest_file_parse(request, &file, &why);
    if (result == 0 && file.recursive)
        result = remove_tree(file.path, &why);
    else if (result == 0 && remove(file.path)) /* a file, or a directory that is empty */
        result = guest_file_refuse(&why, file.path);
    if (result)
        return guest_refuse(session, id, why.code, why.message);
    return guest_conn_send_json(session->conn,
                                json_pack("{s:I,s:b}", "id", (json_int_t)id, "ok", 1));
}
