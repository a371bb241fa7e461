/* motte-admin image: what VMs are made from. */
#include "admin/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

enum { SQUASHFS_MAGIC = 0x73717368, SQUASHFS_SUPERBLOCK = 96, SECTOR = 512 };

static uint64_t little_endian(const uint8_t *bytes, size_t count)
{
    uint64_t number = 0;
    for (size_t i = 0; i < count; i++)
        number |= (uint64_t)bytes[i] << (8 * i);
    return number;
}

/* Magic and length: a truncated download is refused here, not found out by a guest. */
static int check_squashfs(int fd, const char *where, struct error *err)
{
    uint8_t head[SQUASHFS_SUPERBLOCK];
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot look at %s", where);
    if (pread(fd, head, sizeof(head), 0) != (ssize_t)sizeof(head) ||
        little_endian(head, 4) != SQUASHFS_MAGIC)
        return error_set(err, ERR_CONFIG, 0,
                         "%s is not a squashfs: give a directory to have it packed, or --raw if "
                         "the guest knows what this is",
                         where);
    uint64_t used = little_endian(head + 40, 8);
    if (used > (uint64_t)st.st_size)
        return error_set(err, ERR_CONFIG, 0,
                         "%s is cut short: its file system has %" PRIu64 " bytes, the file %" PRIu64
                         "; copy it again",
                         where, used, (uint64_t)st.st_size);
    return 0;
}

static int check_sectors(int fd, const char *where, struct error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot look at %s", where);
    if (st.st_size == 0 || st.st_size % SECTOR != 0)
        return error_set(err, ERR_CONFIG, 0,
                         "%s has %" PRIu64 " bytes: a disk is a whole number of 512-byte sectors; "
                         "pad it with `truncate -s %%512`",
                         where, (uint64_t)st.st_size);
    return 0;
}

/* Without times of today, so that the same directory gives the same digest. */
static int pack_directory(const struct admin *admin, const struct admin_stage *stage,
                          struct error *err)
{
    char target[512], words[256];
    int n = snprintf(target, sizeof(target), "%s/incoming/%s/disk", admin->state_dir, stage->name);
    if (n < 0 || (size_t)n >= sizeof(target))
        return error_set(err, ERR_CONFIG, 0, "--state-dir is too long");
    char source[512];
    n = snprintf(source, sizeof(source), "%s%s", admin->operand[0] == '/' ? "" : "./",
                 admin->operand);
    if (n < 0 || (size_t)n >= sizeof(source))
        return error_set(err, ERR_CONFIG, 0, "The directory's path is too long");
    const char *const argv[] = {"mksquashfs",   source,       target, "-noappend", "-quiet",
                                "-no-progress", "-mkfs-time", "0",    NULL};
    int status = admin_run(argv, words, sizeof(words), err);
    if (status < 0)
        return error_wrap(err, "Packing %s needs squashfs-tools (apt install squashfs-tools)",
                          admin->operand);
    if (status > 0)
        return error_set(err, ERR_SYSTEM, 0, "mksquashfs ended with status %d on %s", status,
                         admin->operand);
    return 0;
}

