/* A checked spec from a request's body: the only maker of struct vmm_spec (R07). */
#include "vmm/internal.h"

#include <stddef.h>

enum { LABEL_KEY_MAX = 63, LABEL_VALUE_MAX = 256, DISK_MAX_MIB = 1 << 20 };

struct request {
    char *id, *image, *seccomp, *on_unresponsive, *snapshot; /* owned */
    uint32_t vcpus, memory_mib, disk_mib;
    int64_t ttl_s;
    const cJSON *labels, *idle;
    bool enable_networking, cold;
};

/* The host's own limits are checked after this: they are not constants. */
static const struct json_field fields[] = {
    {"id", JSON_STRING, offsetof(struct request, id), false, 0, 4096},
    {"image", JSON_STRING, offsetof(struct request, image), false, 0, 4096},
    {"seccomp", JSON_STRING, offsetof(struct request, seccomp), false, 0, 4096},
    {"vcpus", JSON_U32, offsetof(struct request, vcpus), false, 1, 32},
    {"memory_mib", JSON_U32, offsetof(struct request, memory_mib), false, VMM_MEMORY_MIN_MIB,
     UINT32_MAX},
    {"disk_mib", JSON_U32, offsetof(struct request, disk_mib), false, 0, DISK_MAX_MIB},
    {"ttl_s", JSON_I64, offsetof(struct request, ttl_s), false, 1, VMM_TTL_MAX_S},
    {"idle", JSON_OBJECT, offsetof(struct request, idle), false, 0, 2},
    {"on_unresponsive", JSON_STRING, offsetof(struct request, on_unresponsive), false, 0, 4096},
    {"labels", JSON_OBJECT, offsetof(struct request, labels), false, 0, VMM_LABELS_MAX},
    {"snapshot", JSON_STRING, offsetof(struct request, snapshot), false, 0, 4096},
    {"cold", JSON_BOOL, offsetof(struct request, cold), false, 0, 0},
    {"enable_networking", JSON_BOOL, offsetof(struct request, enable_networking), false, 0, 0},
};

static const char *const seccomp_names[] = {
    [PRIV_SECCOMP_MINIMAL] = "minimal",
    [PRIV_SECCOMP_BASIC] = "basic",
    [PRIV_SECCOMP_PERMISSIVE] = "permissive",
};

const char *vmm_seccomp_name(enum priv_seccomp level)
{
    return seccomp_names[level];
}

static void request_release(struct request *request)
{
    free(request->id);
    free(request->image);
    free(request->seccomp);
    free(request->on_unresponsive);
    free(request->snapshot);
}

static int check_id(const char *id, struct vmm_spec *spec, struct error *err)
{
    if (id == NULL) {
        char random[ID_INSTANCE_SIZE];
        if (id_instance_make(random, err) < 0)
            return -1;
        snprintf(spec->id, sizeof(spec->id), "vm-%.12s", random);
        return 0;
    }
    size_t len = strlen(id);
    if (!id_vm_valid(id, len))
        return error_set(err, ERR_ID_INVALID, 0,
                         "id: use 1 to 64 of A-Z a-z 0-9 _ -; this one has %zu bytes%s", len,
                         len > ID_VM_MAX ? "" : " and something else in it");
    memcpy(spec->id, id, len + 1);
    return 0;
}

static int check_seccomp(const char *name, const struct priv_host *host, struct vmm_spec *spec,
                         struct error *err)
{
    spec->seccomp = PRIV_SECCOMP_MINIMAL;
    if (name == NULL)
        return 0;
    for (size_t level = PRIV_SECCOMP_MINIMAL; level < COUNT_OF(seccomp_names); level++) {
        if (strcmp(name, seccomp_names[level]) != 0)
            continue;
        if (level == PRIV_SECCOMP_PERMISSIVE && !(host->without & PRIV_GUARD_SECCOMP))
            return error_set(err, ERR_SECCOMP_LEVEL, 0,
                             "seccomp: `permissive` stops nothing; it needs motted started with "
                             "--without=seccomp");
        spec->seccomp = (enum priv_seccomp)level;
        return 0;
    }
    return error_set(err, ERR_FIELD_VALUE, 0, "seccomp: use minimal, basic or permissive");
}

