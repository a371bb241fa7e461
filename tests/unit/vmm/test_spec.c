/* The one maker of specs: what it takes, what it refuses, and that a refusal names the field. */
#include "vmm/internal.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

/* ---- a catalogue with one image, made per test in a directory of its own ---- */

static char catalogue_path[64];

static void put(int dir, const char *path, const char *text)
{
    cr_assert_eq(fs_replace_at(dir, path, text, strlen(text), 0444), 0, "%s", path);
}

static void hex_of(const char *text, char out[HASH_HEX_SIZE])
{
    uint8_t digest[HASH_SIZE];
    hash_sha256(text, strlen(text), digest);
    hash_to_hex(digest, HASH_SIZE, out);
}

static int make_catalogue(void)
{
    snprintf(catalogue_path, sizeof(catalogue_path), "/tmp/motte-spec-XXXXXX");
    cr_assert_not_null(mkdtemp(catalogue_path));
    int dir = open(catalogue_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    static const char *const dirs[] = {"images", "images/python", "kernels", "kernels/linux"};
    for (size_t i = 0; i < COUNT_OF(dirs); i++)
        cr_assert_eq(mkdirat(dir, dirs[i], 0755), 0);
    char digest[HASH_HEX_SIZE], text[256];
    hex_of("disk", digest);
    snprintf(text, sizeof(text), "digest = %s\nsize = 4\nkernel = linux\ncreated = 1\n", digest);
    put(dir, "images/python/manifest", text);
    put(dir, "images/python/disk", "disk");
    hex_of("elf", digest);
    snprintf(text, sizeof(text), "vmlinux = %s\n", digest);
    put(dir, "kernels/linux/manifest", text);
    put(dir, "kernels/linux/vmlinux", "elf");
    return dir;
}

static void drop_catalogue(int dir)
{
    close(dir);
    fs_remove_tree(AT_FDCWD, catalogue_path);
}

static const struct priv_host host = {
    .max_vcpus = 8, .max_memory_mib = 2048, .max_disk_mib = 4096, .total_memory_mib = 8192};

static struct vmm_spec *decode(int dir, const char *body, struct error *err)
{
    cleanup_json cJSON *json = NULL;
    struct vmm_spec *spec = NULL;
    cr_assert_eq(json_parse(body, strlen(body), &json, err), 0, "%s: %s", body, err->msg);
    if (vmm_spec_new(json, &host, dir, "python", &spec, err) < 0)
        cr_assert_null(spec);
    return spec;
}

static void refused(int dir, const char *body, enum error_code code, const char *names)
{
    struct error err = {0};
    struct vmm_spec *spec = decode(dir, body, &err);
    cr_assert_null(spec, "%s was accepted", body);
    cr_assert_eq(err.code, code, "%s gave %s (%s)", body, error_code_name(err.code), err.msg);
    cr_assert_not_null(strstr(err.msg, names), "%s: `%s` does not name %s", body, err.msg, names);
}

Test(vmm_spec, R07_an_empty_body_gives_the_documented_defaults)
{
    int dir = make_catalogue();
    struct error err = {0};
    struct vmm_spec *spec = decode(dir, "{}", &err);
    cr_assert_not_null(spec, "%s", err.msg);
    cr_assert_str_eq(spec->image.name, "python");
    cr_assert_eq(spec->vcpus, 1);
    cr_assert_eq(spec->memory_mib, 256);
    cr_assert_eq(spec->disk_mib, 0);
    cr_assert_eq(spec->seccomp, PRIV_SECCOMP_MINIMAL);
    cr_assert_eq(spec->ttl_s, VMM_TTL_DEFAULT_S);
    cr_assert_str_eq(spec->labels, "{}");
    cr_assert(id_vm_valid(spec->id, strlen(spec->id)));
    vmm_spec_free(spec);
    drop_catalogue(dir);
}

Test(vmm_spec, R07_every_wrong_field_is_refused_by_name)
{
    int dir = make_catalogue();
    refused(dir, "{\"vcpu\":1}", ERR_FIELD_UNKNOWN, "vcpu");
    refused(dir, "{\"vcpus\":\"1\"}", ERR_FIELD_TYPE, "vcpus");
    refused(dir, "{\"memory_mib\":1.5}", ERR_FIELD_TYPE, "memory_mib");
    refused(dir, "{\"ttl_s\":0}", ERR_FIELD_RANGE, "ttl_s");
    refused(dir, "{\"labels\":[]}", ERR_FIELD_TYPE, "labels");
    refused(dir, "{\"labels\":{\"a b\":\"x\"}}", ERR_FIELD_VALUE, "labels");
    refused(dir, "{\"labels\":{\"a\":1}}", ERR_FIELD_TYPE, "labels.a");
    refused(dir, "{\"seccomp\":\"none\"}", ERR_FIELD_VALUE, "seccomp");
    refused(dir, "{\"seccomp\":\"permissive\"}", ERR_SECCOMP_LEVEL, "seccomp");
    refused(dir, "{\"image\":\"../python\"}", ERR_IMAGE_UNKNOWN, "image");
    refused(dir, "{\"image\":\"debian\"}", ERR_IMAGE_UNKNOWN, "debian");
    refused(dir, "{\"disk_mib\":64}", ERR_FIELD_VALUE, "disk_mib");
    drop_catalogue(dir);
}

Test(vmm_spec, R01_a_labels_value_is_measured_in_characters_as_the_contract_does)
{
    enum { VALUE_MAX = 256 };
    int dir = make_catalogue();
    struct buf body = {.max = 4096};
    buf_printf(&body, "{\"labels\":{\"a\":\"");
    for (int i = 0; i < VALUE_MAX; i++)
        buf_printf(&body, "\u20ac");
    size_t len = body.len;
    buf_printf(&body, "\"}}");
    struct error err = {0};
    struct vmm_spec *spec = decode(dir, body.data, &err);
    cr_assert_not_null(spec, "%s", err.msg);
    vmm_spec_free(spec);
    body.len = len;
    buf_printf(&body, "x\"}}");
    refused(dir, body.data, ERR_FIELD_RANGE, "labels.a: at most 256 characters");
    buf_release(&body);
    drop_catalogue(dir);
}

Test(vmm_spec, R08_networking_is_refused_with_the_reason)
{
    int dir = make_catalogue();
    refused(dir, "{\"enable_networking\":true}", ERR_NETWORKING_REFUSED, "no network card");
    struct error err = {0};
    struct vmm_spec *spec = decode(dir, "{\"enable_networking\":false}", &err);
    cr_assert_not_null(spec, "%s", err.msg);
    vmm_spec_free(spec);
    drop_catalogue(dir);
}

/* Against a restatement of the rule, over random numbers around every border. */
Test(vmm_spec, R09_R37_shape_bounds_hold_for_random_numbers)
{
    int dir = make_catalogue();
    unsigned seed = (unsigned)clock_mono_us();
    cr_log_info("seed %u", seed);
    static const int64_t borders[] = {-1, 0,   1,    2,    8,         32,
                                      33, 128, 2048, 4096, 1LL << 31, 1LL << 32};
    for (int i = 0; i < 4000; i++) {
        int64_t vcpus = borders[(unsigned)rand_r(&seed) % 6] + rand_r(&seed) % 5 - 2;
        int64_t memory =
            borders[(unsigned)rand_r(&seed) % COUNT_OF(borders)] + rand_r(&seed) % 5 - 2;
        char body[128];
        snprintf(body, sizeof(body), "{\"vcpus\":%lld,\"memory_mib\":%lld}", (long long)vcpus,
                 (long long)memory);
        bool good = vcpus >= 1 && vcpus <= host.max_vcpus && (vcpus == 1 || vcpus % 2 == 0) &&
                    memory >= VMM_MEMORY_MIN_MIB && memory <= host.max_memory_mib;
        struct error err = {0};
        struct vmm_spec *spec = decode(dir, body, &err);
        cr_assert_eq(spec != NULL, good, "%s: %s", body, err.msg);
        if (spec != NULL)
            cr_assert(spec->vcpus == vcpus && spec->memory_mib == memory, "%s", body);
        else
            cr_assert_eq(err.code, ERR_FIELD_RANGE, "%s: %s", body, err.msg);
        vmm_spec_free(spec);
    }
    drop_catalogue(dir);
}

Test(vmm_spec, R10_hostile_ids_are_refused)
{
    int dir = make_catalogue();
    char longest[ID_VM_MAX + 2], body[256];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    const char *const bad[] = {"",       ".",   "..",      "../../etc/passwd", "/",    "a/b",
                               "a b",    "%00", "a%2e%2e", "\\u00e9",          "a\\n", "a.b",
                               "a\\\\b", "a:b", longest};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        snprintf(body, sizeof(body), "{\"id\":\"%s\"}", bad[i]);
        refused(dir, body, ERR_ID_INVALID, "id");
    }
    struct error err = {0};
    snprintf(body, sizeof(body), "{\"id\":\"%s\"}", longest + 1);
    struct vmm_spec *spec = decode(dir, body, &err);
    cr_assert_not_null(spec, "64 characters are fine: %s", err.msg);
    cr_assert_str_eq(spec->id, longest + 1);
    vmm_spec_free(spec);
    drop_catalogue(dir);
}

