/* motte-admin kernel: what images boot with. */
#include "admin/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

/* One line of printable text, without the line end. Missing is empty. */
static int read_boot_args(int dir, char out[static IMAGE_BOOT_ARGS_MAX], struct error *err)
{
    ssize_t n = fs_read_at(dir, "boot_args", out, IMAGE_BOOT_ARGS_MAX);
    if (n < 0 && errno == ENOENT) {
        out[0] = '\0';
        return 0;
    }
    if (n < 0)
        return error_set(err, ERR_CONFIG, errno, "Cannot read boot_args (at most %d bytes)",
                         IMAGE_BOOT_ARGS_MAX - 1);
    while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' '))
        out[--n] = '\0';
    for (ssize_t i = 0; i < n; i++)
        if (out[i] < ' ' || out[i] > '~')
            return error_set(err, ERR_CONFIG, 0,
                             "boot_args must be one line of printable ASCII; byte %zd is not", i);
    return 0;
}

/* Copies `file` if it is there and adds its digest to the manifest. 1: copied, 0: not there. */
static int take_file(const struct admin_stage *stage, int dir, const char *file,
                     struct buf *manifest, struct error *err)
{
    cleanup_close int from = openat(dir, file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (from < 0 && errno == ENOENT)
        return 0;
    if (from < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", file);
    uint8_t digest[HASH_SIZE];
    if (admin_stage_copy(stage, from, file, err) < 0 ||
        admin_stage_seal(stage, file, digest, NULL, err) < 0)
        return -1;
    char hex[HASH_HEX_SIZE];
    hash_to_hex(digest, HASH_SIZE, hex);
    if (buf_printf(manifest, "%s = %s\n", file, hex) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    return 1;
}

static int stage_kernel(const struct admin *admin, const struct admin_stage *stage,
                        struct buf *manifest, struct error *err)
{
    cleanup_close int dir = open(admin->operand, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open the directory %s", admin->operand);
    int found = take_file(stage, dir, "vmlinux", manifest, err);
    if (found == 0)
        return error_set(err, ERR_CONFIG, 0, "There is no vmlinux in %s", admin->operand);
    if (found < 0 || take_file(stage, dir, "initrd", manifest, err) < 0 ||
        take_file(stage, dir, "scratch", manifest, err) < 0)
        return -1;
    cleanup_close int vmlinux = openat(stage->dir, "vmlinux", O_RDONLY | O_CLOEXEC);
    if (vmlinux < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open the copy of vmlinux");
    if (admin_elf_check(vmlinux, "vmlinux", err) < 0)
        return -1;
    char boot_args[IMAGE_BOOT_ARGS_MAX];
    if (read_boot_args(dir, boot_args, err) < 0)
        return -1;
    if (boot_args[0] != '\0' && buf_printf(manifest, "boot_args = %s\n", boot_args) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    return 0;
}

/* The manifest says all there is to know about a kernel, so equal text is an equal kernel. */
static bool same_as_published(int state, const char *name, const char *manifest)
{
    char path[64 + ID_NAME_MAX], old[2048];
    (void)snprintf(path, sizeof(path), "kernels/%s/manifest", name);
    return fs_read_at(state, path, old, sizeof(old)) >= 0 && strcmp(old, manifest) == 0;
}

int admin_kernel_add(const struct admin *admin, struct error *err)
{
    cleanup(admin_stage_release) struct admin_stage stage = ADMIN_STAGE_INIT;
    cleanup(buf_release) struct buf manifest = {.max = 2048};
    if (admin->operand == NULL || admin->name == NULL)
        return error_set(err, ERR_CONFIG, 0, "`kernel add` needs DIR and --name NAME");
    if (!id_name_valid(admin->name))
        return error_set(err, ERR_CONFIG, 0,
                         "`%.40s` cannot name a kernel: 1 to %d of [a-z0-9._-], a letter or digit "
                         "first",
                         admin->name, ID_NAME_MAX);
    if (admin_stage_open(admin, &stage, err) < 0 || stage_kernel(admin, &stage, &manifest, err) < 0)
        return -1;
    const char *text = manifest.data != NULL ? manifest.data : "";
    if (same_as_published(stage.state, admin->name, text)) {
        printf("kernel %s is there already\n", admin->name);
        return 0;
    }
    if (admin_stage_publish(&stage, "kernels", admin->name, text, admin->replace, err) < 0)
        return -1;
    printf("kernel %s added\n%s", admin->name, text);
    return 0;
}

static int add_kernel_json(cJSON *list, const struct image_kernel *kernel)
{
    cJSON *one = cJSON_CreateObject();
    if (one == NULL || !cJSON_AddItemToArray(list, one)) {
        cJSON_Delete(one);
        return -1;
    }
    char hex[HASH_HEX_SIZE];
    hash_to_hex(kernel->vmlinux, HASH_SIZE, hex);
    return json_add_string(one, "name", kernel->name) | json_add_string(one, "vmlinux", hex) |
           json_add_bool(one, "initrd", kernel->has_initrd) |
           json_add_bool(one, "scratch", kernel->has_scratch) |
           json_add_string(one, "boot_args", kernel->boot_args);
}

static int collect_kernels(int state, cJSON *list, struct error *err)
{
    int fd = openat(state, "kernels", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return error_set(err, ERR_SYSTEM, errno, "Cannot read the kernels");
    int result = 0;
    for (struct dirent *entry; result == 0 && (entry = readdir(dir)) != NULL;) {
        struct image_kernel kernel;
        if (!id_name_valid(entry->d_name))
            continue;
        result = image_kernel_load(state, entry->d_name, &kernel, err);
        if (result == 0 && add_kernel_json(list, &kernel) != 0)
            result = error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    }
    closedir(dir);
    return result;
}

static const char *text_of(const cJSON *object, const char *name)
{
    const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, name));
    return text != NULL ? text : "";
}

int admin_kernel_only(int state, char out[static ID_NAME_MAX + 1], struct error *err)
{
    cleanup_json cJSON *list = cJSON_CreateArray();
    char names[160] = "";
    if (list == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    if (collect_kernels(state, list, err) < 0)
        return -1;
    const cJSON *one;
    cJSON_ArrayForEach(one, list)
    {
        size_t len = strlen(names);
        snprintf(names + len, sizeof(names) - len, "%s%s", len == 0 ? "" : ", ",
                 text_of(one, "name"));
    }
    if (cJSON_GetArraySize(list) == 0)
        return error_set(err, ERR_CONFIG, 0,
                         "There is no kernel to boot an image with: add one, `motted kernel add`");
    if (cJSON_GetArraySize(list) > 1)
        return error_set(err, ERR_CONFIG, 0, "Say with --kernel which of these boots it: %s",
                         names);
    snprintf(out, ID_NAME_MAX + 1, "%.*s", ID_NAME_MAX, names);
    return 0;
}

static bool is_true(const cJSON *object, const char *name)
{
    return cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(object, name));
}

int admin_kernel_list(const struct admin *admin, struct error *err)
{
    cleanup_close int state = open(admin->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", admin->state_dir);
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *list = json == NULL ? NULL : cJSON_AddArrayToObject(json, "kernels");
    if (list == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    if (collect_kernels(state, list, err) < 0)
        return -1;
    if (admin->json) {
        cleanup_free char *text = json_print(json);
        if (text == NULL)
            return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
        puts(text);
        return 0;
    }
    printf("%-32s %-7s %-8s %.16s  %s\n", "NAME", "INITRD", "SCRATCH", "VMLINUX         ",
           "BOOT ARGUMENTS");
    const cJSON *one;
    cJSON_ArrayForEach(one, list) printf(
        "%-32s %-7s %-8s %.16s  %s\n", text_of(one, "name"), is_true(one, "initrd") ? "yes" : "no",
        is_true(one, "scratch") ? "yes" : "no", text_of(one, "vmlinux"), text_of(one, "boot_args"));
    return 0;
}

int admin_kernel_remove(const struct admin *admin, struct error *err)
{
    cleanup(admin_stage_release) struct admin_stage stage = ADMIN_STAGE_INIT;
    if (admin->operand == NULL || !id_name_valid(admin->operand))
        return error_set(err, ERR_CONFIG, 0, "`kernel remove` needs the NAME of a kernel");
    cleanup_free struct image *images = NULL;
    size_t count = 0;
    if (admin_stage_open(admin, &stage, err) < 0 ||
        image_list(stage.state, &images, &count, err) < 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (strcmp(images[i].kernel, admin->operand) == 0)
            return error_set(err, ERR_CONFIG, 0,
                             "Image `%s` boots with kernel `%s`: remove the image first",
                             images[i].name, admin->operand);
    if (admin_stage_retract(&stage, "kernels", admin->operand, err) < 0)
        return -1;
    printf("kernel %s removed\n", admin->operand);
    return 0;
}