static int check_shape(const struct request *request, const struct priv_host *host,
                       struct vmm_spec *spec, struct error *err)
{
    if (request->vcpus > 1 && request->vcpus % 2 != 0)
        return error_set(err, ERR_FIELD_RANGE, 0, "vcpus: use 1 or an even number, not %u",
                         request->vcpus);
    if (request->vcpus > host->max_vcpus)
        return error_set(err, ERR_FIELD_RANGE, 0, "vcpus: this host allows 1 to %u, not %u",
                         host->max_vcpus, request->vcpus);
    if (request->memory_mib > host->max_memory_mib)
        return error_set(err, ERR_FIELD_RANGE, 0, "memory_mib: this host allows %d to %u, not %u",
                         VMM_MEMORY_MIN_MIB, host->max_memory_mib, request->memory_mib);
    if (request->disk_mib > host->max_disk_mib)
        return error_set(err, ERR_FIELD_RANGE, 0, "disk_mib: this host allows 0 to %u, not %u",
                         host->max_disk_mib, request->disk_mib);
    spec->vcpus = request->vcpus;
    spec->memory_mib = request->memory_mib;
    spec->disk_mib = request->disk_mib;
    return 0;
}

struct idle {
    int64_t after_s;
    char *action; /* owned */
};

/* Deleting is the one action there is so far. */
static int check_idle(const cJSON *json, struct vmm_spec *spec, struct error *err)
{
    static const struct json_field idle_fields[] = {
        {"after_s", JSON_I64, offsetof(struct idle, after_s), true, 1, VMM_TTL_MAX_S},
        {"action", JSON_STRING, offsetof(struct idle, action), false, 0, 4096},
    };
    struct idle idle = {0};
    if (json == NULL)
        return 0;
    int result = json_decode(json, idle_fields, COUNT_OF(idle_fields), &idle, err);
    if (result == 0 && idle.action != NULL && strcmp(idle.action, "delete") != 0)
        result = error_set(err, ERR_FIELD_VALUE, 0, "action: use delete");
    free(idle.action);
    spec->idle_s = idle.after_s;
    return result < 0 ? error_wrap(err, "idle") : 0;
}

static int check_policy(const char *name, struct vmm_spec *spec, struct error *err)
{
    spec->on_unresponsive = STORE_KEEP;
    if (name == NULL || strcmp(name, "keep") == 0)
        return 0;
    spec->on_unresponsive = STORE_DELETE;
    return strcmp(name, "delete") == 0
               ? 0
               : error_set(err, ERR_FIELD_VALUE, 0, "on_unresponsive: use keep or delete");
}

static bool label_key_valid(const char *key)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._/-";
    size_t len = strlen(key);
    return len >= 1 && len <= LABEL_KEY_MAX && strspn(key, allowed) == len;
}

static int by_key(const void *a, const void *b)
{
    const cJSON *const *left = a, *const *right = b;
    return strcmp((*left)->string, (*right)->string);
}

int vmm_labels(const cJSON *labels, char out[static STORE_LABELS_MAX], struct error *err)
{
    const cJSON *sorted[VMM_LABELS_MAX];
    size_t count = 0;
    const cJSON *label = NULL;
    cJSON_ArrayForEach(label, labels)
    {
        if (count == VMM_LABELS_MAX)
            return error_set(err, ERR_FIELD_RANGE, 0, "labels: at most %d of them", VMM_LABELS_MAX);
        if (!label_key_valid(label->string))
            return error_set(err, ERR_FIELD_VALUE, 0,
                             "labels: a key is 1 to %d of A-Z a-z 0-9 . _ / -", LABEL_KEY_MAX);
        if (!cJSON_IsString(label))
            return error_set(err, ERR_FIELD_TYPE, 0, "labels.%s: must be a string", label->string);
        if (json_characters(label->valuestring) > LABEL_VALUE_MAX)
            return error_set(err, ERR_FIELD_RANGE, 0, "labels.%s: at most %d characters",
                             label->string, LABEL_VALUE_MAX);
        sorted[count++] = label;
    }
    qsort(sorted, count, sizeof(const cJSON *), by_key);
    cleanup_json cJSON *object = cJSON_CreateObject();
    bool failed = object == NULL;
    for (size_t i = 0; i < count && !failed; i++)
        failed = json_add_string(object, sorted[i]->string, sorted[i]->valuestring) < 0;
    cleanup_free char *text = failed ? NULL : json_print(object);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading labels");
    if (strlen(text) >= STORE_LABELS_MAX)
        return error_set(err, ERR_FIELD_RANGE, 0, "labels: at most %d bytes of JSON in all",
                         STORE_LABELS_MAX - 1);
    snprintf(out, STORE_LABELS_MAX, "%s", text);
    return 0;
}

static int check_image(const char *name, int state_dir, struct vmm_spec *spec, struct error *err)
{
    if (!id_name_valid(name))
        return error_set(err, ERR_IMAGE_UNKNOWN, 0,
                         "image: no image has such a name; GET /images lists them");
    if (image_find(state_dir, name, &spec->image, err) < 0)
        return -1;
    return image_kernel_load(state_dir, spec->image.kernel, &spec->kernel, err);
}