static int stage_disk(const struct admin *admin, const struct admin_stage *stage, struct error *err)
{
    cleanup_close int from = open(admin->operand, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (from < 0 || fstat(from, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", admin->operand);
    if (S_ISDIR(st.st_mode))
        return pack_directory(admin, stage, err);
    if (!admin->raw && check_squashfs(from, admin->operand, err) < 0)
        return -1;
    if (check_sectors(from, admin->operand, err) < 0)
        return -1;
    return admin_stage_copy(stage, from, "disk", err);
}

/* Between the halves an image travels as its digest, so a digest has one kernel. */
static int check_digest_free(const struct admin *admin, int state,
                             const uint8_t digest[static HASH_SIZE], struct error *err)
{
    struct image other;
    struct error ignored = {0};
    if (image_find_digest(state, digest, &other, &ignored) < 0)
        return 0;
    if (strcmp(other.name, admin->name) == 0 || strcmp(other.kernel, admin->kernel) == 0)
        return 0;
    return error_set(err, ERR_CONFIG, 0,
                     "The same disk is there as `%s` with kernel `%s`: use that kernel, or remove "
                     "that image first",
                     other.name, other.kernel);
}

/* Adding again what is there already changes nothing: scripts may repeat themselves. */
static bool same_as_published(const struct admin *admin, int state,
                              const uint8_t digest[static HASH_SIZE])
{
    struct image old;
    struct error ignored = {0};
    return image_find(state, admin->name, &old, &ignored) == 0 &&
           memcmp(old.digest, digest, HASH_SIZE) == 0 && strcmp(old.kernel, admin->kernel) == 0;
}

/* ./build/python.sqfs is called python unless --name says otherwise. */
static void name_of_file(const char *path, char out[static 256])
{
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    size_t start = len;
    while (start > 0 && path[start - 1] != '/')
        start--;
    snprintf(out, 256, "%.*s", (int)(len - start), path + start);
    char *dot = strrchr(out, '.');
    if (dot != NULL && dot != out)
        *dot = '\0';
}

static int check_arguments(const struct admin *admin, struct error *err)
{
    if (!id_name_valid(admin->name))
        return error_set(err, ERR_CONFIG, 0,
                         "`%.40s` cannot name an image: give --name with 1 to %d of [a-z0-9._-], a "
                         "letter or digit first",
                         admin->name, ID_NAME_MAX);
    if (admin->kernel != NULL && !id_name_valid(admin->kernel))
        return error_set(err, ERR_CONFIG, 0, "`%.40s` cannot name a kernel", admin->kernel);
    return 0;
}

int admin_image_add(const struct admin *given, struct error *err)
{
    cleanup(admin_stage_release) struct admin_stage stage = ADMIN_STAGE_INIT;
    struct admin filled = *given;
    const struct admin *admin = &filled;
    struct image_kernel kernel;
    uint8_t digest[HASH_SIZE];
    uint64_t size = 0;
    char name[256], only[ID_NAME_MAX + 1];
    if (given->operand == NULL)
        return error_set(err, ERR_CONFIG, 0, "`image add` needs FILE or DIR");
    name_of_file(given->operand, name);
    filled.name = given->name != NULL ? given->name : name;
    if (check_arguments(admin, err) < 0 || admin_stage_open(admin, &stage, err) < 0)
        return -1;
    if (given->kernel == NULL && admin_kernel_only(stage.state, only, err) < 0)
        return -1;
    filled.kernel = given->kernel != NULL ? given->kernel : only;
    if (image_kernel_load(stage.state, admin->kernel, &kernel, err) < 0)
        return error_wrap(err, "Add the kernel first, `motted kernel add`");
    if (stage_disk(admin, &stage, err) < 0 ||
        admin_stage_seal(&stage, "disk", digest, &size, err) < 0)
        return -1;
    char hex[HASH_HEX_SIZE];
    hash_to_hex(digest, HASH_SIZE, hex);
    bool same = same_as_published(admin, stage.state, digest);
    if (!same) {
        char manifest[512];
        (void)snprintf(manifest, sizeof(manifest),
                       "digest = %s\nsize = %" PRIu64 "\nkernel = %s\ncreated = %" PRId64 "\n", hex,
                       size, admin->kernel, clock_wall_ms());
        if (check_digest_free(admin, stage.state, digest, err) < 0 ||
            admin_stage_publish(&stage, "images", admin->name, manifest, admin->replace, err) < 0)
            return -1;
    }
    printf("image %s %s: sha256 %s, %" PRIu64 " bytes, kernel %s\n", admin->name,
           same ? "is there already" : "added", hex, size, admin->kernel);
    return 0;
}

static int print_images(const struct image *images, size_t count)
{
    printf("%-32s %12s  %-20s %-24s %s\n", "NAME", "BYTES", "KERNEL", "CREATED", "SHA-256");
    for (size_t i = 0; i < count; i++) {
        char hex[HASH_HEX_SIZE], created[25];
        hash_to_hex(images[i].digest, HASH_SIZE, hex);
        clock_format(images[i].created_wall_ms, created);
        printf("%-32s %12" PRIu64 "  %-20s %-24s %s\n", images[i].name, images[i].size,
               images[i].kernel, created, hex);
    }
    return 0;
}

static int print_images_json(const struct image *images, size_t count, struct error *err)
{
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *list = json == NULL ? NULL : cJSON_AddArrayToObject(json, "images");
    int failed = list == NULL ? -1 : 0;
    for (size_t i = 0; i < count && failed == 0; i++) {
        cJSON *one = cJSON_CreateObject();
        if (one == NULL || !cJSON_AddItemToArray(list, one)) {
            cJSON_Delete(one);
            failed = -1;
            break;
        }
        char hex[HASH_HEX_SIZE], created[25];
        hash_to_hex(images[i].digest, HASH_SIZE, hex);
        clock_format(images[i].created_wall_ms, created);
        failed = json_add_string(one, "name", images[i].name) |
                 json_add_string(one, "digest", hex) |
                 json_add_number(one, "size", (double)images[i].size) |
                 json_add_string(one, "kernel", images[i].kernel) |
                 json_add_string(one, "created", created);
    }
    cleanup_free char *text = failed == 0 ? json_print(json) : NULL;
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory");
    puts(text);
    return 0;
}

int admin_image_list(const struct admin *admin, struct error *err)
{
    cleanup_close int state = open(admin->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (state < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", admin->state_dir);
    cleanup_free struct image *images = NULL;
    size_t count = 0;
    if (image_list(state, &images, &count, err) < 0)
        return -1;
    return admin->json ? print_images_json(images, count, err) : print_images(images, count);
}

int admin_image_remove(const struct admin *admin, struct error *err)
{
    cleanup(admin_stage_release) struct admin_stage stage = ADMIN_STAGE_INIT;
    if (admin->operand == NULL || !id_name_valid(admin->operand))
        return error_set(err, ERR_CONFIG, 0, "`image remove` needs the NAME of an image");
    if (admin_stage_open(admin, &stage, err) < 0 ||
        admin_stage_retract(&stage, "images", admin->operand, err) < 0)
        return -1;
    printf("image %s removed\n", admin->operand);
    return 0;
}
