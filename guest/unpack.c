/*
 * A tar archive into a directory, and never out of it: a name is walked part by part from the directory
 * that was opened for it, no part may be `..` or a link, and what an archive makes a link is not
 * followed by what comes after it. Where the directory is not there it is filled beside its name,
 * which it gets when the archive has come whole; else each member has its name when it is whole.
 */
#include "guest/internal.h"
#include "guest/tar.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { DEPTH_MAX = GUEST_DEPTH_MAX - 8 }; /* what was made here can be removed again */

struct unpack {
    struct guest_conn *conn;
    const uint8_t *data; /* of the last frame, what is left of it */
    size_t len;
    bool ended; /* the host said that this was all */
    int root;   /* the directory that is filled */
    json_int_t entries, size;
    struct guest_refusal why; /* code NULL: the session is over */
    struct guest_tar_member member;
};

/* ---- what comes ---- */

static ssize_t read_frames(void *context, void *out, size_t size)
{
    struct unpack *unpack = context;
    struct guest_frame frame;
    if (unpack->len == 0 && !unpack->ended) {
        if (guest_file_frame(unpack->conn, &frame) || frame.kind != WIRE_STDIN)
            return -1;
        unpack->data = frame.data;
        unpack->len = frame.len;
        unpack->ended = frame.len == 0;
    }
    size_t len = size < unpack->len ? size : unpack->len;
    if (len > 0)
        memcpy(out, unpack->data, len);
    unpack->data += len;
    unpack->len -= len;
    return (ssize_t)len;
}

/* Behind an archive's end may stand anything. */
static int read_rest(struct unpack *unpack)
{
    char bytes[4096];
    ssize_t got;
    while ((got = read_frames(unpack, bytes, sizeof bytes)) > 0)
        continue;
    return got < 0 ? -1 : 0;
}

/* ---- where it goes ---- */

static int refuse(struct unpack *unpack, const char *why)
{
    return guest_deny_name(&unpack->why, "bad_archive", unpack->member.name, why);
}

static int refuse_call(struct unpack *unpack)
{
    struct guest_refusal by_errno;
    int sys = errno;
    guest_file_refuse(&by_errno, "");
    bool full =
        strcmp(by_errno.code, "no_space") == 0; /* else the archive asks for what cannot be */
    return guest_deny_name(&unpack->why, full ? by_errno.code : "bad_archive", unpack->member.name,
                           strerror(sys));
}

/* Opens a directory in `dir`, made if it is not there. The descriptor, or -1 and errno. */
static int step(int dir, const char *name, bool make)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int fd = openat(dir, name, flags);
    if (fd < 0 && errno == ENOENT && make && (mkdirat(dir, name, 0755) == 0 || errno == EEXIST))
        fd = openat(dir, name, flags);
    return fd;
}

/* The same for a part of a name: closes `dir`. -1: refused. */
static int step_into(struct unpack *unpack, int dir, const char *name, bool make)
{
    int into = step(dir, name, make);
    if (into < 0 && (errno == ELOOP || errno == ENOTDIR))
        refuse(unpack, "it would go through a link, or what is no directory");
    else if (into < 0)
        refuse_call(unpack);
    close(dir);
    return into;
}

/* The next part of a name that is neither empty nor `.`; with a length of 0 there is none. */
static const char *next_part(const char *path, size_t *ret_len)
{
    for (;; path += *ret_len) {
        path += strspn(path, "/");
        *ret_len = strcspn(path, "/");
        if (*ret_len != 1 || path[0] != '.')
            return path;
    }
}

/* What is wrong with a name by itself; NULL: nothing. */
static const char *fault_of(const char *path)
{
    size_t len;
    int depth = 0;
    if (path[0] == '/' || path[0] == '\0')
        return path[0] ? "its name is absolute" : "it has no name";
    for (path = next_part(path, &len); len > 0; path = next_part(path + len, &len))
        if (len > NAME_MAX || (len == 2 && memcmp(path, "..", 2) == 0) || ++depth > DEPTH_MAX)
            return "its name has `..`, is too long or too deep";
    return NULL;
}

/* The directory that `path` lies in, which is to be closed, and its last part in `name`, which is ""
 * for the directory that is filled itself. -1: refused. */
static int walk(struct unpack *unpack, const char *path, bool make, char name[static NAME_MAX + 1])
{
    size_t len;
    const char *fault = fault_of(path);
    if (fault)
        return refuse(unpack, fault);
    int dir = fcntl(unpack->root, F_DUPFD_CLOEXEC, 0);
    if (dir < 0)
        return refuse_call(unpack);
    name[0] = '\0';
    for (path = next_part(path, &len); dir >= 0 && len > 0; path = next_part(path + len, &len)) {
        if (name[0])
            dir = step_into(unpack, dir, name, make);
        snprintf(name, NAME_MAX + 1, "%.*s", (int)len, path);
    }
    return dir;
}

/* ---- members ---- */

static int make_file(struct unpack *unpack, struct guest_tar_reader *reader, int dir,
                     const char *name)
{
    uint8_t bytes[16 * 1024];
    struct guest_temp temp;
    const struct timespec times[] = {{.tv_nsec = UTIME_OMIT},
                                     {.tv_sec = (time_t)unpack->member.mtime_s}};
    ssize_t got = 0;
    int result = guest_temp_open(dir, &temp);
    while (result == 0 && (got = guest_tar_content(reader, bytes, sizeof bytes)) > 0) {
        result = guest_temp_write(&temp, bytes, (size_t)got);
        unpack->size += got;
    }
    if (result == 0 && got == 0)
        result = futimens(temp.fd, times) || guest_temp_keep(&temp, name, unpack->member.mode);
    if (result)
        refuse_call(unpack);
    guest_temp_drop(&temp);
    return result || got < 0 ? -1 : 0;
}