/* What a booted and a restored VM have in common. */
static int check_common(const struct request *request, struct vmm_spec *spec, struct error *err)
{
    if (request->enable_networking)
        return error_set(err, ERR_NETWORKING_REFUSED, 0,
                         "enable_networking: a VM has no network card; it speaks to the host over "
                         "vsock only");
    spec->ttl_s = request->ttl_s;
    spec->cold = request->cold;
    return check_id(request->id, spec, err) < 0 || check_idle(request->idle, spec, err) < 0 ||
                   check_policy(request->on_unresponsive, spec, err) < 0 ||
                   vmm_labels(request->labels, spec->labels, err) < 0
               ? -1
               : 0;
}

static int check(const struct request *request, const struct priv_host *host, int state_dir,
                 const char *default_image, struct vmm_spec *spec, struct error *err)
{
    if (check_common(request, spec, err) < 0 ||
        check_seccomp(request->seccomp, host, spec, err) < 0 ||
        check_shape(request, host, spec, err) < 0)
        return -1;
    if (check_image(request->image != NULL ? request->image : default_image, state_dir, spec, err) <
        0)
        return -1;
    if (spec->disk_mib > 0 && !spec->kernel.has_scratch)
        return error_set(err, ERR_FIELD_VALUE, 0,
                         "disk_mib: the kernel of image %s comes without a scratch disk",
                         spec->image.name);
    return 0;
}

/* With the defaults. */
static int decode(const cJSON *body, struct request *request, struct vmm_spec **ret,
                  struct error *err)
{
    *request = (struct request){
        .vcpus = 1, .memory_mib = VMM_MEMORY_DEFAULT_MIB, .ttl_s = VMM_TTL_DEFAULT_S};
    if (json_decode(body, fields, COUNT_OF(fields), request, err) < 0)
        return -1;
    *ret = calloc(1, sizeof(**ret));
    return *ret != NULL ? 0
                        : error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading a spec");
}

int vmm_spec_new(const cJSON *body, const struct priv_host *host, int state_dir,
                 const char *default_image, struct vmm_spec **ret, struct error *err)
{
    cleanup(request_release) struct request request = {0};
    cleanup_free struct vmm_spec *spec = NULL;
    if (decode(body, &request, &spec, err) < 0 ||
        check(&request, host, state_dir, default_image, spec, err) < 0)
        return -1;
    *ret = TAKE_PTR(spec);
    return 0;
}

static int refuse_made_of(const cJSON *body, struct error *err)
{
    static const char *const names[] = {"image",    "vcpus",   "memory_mib",
                                        "disk_mib", "seccomp", "cold"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (cJSON_GetObjectItemCaseSensitive(body, names[i]) != NULL)
            return error_set(err, ERR_FIELD_VALUE, 0, "%s: is the snapshot's; leave it out",
                             names[i]);
    return 0;
}

/* Of the snapshot that its owner's row tells of; the root half compares again. */
static int take_shape(const struct store_snapshot *snapshot, int state_dir, struct vmm_spec *spec,
                      struct error *err)
{
    for (size_t level = PRIV_SECCOMP_MINIMAL; level < COUNT_OF(seccomp_names); level++)
        if (strcmp(snapshot->seccomp, seccomp_names[level]) == 0)
            spec->seccomp = (enum priv_seccomp)level;
    spec->vcpus = snapshot->vcpus;
    spec->memory_mib = snapshot->memory_mib;
    spec->disk_mib = snapshot->disk_mib;
    memcpy(spec->snapshot, snapshot->id, sizeof(spec->snapshot));
    return image_find_digest(state_dir, snapshot->image_digest, &spec->image, err);
}

int vmm_spec_new_restored(const cJSON *body, const struct store_snapshot *snapshot, int state_dir,
                          struct vmm_spec **ret, struct error *err)
{
    cleanup(request_release) struct request request = {0};
    cleanup_free struct vmm_spec *spec = NULL;
    if (refuse_made_of(body, err) < 0 || decode(body, &request, &spec, err) < 0 ||
        check_common(&request, spec, err) < 0 || take_shape(snapshot, state_dir, spec, err) < 0)
        return -1;
    *ret = TAKE_PTR(spec);
    return 0;
}

void vmm_spec_free(struct vmm_spec *spec)
{
    free(spec);
}

void vmm_spec_keep(struct vmm_spec *spec, const struct store_keep *keep)
{
    spec->keep = keep != NULL ? *keep : (struct store_keep){0};
}
