/* Is the uid range the VMs' alone? Nobody in passwd and group, no range of subuid and subgid may
 * lie in it: a VM's uid that is somebody's would own their files. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>

enum { DATABASE_MAX = 4 << 20, RESERVED_MAX = 999 };

struct database {
    const char *path;
    bool ranges; /* name:start:count, else the third field is one id */
};

static bool overlaps(uint64_t a, uint64_t a_count, uint64_t b, uint64_t b_count)
{
    return a < b + b_count && b < a + a_count;
}

static int check_line(const struct database *database, char *line, uint32_t base, uint32_t count,
                      struct error *err)
{
    char *fields[3] = {NULL, NULL, NULL}, *rest = line;
    for (size_t i = 0; i < COUNT_OF(fields); i++)
        fields[i] = strsep(&rest, ":");
    if (fields[2] == NULL)
        return 0;
    uint64_t start = strtoull(fields[database->ranges ? 1 : 2], NULL, 10);
    uint64_t size = database->ranges ? strtoull(fields[2], NULL, 10) : 1;
    if (!overlaps(base, count, start, size))
        return 0;
    return error_set(err, ERR_CONFIG, 0,
                     "the uids for VMs, %u to %llu, overlap with %.40s in %s; choose another "
                     "uid-base",
                     base, (unsigned long long)base + count - 1, fields[0], database->path);
}

static int check_database(const struct database *database, uint32_t base, uint32_t count,
                          struct error *err)
{
    cleanup_free char *text = malloc(DATABASE_MAX);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for %s", database->path);
    if (fs_read_at(AT_FDCWD, database->path, text, DATABASE_MAX) < 0)
        return errno == ENOENT ? 0
                               : error_set(err, ERR_CONFIG, errno, "reading %s", database->path);
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;)
        if (check_line(database, line, base, count, err) < 0)
            return -1;
    return 0;
}

int priv_range_check(uint32_t base, uint32_t count, struct error *err)
{
    static const struct database databases[] = {{"/etc/passwd", false},
                                                {"/etc/group", false},
                                                {"/etc/subuid", true},
                                                {"/etc/subgid", true}};
    if (base <= RESERVED_MAX || count == 0 || (uint64_t)base + count > UINT32_MAX - 1)
        return error_set(err, ERR_CONFIG, 0,
                         "uid-base %u with uid-count %u is no range of uids above %d", base, count,
                         RESERVED_MAX);
    for (size_t i = 0; i < COUNT_OF(databases); i++)
        if (check_database(&databases[i], base, count, err) < 0)
            return -1;
    return 0;
}
