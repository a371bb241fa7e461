/* One pool as the configuration says it: IMAGE,key=value,… */
#include "vmm/pool.h"

struct key {
    const char *name;
    size_t offset;
    uint64_t min, max;
};

static const struct key keys[] = {
    {"vcpus", offsetof(struct vmm_pool_target, vcpus), 1, 32},
    {"memory-mib", offsetof(struct vmm_pool_target, memory_mib), VMM_MEMORY_MIN_MIB, UINT32_MAX},
    {"disk-mib", offsetof(struct vmm_pool_target, disk_mib), 0, 1 << 20},
    {"min", offsetof(struct vmm_pool_target, min), 0, VMM_POOL_SIZE_MAX},
    {"max", offsetof(struct vmm_pool_target, max), 1, VMM_POOL_SIZE_MAX},
};
enum { SECCOMP = COUNT_OF(keys), KEYS };

static int put_seccomp(const char *value, struct vmm_pool_target *target, struct error *err)
{
    if (strcmp(value, "minimal") != 0 && strcmp(value, "basic") != 0 &&
        strcmp(value, "permissive") != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "seccomp: `%.40s` is none of minimal, basic, permissive", value);
    snprintf(target->seccomp, sizeof(target->seccomp), "%s", value);
    return 0;
}

static size_t find_key(const char *name)
{
    size_t key = 0;
    while (key < COUNT_OF(keys) && strcmp(keys[key].name, name) != 0)
        key++;
    return key == COUNT_OF(keys) && strcmp(name, "seccomp") != 0 ? KEYS : key;
}

/* `part` is cut at its `=`. */
static int put(char *part, bool *seen, struct vmm_pool_target *target, struct error *err)
{
    char *value = strchr(part, '=');
    if (value == NULL)
        return error_set(err, ERR_CONFIG, 0, "expected key=value, not `%.40s`", part);
    *value++ = '\0';
    size_t key = find_key(part);
    if (key == KEYS)
        return error_set(err, ERR_CONFIG, 0,
                         "`%.40s` is none of vcpus, memory-mib, disk-mib, seccomp, min, max", part);
    if (seen[key])
        return error_set(err, ERR_CONFIG, 0, "%s stands twice", part);
    seen[key] = true;
    if (key == SECCOMP)
        return put_seccomp(value, target, err);
    uint64_t number = 0;
    if (kv_number(part, value, keys[key].min, keys[key].max, &number, err) < 0)
        return -1;
    uint32_t word = (uint32_t)number;
    memcpy((char *)target + keys[key].offset, &word, sizeof(word));
    return 0;
}

static int check(const struct vmm_pool_target *target, bool has_min, struct error *err)
{
    if (!has_min)
        return error_set(err, ERR_CONFIG, 0, "min is missing: how many VMs wait always");
    if (target->vcpus > 1 && target->vcpus % 2 != 0)
        return error_set(err, ERR_CONFIG, 0, "vcpus: 1 or an even number, not %u", target->vcpus);
    if (target->max < target->min || target->max == 0)
        return error_set(err, ERR_CONFIG, 0, "max: %u, but at least 1 and not below min (%u)",
                         target->max, target->min);
    return 0;
}

static int parse(char *text, struct vmm_pool_target *ret, struct error *err)
{
    bool seen[KEYS] = {false};
    struct vmm_pool_target target = {
        .vcpus = 1, .memory_mib = VMM_MEMORY_DEFAULT_MIB, .seccomp = "minimal"};
    const char *image = strsep(&text, ",");
    if (!id_name_valid(image))
        return error_set(err, ERR_CONFIG, 0, "`%.40s` is no image name; it comes first", image);
    snprintf(target.image, sizeof(target.image), "%s", image);
    for (char *part; (part = strsep(&text, ",")) != NULL;)
        if (put(part, seen, &target, err) < 0)
            return -1;
    if (!seen[find_key("max")])
        target.max = target.min;
    if (check(&target, seen[find_key("min")], err) < 0)
        return -1;
    *ret = target;
    return 0;
}

int vmm_pool_add(struct vmm_pool_targets *targets, const char *text, struct error *err)
{
    char copy[PRIV_POOL_SIZE];
    struct vmm_pool_target target;
    if (targets->count == VMM_POOLS_MAX)
        return error_set(err, ERR_CONFIG, 0, "pool: at most %d", VMM_POOLS_MAX);
    if (strlen(text) >= sizeof(copy))
        return error_set(err, ERR_CONFIG, 0, "pool: at most %d characters", PRIV_POOL_SIZE - 1);
    memcpy(copy, text, strlen(text) + 1);
    if (parse(copy, &target, err) < 0)
        return error_wrap(err, "pool: `%.60s`", text);
    for (size_t i = 0; i < targets->count; i++)
        if (vmm_pool_same(&targets->of[i], &target))
            return error_set(err, ERR_CONFIG, 0, "pool: `%.60s`: there is one of the same already",
                             text);
    targets->of[targets->count++] = target;
    return 0;
}
