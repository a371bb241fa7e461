/* A directory as a tar archive. Every name is opened beneath the directory it was read from, and no
 * link is followed, so what is packed lies where it seems to. */
#include "guest/internal.h"
#include "guest/tar.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 15 * 4096 }; /* of a frame */

struct pack {
    struct guest_conn *conn;
    struct guest_refusal why; /* code NULL: the session is over */
    dev_t dev;
    struct guest_tar_member member; /* the one that is being packed; its name grows and shrinks */
    size_t len;                     /* of `bytes` that wait */
    uint8_t bytes[CHUNK];
};

static int flush(struct pack *pack)
{
    int result = pack->len > 0
                     ? guest_conn_queue(pack->conn, WIRE_STDOUT, pack->bytes, pack->len) ||
                           guest_conn_send_all(pack->conn)
                     : 0;
    pack->len = 0;
    return result ? -1 : 0;
}

/* Room for at least one byte. 0: the session is over. */
static size_t room(struct pack *pack)
{
    if (pack->len == CHUNK && flush(pack))
        return 0;
    return CHUNK - pack->len;
}

static int put(struct pack *pack, const uint8_t *data, size_t len)
{
    while (len > 0) {
        size_t there = room(pack), part = len < there ? len : there;
        if (part == 0)
            return -1;
        if (data) { /* NULL: zeros */
            memcpy(pack->bytes + pack->len, data, part);
            data += part;
        } else {
            memset(pack->bytes + pack->len, 0, part);
        }
        pack->len += part;
        len -= part;
    }
    return 0;
}

static int refuse(struct pack *pack, const char *why)
{
    return guest_deny_name(&pack->why, "cannot_access", pack->member.name, why);
}

static int put_member(struct pack *pack, const struct stat *st, enum guest_tar_type type)
{
    uint8_t headers[GUEST_TAR_HEADERS_MAX];
    struct guest_tar_member *member = &pack->member;
    member->type = (char)type;
    member->mode = st->st_mode & GUEST_MODE_MAX;
    member->uid = st->st_uid;
    member->gid = st->st_gid;
    member->size = type == GUEST_TAR_FILE ? st->st_size : 0;
    member->mtime_s = st->st_mtim.tv_sec;
    return put(pack, headers, guest_tar_headers(member, headers));
}

/* As many bytes as the header says: what it has grown by since is left out. */
static int put_content(struct pack *pack, int fd, int64_t size)
{
    int64_t left = size;
    while (left > 0) {
        size_t there = room(pack);
        if (there == 0)
            return -1;
        ssize_t got =
            read(fd, pack->bytes + pack->len, left < (int64_t)there ? (size_t)left : there);
        if (got <= 0)
            return refuse(pack, got < 0 ? strerror(errno) : "it became shorter");
        pack->len += (size_t)got;
        left -= got;
    }
    return put(pack, NULL, guest_tar_padding(size));
}

static int pack_file(struct pack *pack, int dir, const char *name)
{
    struct stat st;
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) /* it went, or is something else now */
        return errno == ENOENT || errno == ELOOP ? 0 : refuse(pack, strerror(errno));
    int result = 0;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        result = put_member(pack, &st, GUEST_TAR_FILE) || put_content(pack, fd, st.st_size);
    close(fd);
    return result ? -1 : 0;
}

static int pack_link(struct pack *pack, int dir, const char *name, const struct stat *st)
{
    char *target = pack->member.target;
    ssize_t len = readlinkat(dir, name, target, sizeof pack->member.target - 1);
    int result = 0;
    if (len >= 0) {
        target[len] = '\0';
        result = put_member(pack, st, GUEST_TAR_SYMLINK);
    }
    target[0] = '\0';
    return result;
}

static int pack_all(struct pack *pack, DIR *list, size_t len, int depth);

static int pack_directory(struct pack *pack, int dir, const char *name, const struct stat *st,
                          int depth)
{
    char *path = pack->member.name;
    size_t len = strlen(path);
    if (depth == 0 || len + 1 >= sizeof pack->member.name)
        return refuse(pack, "directories lie too deep");
    memcpy(path + len, "/", 2);
    if (put_member(pack, st, GUEST_TAR_DIRECTORY))
        return -1;
    DIR *list = guest_tree_open(dir, name, pack->dev);
    if (!list) /* it went, or another file system is mounted there */
        return errno == ENOENT || errno == EXDEV || errno == ELOOP || errno == ENOTDIR
                   ? 0
                   : refuse(pack, strerror(errno));
    int result = pack_all(pack, list, len + 1, depth - 1);
    closedir(list);
    return result;
}

static int pack_entry(struct pack *pack, int dir, const char *name, int depth)
{
    struct stat st;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return errno == ENOENT ? 0 : refuse(pack, strerror(errno));
    if (S_ISREG(st.st_mode))
        return pack_file(pack, dir, name);
    if (S_ISDIR(st.st_mode))
        return pack_directory(pack, dir, name, &st, depth);
    return S_ISLNK(st.st_mode) ? pack_link(pack, dir, name, &st) : 0;
}

/* `len`: of the name so far, with a slash behind. */
static int pack_all(struct pack *pack, DIR *list, size_t len, int depth)
{
    struct dirent *entry;
    while ((errno = 0, entry = readdir(list))) {
        const char *name = entry->d_name;
        size_t more = strlen(name) + 1;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        pack->member.name[len] = '\0';
        if (len + more > sizeof pack->member.name)
            return refuse(pack, "a name in it is too long");
        memcpy(pack->member.name + len, name, more);
        if (pack_entry(pack, dirfd(list), name, depth))
            return -1;
    }
    pack->member.name[len] = '\0';
    return errno ? refuse(pack, strerror(errno)) : 0;
}

static int send_archive(struct guest_session *session, uint64_t id, DIR *list, dev_t dev)
{
    static struct pack pack;
    pack.conn = session->conn;
    pack.why.code = NULL;
    pack.dev = dev;
    pack.len = 0;
    pack.member.name[0] = '\0';
    bool whole = pack_all(&pack, list, 0, GUEST_DEPTH_MAX) == 0 &&
                 put(&pack, NULL, (size_t)2 * GUEST_TAR_BLOCK) == 0;
    if (!whole && !pack.why.code)
        return -1;
    if (flush(&pack) || guest_conn_queue(session->conn, WIRE_STDOUT, NULL, 0))
        return -1;
    if (!whole)
        return guest_refuse(session, id, pack.why.code, pack.why.message);
    return guest_conn_send_json(session->conn,
                                json_pack("{s:I,s:b}", "id", (json_int_t)id, "ok", 1));
}

int guest_file_pack(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_file file;
    struct guest_refusal why;
    struct stat st;
    if (guest_file_parse(request, &file, &why))
        return guest_refuse(session, id, why.code, why.message);
    int fd = open(file.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = fd < 0 || fstat(fd, &st) ? NULL : fdopendir(fd);
    int result = -1;
    if (!list) {
        guest_file_refuse(&why, file.path);
        result = guest_refuse(session, id, why.code, why.message);
    } else if (guest_conn_send_json(session->conn,
                                    json_pack("{s:I,s:b}", "id", (json_int_t)id, "ok", 1)) == 0) {
        result = send_archive(session, id, list, st.st_dev);
    }
    if (list)
        closedir(list);
    else if (fd >= 0)
        close(fd);
    return result;
}