Test(vmm_spec, equal_labels_are_equal_text)
{
    int dir = make_catalogue();
    struct error err = {0};
    struct vmm_spec *one = decode(dir, "{\"labels\":{\"b\":\"2\",\"a\":\"\\\"1\\\"\"}}", &err);
    struct vmm_spec *two = decode(dir, "{\"labels\":{\"a\":\"\\\"1\\\"\",\"b\":\"2\"}}", &err);
    cr_assert(one != NULL && two != NULL, "%s", err.msg);
    cr_assert_str_eq(one->labels, two->labels);
    cr_assert_str_eq(one->labels, "{\"a\":\"\\\"1\\\"\",\"b\":\"2\"}");
    vmm_spec_free(one);
    vmm_spec_free(two);
    drop_catalogue(dir);
}

/* ---- restored ---- */

static struct store_snapshot a_snapshot(const char *disk)
{
    struct store_snapshot snapshot = {.id = "abcdefghij234567abcd",
                                      .image = "formerly-python",
                                      .vcpus = 2,
                                      .memory_mib = 4096, /* more than the host now allows anew */
                                      .disk_mib = 64,
                                      .seccomp = "basic"};
    hash_sha256(disk, strlen(disk), snapshot.image_digest);
    return snapshot;
}

static struct vmm_spec *decode_restored(int dir, const char *body, const char *disk,
                                        struct error *err)
{
    const struct store_snapshot snapshot = a_snapshot(disk);
    cleanup_json cJSON *json = NULL;
    struct vmm_spec *spec = NULL;
    cr_assert_eq(json_parse(body, strlen(body), &json, err), 0, "%s: %s", body, err->msg);
    if (vmm_spec_new_restored(json, &snapshot, dir, &spec, err) < 0)
        cr_assert_null(spec);
    return spec;
}

