/* Where leftovers of a VM could be, place by place. Nothing here changes anything. */
#include "admin/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

typedef int entry_handler(const struct admin *admin, const struct admin_live *live,
                          const char *folder, const char *name, struct admin_found *found,
                          struct error *err);

/* Calls `handler` for each entry. A folder that is not there has none. */
static int each_entry(const struct admin *admin, const struct admin_live *live, const char *folder,
                      entry_handler *handler, struct admin_found *found, struct error *err)
{
    DIR *dir = opendir(folder);
    if (dir == NULL && errno == ENOENT)
        return 0;
    if (dir == NULL)
        return error_set(err, ERR_SYSTEM, errno, "Cannot read %s: run this as root", folder);
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(dir)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = handler(admin, live, folder, entry->d_name, found, err);
    closedir(dir);
    return result;
}

static bool live_uid(const struct admin_live *live, uint32_t uid)
{
    for (size_t i = 0; i < live->count; i++)
        if (live->uids[i] == uid)
            return true;
    return false;
}

static int process_entry(const struct admin *admin, const struct admin_live *live,
                         const char *folder, const char *name, struct admin_found *found,
                         struct error *err)
{
    (void)folder;
    char status[4096], text[128];
    uint32_t uid = 0;
    if (!admin_process_of_vm(admin, name, status, sizeof(status), &uid) || live_uid(live, uid))
        return 0;
    const char *command = strchr(status, '\t'); /* "Name:", a tab, the name */
    command = command != NULL ? command + 1 : "";
    (void)snprintf(text, sizeof(text), "pid %.20s (%.*s), uid %u", name,
                   (int)strcspn(command, "\n"), command, uid);
    return admin_found_add(found, ADMIN_PROCESS, text, err);
}

int admin_scan_processes(const struct admin *admin, const struct admin_live *live,
                         struct admin_found *found, struct error *err)
{
    return each_entry(admin, live, "/proc", process_entry, found, err);
}

static int cgroup_entry(const struct admin *admin, const struct admin_live *live,
                        const char *folder, const char *name, struct admin_found *found,
                        struct error *err)
{
    (void)admin;
    char text[600];
    if (!id_instance_valid(name) || admin_live_has(live, name))
        return 0;
    (void)snprintf(text, sizeof(text), "%.500s/%s", folder, name);
    return admin_found_add(found, ADMIN_CGROUP, text, err);
}

int admin_scan_cgroups(const struct admin *admin, const struct admin_live *live,
                       struct admin_found *found, struct error *err)
{
    struct admin_cgroups cgroups;
    if (admin_cgroups_find(&cgroups, err) < 0)
        return -1;
    for (size_t i = 0; i <= ADMIN_HIERARCHIES; i++) {
        const char *mount_point = i < ADMIN_HIERARCHIES ? cgroups.v1[i] : cgroups.v2;
        char folder[400];
        (void)snprintf(folder, sizeof(folder), "%s/%s", mount_point, admin->cgroup);
        if (mount_point[0] != '\0' && each_entry(admin, live, folder, cgroup_entry, found, err) < 0)
            return -1;
    }
    return 0;
}

int admin_scan_mounts(const struct admin *admin, const struct admin_live *live,
                      struct admin_found *found, struct error *err)
{
    (void)live;
    cleanup_file FILE *file = fopen("/proc/self/mountinfo", "re");
    if (file == NULL)
        return error_set(err, ERR_SYSTEM, errno, "Cannot read /proc/self/mountinfo");
    char below[300], mount_point[512];
    int len = snprintf(below, sizeof(below), "%.250s/", admin->run_dir);
    cleanup_free char *line = NULL;
    size_t size = 0;
    while (getline(&line, &size, file) > 0)
        if (sscanf(line, "%*s %*s %*s %*s %511s", mount_point) == 1 &&
            strncmp(mount_point, below, (size_t)len) == 0 &&
            admin_found_add(found, ADMIN_MOUNT, mount_point, err) < 0)
            return -1;
    return 0;
}

/* A file that begins with an instance id, and is nobody's. Others are not about one VM. */
static int file_entry(const struct admin *admin, const struct admin_live *live, const char *folder,
                      const char *name, struct admin_found *found, struct error *err)
{
    (void)admin;
    char instance[ID_INSTANCE_LEN + 1], text[800];
    (void)snprintf(instance, sizeof(instance), "%.20s", name);
    if (!id_instance_valid(instance) || admin_live_has(live, instance))
        return 0;
    (void)snprintf(text, sizeof(text), "%.500s/%.255s", folder, name);
    return admin_found_add(found, ADMIN_FILE, text, err);
}

/* A snapshot that is being made, or removed, has a dot before its id; a published one is kept. */
static int unfinished_entry(const struct admin *admin, const struct admin_live *live,
                            const char *folder, const char *name, struct admin_found *found,
                            struct error *err)
{
    char text[800];
    (void)admin;
    if (name[0] != '.' || !id_instance_valid(name + 1) || admin_live_has(live, name + 1))
        return 0;
    (void)snprintf(text, sizeof(text), "%.500s/%.255s", folder, name);
    return admin_found_add(found, ADMIN_FILE, text, err);
}

int admin_scan_files(const struct admin *admin, const struct admin_live *live,
                     struct admin_found *found, struct error *err)
{
    const struct {
        const char *base, *folder;
        entry_handler *handler;
    } places[] = {{admin->run_dir, "priv", file_entry},
                  {admin->run_dir, "jail", file_entry},
                  {admin->state_dir, "scratch", file_entry},
                  {admin->state_dir, "staging", file_entry},
                  {admin->state_dir, "snapshots", unfinished_entry}};
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        char folder[512];
        (void)snprintf(folder, sizeof(folder), "%.250s/%s", places[i].base, places[i].folder);
        if (each_entry(admin, live, folder, places[i].handler, found, err) < 0)
            return -1;
    }
    return 0;
}
