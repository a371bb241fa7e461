/* Where this host's cgroup controllers are, from /proc/self/mountinfo. */
#include "admin/internal.h"

#include <errno.h>

const char *const admin_controllers[ADMIN_HIERARCHIES] = {"memory", "cpu", "pids", "blkio"};

/* "rw,cpu,cpuacct" has "cpu". `separators` end a word. */
static bool has_word(const char *text, const char *word, const char *separators)
{
    size_t len = strlen(word);
    while (*text != '\0') {
        size_t end = strcspn(text, separators);
        if (end == len && strncmp(text, word, len) == 0)
            return true;
        text += end + (text[end] != '\0' ? 1 : 0);
    }
    return false;
}

static void take_v2(struct admin_cgroups *cgroups, const char *mount_point)
{
    char path[300], controllers[512];
    (void)snprintf(cgroups->v2, sizeof(cgroups->v2), "%.255s", mount_point);
    (void)snprintf(path, sizeof(path), "%.255s/cgroup.controllers", mount_point);
    if (fs_read_at(-1, path, controllers, sizeof(controllers)) < 0)
        return;
    for (size_t i = 0; i < ADMIN_CONTROLLERS; i++)
        cgroups->unified[i] = has_word(controllers, admin_controllers[i], " \n");
}

/* "36 35 98:0 /mnt1 /mount/point rw,noatime master:1 - type source options" */
static void take_line(struct admin_cgroups *cgroups, char *line)
{
    char *tail = strstr(line, " - ");
    if (tail == NULL)
        return;
    *tail = '\0';
    char mount_point[256], type[32], options[512];
    if (sscanf(line, "%*s %*s %*s %*s %255s", mount_point) != 1 ||
        sscanf(tail + 3, "%31s %*s %511s", type, options) != 2)
        return;
    if (strcmp(type, "cgroup2") == 0 && cgroups->v2[0] == '\0')
        take_v2(cgroups, mount_point);
    if (strcmp(type, "cgroup") != 0)
        return;
    for (size_t i = 0; i < ADMIN_HIERARCHIES; i++)
        if (has_word(options, admin_controllers[i], ",") && cgroups->v1[i][0] == '\0')
            (void)snprintf(cgroups->v1[i], sizeof(cgroups->v1[i]), "%s", mount_point);
}

int admin_cgroups_find(struct admin_cgroups *ret, struct error *err)
{
    cleanup_file FILE *file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL)
        return error_set(err, ERR_SYSTEM, errno, "Cannot read /proc/self/mountinfo");
    *ret = (struct admin_cgroups){0};
    cleanup_free char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0)
        take_line(ret, line);
    return 0;
}

int admin_cgroups_version(const struct admin_cgroups *cgroups)
{
    size_t v1 = 0, v2 = 0;
    for (size_t i = 0; i < ADMIN_CONTROLLERS; i++) {
        v1 += cgroups->v1[i][0] != '\0' ? 1 : 0;
        v2 += cgroups->unified[i] ? 1 : 0;
    }
    if (v2 == ADMIN_CONTROLLERS)
        return 2;
    return v1 == ADMIN_CONTROLLERS ? 1 : 0;
}