Test(vmm_spec, R21_what_is_restored_is_made_of_what_its_snapshot_is)
{
    int dir = make_catalogue();
    struct error err = {0};
    struct vmm_spec *spec = decode_restored(
        dir,
        "{\"snapshot\":\"abcdefghij234567abcd\",\"id\":\"clone\",\"ttl_s\":7,"
        "\"idle\":{\"after_s\":5},\"on_unresponsive\":\"delete\",\"labels\":{\"a\":\"b\"}}",
        "disk", &err);
    cr_assert_not_null(spec, "%s", err.msg);
    cr_assert_str_eq(spec->snapshot, "abcdefghij234567abcd");
    cr_assert_str_eq(spec->image.name, "python", "by its digest, whatever it was called");
    cr_assert(spec->vcpus == 2 && spec->memory_mib == 4096 && spec->disk_mib == 64);
    cr_assert_eq(spec->seccomp, PRIV_SECCOMP_BASIC);
    cr_assert_str_eq(spec->id, "clone");
    cr_assert(spec->ttl_s == 7 && spec->idle_s == 5 && spec->on_unresponsive == STORE_DELETE);
    cr_assert_str_eq(spec->labels, "{\"a\":\"b\"}");
    vmm_spec_free(spec);
    spec = decode_restored(dir, "{}", "disk", &err);
    cr_assert_not_null(spec, "%s", err.msg);
    cr_assert(spec->ttl_s == VMM_TTL_DEFAULT_S && spec->idle_s == 0);
    cr_assert(id_vm_valid(spec->id, strlen(spec->id)));
    vmm_spec_free(spec);
    drop_catalogue(dir);
}

Test(vmm_spec, R07_R21_what_is_the_snapshots_is_not_asked_for)
{
    static const struct {
        const char *body;
        enum error_code code;
        const char *names;
    } bad[] = {
        {"{\"image\":\"python\"}", ERR_FIELD_VALUE, "image"},
        {"{\"vcpus\":2}", ERR_FIELD_VALUE, "vcpus"},
        {"{\"memory_mib\":4096}", ERR_FIELD_VALUE, "memory_mib"},
        {"{\"disk_mib\":64}", ERR_FIELD_VALUE, "disk_mib"},
        {"{\"seccomp\":\"basic\"}", ERR_FIELD_VALUE, "seccomp"},
        {"{\"seccomp\":null}", ERR_FIELD_VALUE, "seccomp"},
        {"{\"enable_networking\":true}", ERR_NETWORKING_REFUSED, "network"},
        {"{\"id\":\"../x\"}", ERR_ID_INVALID, "id"},
        {"{\"ttl_s\":0}", ERR_FIELD_RANGE, "ttl_s"},
        {"{\"generation\":1}", ERR_FIELD_UNKNOWN, "generation"},
    };
    int dir = make_catalogue();
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct error err = {0};
        cr_assert_null(decode_restored(dir, bad[i].body, "disk", &err), "%s", bad[i].body);
        cr_assert_eq(err.code, bad[i].code, "%s: %s", bad[i].body, err.msg);
        cr_assert_not_null(strstr(err.msg, bad[i].names), "%s: %s", bad[i].body, err.msg);
    }
    struct error err = {0};
    cr_assert_null(decode_restored(dir, "{}", "another disk", &err));
    cr_assert_eq(err.code, ERR_IMAGE_UNKNOWN, "%s", err.msg);
    drop_catalogue(dir);
}
