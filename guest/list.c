/* What is in a directory, page by page in the order of the names' bytes. A page is the least names
 * after the last one of the page before, so nothing is kept in between and a directory of any size
 * costs the memory of a page. */
#include "guest/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BYTES_MAX = 128 * 1024 }; /* of names and targets in a page; the host takes twice as many */

struct name {
    char text[NAME_MAX + 1];
};

struct page {
    struct name *names; /* owned; twice what is wanted */
    size_t count, wanted;
};

static int compare(const void *left, const void *right)
{
    return strcmp(((const struct name *)left)->text, ((const struct name *)right)->text);
}

/* Only the least names stay. */
static void settle(struct page *page)
{
    qsort(page->names, page->count, sizeof *page->names, compare);
    if (page->count > page->wanted)
        page->count = page->wanted;
}

static int collect(DIR *dir, const char *after, struct page *page)
{
    struct dirent *entry;
    while ((errno = 0, entry = readdir(dir))) {
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, after) <= 0)
            continue;
        if (page->count == 2 * page->wanted)
            settle(page);
        strcpy(page->names[page->count++].text, name);
    }
    settle(page);
    return errno ? -1 : 0;
}

/* JSON takes no bytes that are not UTF-8, and a name may have any: so all go as hexadecimal digits. */
static json_t *hex(const char *bytes, size_t len)
{
    static const char DIGITS[] = "0123456789abcdef";
    char text[2 * PATH_MAX];
    for (size_t i = 0; i < len; i++) {
        text[2 * i] = DIGITS[(unsigned char)bytes[i] >> 4];
        text[2 * i + 1] = DIGITS[(unsigned char)bytes[i] & 15];
    }
    return json_stringn(text, 2 * len);
}

static const char *type_name(mode_t mode)
{
    static const struct {
        mode_t type;
        const char *name;
    } TYPES[] = {{S_IFREG, "file"},   {S_IFDIR, "directory"},   {S_IFLNK, "symlink"},
                 {S_IFIFO, "fifo"},   {S_IFCHR, "char_device"}, {S_IFBLK, "block_device"},
                 {S_IFSOCK, "socket"}};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++)
        if ((mode & S_IFMT) == TYPES[i].type)
            return TYPES[i].name;
    return "file";
}

/* One that has gone meanwhile is left out. How many bytes it took; -1: the session is over. */
static ssize_t send_entry(struct guest_conn *conn, int dir, const char *name)
{
    struct stat st;
    char target[PATH_MAX];
    ssize_t len = -1;
    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW))
        return 0;
    json_t *entry =
        json_pack("{s:o,s:s,s:I,s:I,s:I}", "name", hex(name, strlen(name)), "type",
                  type_name(st.st_mode), "size", (json_int_t)st.st_size, "mode",
                  (json_int_t)(st.st_mode & GUEST_MODE_MAX), "mtime_ms", guest_file_mtime_ms(&st));
    if (S_ISLNK(st.st_mode))
        len = readlinkat(dir, name, target, sizeof target - 1);
    if (entry && len >= 0)
        json_object_set_new(entry, "target", hex(target, (size_t)len));
    if (guest_conn_send_json(conn, entry))
        return -1;
    return (ssize_t)strlen(name) + (len > 0 ? len : 0);
}

static int send_page(struct guest_session *session, uint64_t id, int dir, const struct page *page,
                     size_t limit)
{
    ssize_t bytes = 0;
    size_t at = 0;
    while (at < page->count && at < limit && bytes < BYTES_MAX) {
        ssize_t sent = send_entry(session->conn, dir, page->names[at++].text);
        if (sent < 0)
            return -1;
        bytes += sent;
    }
    json_t *answer = json_pack("{s:I,s:b}", "id", (json_int_t)id, "ok", 1);
    const char *last = at > 0 && at < page->count ? page->names[at - 1].text : NULL;
    if (answer && last)
        json_object_set_new(answer, "next", hex(last, strlen(last)));
    return guest_conn_send_json(session->conn, answer);
}

static int serve(struct guest_session *session, uint64_t id, const struct guest_file *file)
{
    struct guest_refusal why;
    struct page page = {.wanted = file->limit + 1}; /* one more tells that there is more */
    int fd = open(file->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    int result = -1;
    page.names = dir ? calloc(2 * page.wanted, sizeof *page.names) : NULL;
    if (!page.names || collect(dir, file->after, &page)) {
        guest_file_refuse(&why, file->path);
        result = guest_refuse(session, id, why.code, why.message);
    } else {
        result = send_page(session, id, fd, &page, file->limit);
    }
    free(page.names);
    if (dir)
        closedir(dir);
    else if (fd >= 0)
        close(fd);
    return result;
}

int guest_file_list(struct guest_session *session, uint64_t id, json_t *request)
{
    struct guest_file file;
    struct guest_refusal why;
    if (guest_file_parse(request, &file, &why))
        return guest_refuse(session, id, why.code, why.message);
    return serve(session, id, &file);
}
