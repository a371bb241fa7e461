/* One tenant's quota as the configuration says it: TENANT,key=value,… What is not said is the common
 * limit. */
#include "server/internal.h"

static const struct {
    const char *name;
    size_t offset;
} keys[] = {
    {"vms", offsetof(struct store_quota, vms)},
    {"vcpus", offsetof(struct store_quota, vcpus)},
    {"memory-mib", offsetof(struct store_quota, memory_mib)},
    {"execs", offsetof(struct store_quota, execs)},
};

/* `part` is cut at its `=`. */
static int put(char *part, struct store_quota *quota, struct error *err)
{
    char *value = strchr(part, '=');
    size_t key = 0;
    uint64_t number = 0;
    if (value == NULL)
        return error_set(err, ERR_CONFIG, 0, "expected key=value, not `%.40s`", part);
    *value++ = '\0';
    while (key < COUNT_OF(keys) && strcmp(keys[key].name, part) != 0)
        key++;
    if (key == COUNT_OF(keys))
        return error_set(err, ERR_CONFIG, 0, "`%.40s` is none of vms, vcpus, memory-mib, execs",
                         part);
    uint32_t *field = (uint32_t *)(void *)((char *)quota + keys[key].offset);
    if (*field != STORE_QUOTA_COMMON)
        return error_set(err, ERR_CONFIG, 0, "%s stands twice", part);
    if (kv_number(part, value, 0, STORE_QUOTA_COMMON - 1, &number, err) < 0)
        return -1;
    *field = (uint32_t)number;
    return 0;
}

/* A token's tenant; or who calls over a socket: `root`, or `uid:` and a number. */
static bool is_owner(const char *name)
{
    const char *uid = strncmp(name, "uid:", 4) == 0 ? name + 4 : NULL;
    if (uid == NULL)
        return id_name_valid(name);
    size_t digits = strspn(uid, "0123456789");
    return digits > 0 && digits <= 10 && uid[digits] == '\0';
}

static int parse(char *text, struct store_quota_of *ret, struct error *err)
{
    const char *owner = strsep(&text, ",");
    if (!is_owner(owner))
        return error_set(err, ERR_CONFIG, 0, "`%.40s` is no tenant; he comes first", owner);
    if (text == NULL)
        return error_set(err, ERR_CONFIG, 0, "what he may have is missing");
    *ret = (struct store_quota_of){
        .quota = {STORE_QUOTA_COMMON, STORE_QUOTA_COMMON, STORE_QUOTA_COMMON, STORE_QUOTA_COMMON}};
    snprintf(ret->owner, sizeof(ret->owner), "%s", owner);
    for (char *part; (part = strsep(&text, ",")) != NULL;)
        if (put(part, &ret->quota, err) < 0)
            return -1;
    return 0;
}

int server_quota_add(struct store_quotas *quotas, const char *text, struct error *err)
{
    char copy[PRIV_QUOTA_SIZE];
    struct store_quota_of of;
    if (quotas->count == STORE_QUOTAS_MAX)
        return error_set(err, ERR_CONFIG, 0, "quota: at most %d", STORE_QUOTAS_MAX);
    if (strlen(text) >= sizeof(copy))
        return error_set(err, ERR_CONFIG, 0, "quota: at most %d characters", PRIV_QUOTA_SIZE - 1);
    memcpy(copy, text, strlen(text) + 1);
    if (parse(copy, &of, err) < 0)
        return error_wrap(err, "quota: `%.60s`", text);
    for (size_t i = 0; i < quotas->count; i++)
        if (strcmp(quotas->of[i].owner, of.owner) == 0)
            return error_set(err, ERR_CONFIG, 0, "quota: %s stands twice", of.owner);
    quotas->of[quotas->count++] = of;
    return 0;
}
