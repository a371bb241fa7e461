/* motte-admin leftovers: what is on this host in Motte's name that no running VM accounts for. */
#include "admin/internal.h"

static const struct {
    const char *key, *what;
} kinds[ADMIN_KINDS] = {
    [ADMIN_PROCESS] = {"processes", "process"}, [ADMIN_CGROUP] = {"cgroups", "cgroup"},
    [ADMIN_CHAIN] = {"chains", "chain"},        [ADMIN_MOUNT] = {"mounts", "mount"},
    [ADMIN_FILE] = {"files", "file"},
};

static int add_text(cJSON *list, const char *text, struct error *err)
{
    cJSON *item = cJSON_CreateString(text);
    if (item == NULL || !cJSON_AddItemToArray(list, item)) {
        cJSON_Delete(item);
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    }
    return 0;
}

int admin_found_add(struct admin_found *found, enum admin_kind kind, const char *text,
                    struct error *err)
{
    if (add_text(found->lists[kind], text, err) < 0)
        return -1;
    found->count++;
    return 0;
}

int admin_found_spare(struct admin_found *found, const char *chain, struct error *err)
{
    for (const cJSON *item = found->spares->child; item != NULL; item = item->next)
        if (strcmp(cJSON_GetStringValue(item), chain) == 0)
            return 0;
    return add_text(found->spares, chain, err);
}

static int found_init(struct admin_found *found, struct error *err)
{
    found->json = cJSON_CreateObject();
    for (size_t i = 0; i < ADMIN_KINDS; i++) {
        found->lists[i] =
            found->json == NULL ? NULL : cJSON_AddArrayToObject(found->json, kinds[i].key);
        if (found->lists[i] == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    }
    found->spares =
        found->json == NULL ? NULL : cJSON_AddArrayToObject(found->json, "spare_chains");
    return found->spares == NULL ? error_set(err, ERR_NO_MEMORY, 0, "Out of memory") : 0;
}

static int print_found(const struct admin_found *found, const struct admin_live *live, bool json,
                       struct error *err)
{
    if (json) {
        cleanup_free char *text = json_add_number(found->json, "running", (double)live->count) == 0
                                      ? json_print(found->json)
                                      : NULL;
        if (text == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
        puts(text);
        return 0;
    }
    for (size_t i = 0; i < ADMIN_KINDS; i++) {
        const cJSON *item;
        cJSON_ArrayForEach(item, found->lists[i])
            printf("%-8s %s\n", kinds[i].what, cJSON_GetStringValue(item));
    }
    printf("%zu running, %d chains spare, %zu left over\n", live->count,
           cJSON_GetArraySize(found->spares), found->count);
    if (found->count > 0)
        printf(
            "Starting motted clears them; `motted --purge` removes everything, running VMs too.\n");
    return 0;
}

int admin_leftovers(const struct admin *admin, struct error *err)
{
    static int (*const scans[])(const struct admin *, const struct admin_live *,
                                struct admin_found *, struct error *) = {
        admin_scan_processes, admin_scan_cgroups, admin_scan_chains,
        admin_scan_mounts,    admin_scan_files,
    };
    cleanup(admin_live_release) struct admin_live live = {0};
    struct admin_found found = {0};
    if (admin_live_load(admin, &live, err) < 0 || found_init(&found, err) < 0)
        return -1;
    cleanup_json cJSON *owner = found.json;
    for (size_t i = 0; i < COUNT_OF(scans); i++)
        if (scans[i](admin, &live, &found, err) < 0)
            return -1;
    if (print_found(&found, &live, admin->json, err) < 0 || owner == NULL)
        return -1;
    return found.count == 0 ? 0 : 1;
}
