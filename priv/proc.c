/* What the kernel says about a process. Paths are made of a pid, never of anything a peer sent. */
#include "priv/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

bool priv_proc_stat_start(const char *stat, uint64_t *ret)
{
    enum { START_TIME = 22, AFTER_NAME = 3 };
    /* The name may hold anything, a parenthesis too: fields are counted from behind its last. */
    const char *at = strrchr(stat, ')');
    for (int field = AFTER_NAME - 1; at != NULL && field < START_TIME; field++) {
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    if (at == NULL)
        return false;
    *ret = strtoull(at, NULL, 10);
    return true;
}

int priv_proc_start(pid_t pid, uint64_t *ret, struct error *err)
{
    char path[64], text[1024];
    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    if (fs_read_at(AT_FDCWD, path, text, sizeof(text)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading %s", path);
    if (!priv_proc_stat_start(text, ret))
        return error_set(err, ERR_SYSTEM, 0, "%s has too few fields", path);
    return 0;
}

int priv_proc_namespace(pid_t pid, const char *name, uint64_t *ret, struct error *err)
{
    char path[64];
    struct stat st;
    if (pid == 0)
        snprintf(path, sizeof(path), "/proc/self/ns/%s", name);
    else
        snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, name);
    if (stat(path, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "looking at %s", path);
    *ret = st.st_ino;
    return 0;
}

const char *priv_proc_field(const char *status, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = status; line != NULL && *line != '\0';) {
        if (strncmp(line, key, len) == 0 && line[len] == ':')
            return line + len + 1 + strspn(line + len + 1, " \t");
        line = strchr(line, '\n');
        line = line == NULL ? NULL : line + 1;
    }
    return NULL;
}

bool priv_proc_ids_are(const char *status, const char *key, uint32_t id)
{
    const char *at = priv_proc_field(status, key);
    for (int i = 0; i < 4; i++) {
        char *end = NULL;
        if (at == NULL || strtoul(at, &end, 10) != id || end == at)
            return false;
        at = end;
    }
    return true;
}

int priv_proc_own_filters(unsigned *ret, struct error *err)
{
    char status[4096];
    if (fs_read_at(AT_FDCWD, "/proc/self/status", status, sizeof(status)) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading /proc/self/status");
    const char *filters = priv_proc_field(status, "Seccomp_filters");
    if (filters == NULL)
        return error_set(err, ERR_GUARD, 0,
                         "this kernel does not tell Seccomp_filters in /proc/PID/status, so that "
                         "filters cannot be checked: Motte needs Linux 5.12 or newer");
    *ret = (unsigned)strtoul(filters, NULL, 10);
    return 0;
}
