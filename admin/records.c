/* Which instances run: the root half has a record of it, and a process with a VM's uid is in the
 * cgroup of that name (the kernel's word), or, where cgroups are off, was started under that name.
 */
#include "admin/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

static int live_add(struct admin_live *live, const char *instance, uint32_t uid, struct error *err)
{
    void *instances = reallocarray(live->instances, live->count + 1, sizeof(*live->instances));
    if (instances == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    live->instances = instances;
    uint32_t *uids = reallocarray(live->uids, live->count + 1, sizeof(*uids));
    if (uids == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    live->uids = uids;
    (void)snprintf(live->instances[live->count], ID_INSTANCE_SIZE, "%.20s", instance);
    live->uids[live->count++] = uid;
    return 0;
}

void admin_live_release(struct admin_live *live)
{
    free(live->instances);
    free(live->uids);
    *live = (struct admin_live){0};
}

bool admin_live_has(const struct admin_live *live, const char *instance)
{
    for (size_t i = 0; i < live->count; i++)
        if (strcmp(live->instances[i], instance) == 0)
            return true;
    return false;
}

/* The first part of a path or argument in `text` that is an instance with a record. */
static bool find_recorded(int records, char *text, size_t len, char out[static ID_INSTANCE_SIZE])
{
    for (size_t i = 0; i < len; i++)
        if (text[i] == '\0')
            text[i] = '\n';
    char *rest = text;
    for (char *word; (word = strsep(&rest, "/\n=: ,")) != NULL;)
        if (id_instance_valid(word) && faccessat(records, word, F_OK, AT_SYMLINK_NOFOLLOW) == 0) {
            memcpy(out, word, ID_INSTANCE_LEN + 1);
            return true;
        }
    return false;
}

bool admin_process_of_vm(const struct admin *admin, const char *pid, char *status, size_t size,
                         uint32_t *ret_uid)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
    if (pid[0] < '0' || pid[0] > '9' || fs_read_at(AT_FDCWD, path, status, size) < 0)
        return false; /* no process, or it ended meanwhile */
    if (strstr(status, "\nState:\tZ") != NULL)
        return false; /* dead: all that is left is an entry that its parent has not read */
    const char *line = strstr(status, "\nUid:");
    unsigned long uid = line != NULL ? strtoul(line + strlen("\nUid:"), NULL, 10) : 0;
    if (uid < admin->uid_base || uid - admin->uid_base >= admin->uid_count)
        return false;
    *ret_uid = (uint32_t)uid;
    return true;
}

static int take_process(const struct admin *admin, int records, const char *pid,
                        struct admin_live *live, struct error *err)
{
    static const char *const files[] = {"cgroup", "cmdline"};
    char path[64], text[8192], instance[ID_INSTANCE_SIZE];
    uint32_t uid = 0;
    if (!admin_process_of_vm(admin, pid, text, sizeof(text), &uid))
        return 0;
    for (size_t i = 0; i < COUNT_OF(files); i++) {
        (void)snprintf(path, sizeof(path), "/proc/%.20s/%s", pid, files[i]);
        ssize_t n = fs_read_at(AT_FDCWD, path, text, sizeof(text));
        if (n > 0 && find_recorded(records, text, (size_t)n, instance))
            return admin_live_has(live, instance) ? 0 : live_add(live, instance, uid, err);
    }
    return 0;
}

int admin_live_load(const struct admin *admin, struct admin_live *ret, struct error *err)
{
    char path[300];
    (void)snprintf(path, sizeof(path), "%.280s/priv", admin->run_dir);
    cleanup_close int records = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (records < 0 && errno == ENOENT)
        return 0; /* motted never ran */
    DIR *dir = records < 0 ? NULL : opendir("/proc");
    if (dir == NULL)
        return error_set(err, ERR_SYSTEM, errno, "Cannot read %s: run this as root", path);
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(dir)) != NULL;)
        result = take_process(admin, records, entry->d_name, ret, err);
    closedir(dir);
    return result;
}