static int make_directory(struct unpack *unpack, int dir, const char *name)
{
    char probe[GUEST_TEMP_SIZE]; /* for its look at the memory: a directory takes some too */
    int fd = guest_temp_name(probe) ? -1 : step(dir, name, true);
    if (fd < 0 && (errno == ELOOP || errno == ENOTDIR))
        return refuse(unpack, "what has its name is no directory");
    int result = fd < 0 || fchmod(fd, unpack->member.mode) ? refuse_call(unpack) : 0;
    if (fd >= 0)
        close(fd);
    return result;
}

/* A link of either kind, made under a name of ours, in the place of what has its name. */
static int make_link(struct unpack *unpack, int dir, const char *name)
{
    char temp[GUEST_TEMP_SIZE], last[NAME_MAX + 1];
    struct stat st;
    int from = -1, result = guest_temp_name(temp);
    if (result) {
        refuse_call(unpack);
    } else if (unpack->member.type == GUEST_TAR_SYMLINK) {
        result = symlinkat(unpack->member.target, dir, temp);
    } else if ((from = walk(unpack, unpack->member.target, false, last)) < 0) {
        return -1;
    } else if (fstatat(from, last, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode)) {
        result = refuse(unpack, "it links to what is no file of the directory");
    } else {
        result = linkat(from, last, dir, temp, 0);
    }
    if (from >= 0)
        close(from);
    if (result == 0)
        result = renameat(dir, temp, dir, name);
    if (result && !unpack->why.code)
        refuse_call(unpack);
    unlinkat(dir, temp, 0); /* also where both were the same file already */
    return result;
}

static int make_member(struct unpack *unpack, struct guest_tar_reader *reader)
{
    char name[NAME_MAX + 1];
    int dir = walk(unpack, unpack->member.name, true, name);
    if (dir < 0)
        return -1;
    int result;
    if (name[0] == '\0' && unpack->member.type == GUEST_TAR_DIRECTORY)
        result = 0; /* ./ */
    else if (name[0] == '\0')
        result = refuse(unpack, "it has the name of the directory itself");
    else if (unpack->member.type == GUEST_TAR_FILE)
        result = make_file(unpack, reader, dir, name);
    else if (unpack->member.type == GUEST_TAR_DIRECTORY)
        result = make_directory(unpack, dir, name);
    else if (unpack->member.type == GUEST_TAR_LINK || unpack->member.type == GUEST_TAR_SYMLINK)
        result = make_link(unpack, dir, name);
    else
        result = refuse(unpack, "it is neither a file nor a directory nor a link");
    close(dir);
    unpack->entries++;
    return result;
}

/* 0: all is there. -1: refused, or the session is over. */
static int make_all(struct unpack *unpack)
{
    struct guest_tar_reader reader = {.read = read_frames, .context = unpack};
    int got;
    while ((got = guest_tar_next(&reader, &unpack->member)) > 0)
        if (make_member(unpack, &reader))
            break;
    if (got >= 0 && !reader.wrong)
        return got == 0 ? read_rest(unpack) : -1;
    if (reader.wrong)
        guest_deny_name(&unpack->why, "bad_archive", unpack->member.name, reader.wrong);
    return -1;
}

/* ---- the directory ---- */

/* Filled under a name of ours, then named; removed if it does not come to that. */
static int fill_new(struct unpack *unpack, const struct guest_file *file)
{
    char dir_path[PATH_MAX], temp[GUEST_TEMP_SIZE];
    const char *name;
    if (guest_file_split(file->path, dir_path, &name, &unpack->why))
        return -1;
    if (file->parents && guest_file_make_parents(dir_path))
        return guest_file_refuse(&unpack->why, dir_path);
    int dir = open(dir_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return guest_file_refuse(&unpack->why, dir_path);
    if (guest_temp_name(temp) || mkdirat(dir, temp, 0755)) {
        guest_file_refuse(&unpack->why, file->path);
        close(dir);
        return -1;
    }
    unpack->root = openat(dir, temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int result = unpack->root < 0 ? guest_file_refuse(&unpack->why, file->path) : make_all(unpack);
    if (result == 0 && renameat2(dir, temp, dir, name, RENAME_NOREPLACE))
        result = guest_file_refuse(&unpack->why, file->path);
    if (result)
        guest_tree_remove(dir, temp);
    close(dir);
    return result;
}

int guest_file_unpack(struct guest_session *session, uint64_t id, json_t *request)
{
    static struct unpack unpack;
    struct guest_file file;
    unpack = (struct unpack){.conn = session->conn, .root = -1};
    int result = guest_file_parse(request, &file, &unpack.why);
    bool created = false;
    if (result == 0) {
        unpack.root = open(file.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        created = unpack.root < 0 && errno == ENOENT;
        if (unpack.root < 0 && !created)
            result = guest_file_refuse(&unpack.why, file.path);
        else
            result = created ? fill_new(&unpack, &file) : make_all(&unpack);
    }
    if (unpack.root >= 0)
        close(unpack.root);
    if (result && !unpack.why.code)
        return -1;
    if (result) /* what still comes of it, the session takes and forgets */
        return guest_refuse(session, id, unpack.why.code, unpack.why.message);
    return guest_conn_send_json(
        session->conn, json_pack("{s:I,s:b,s:I,s:I,s:b}", "id", (json_int_t)id, "ok", 1, "entries",
                                 unpack.entries, "size", unpack.size, "created", created));
}
