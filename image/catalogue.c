/* Listing and finding: the directory is read anew each time, so there is nothing to keep in step.
 */
#include "image/internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

struct names {
    size_t count;
    char name[IMAGE_MAX][ID_NAME_MAX + 1];
};

static void cleanup_dir(DIR **dir)
{
    if (*dir != NULL)
        closedir(*dir);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int add_name(struct names *names, const char *name, struct error *err)
{
    if (name[0] == '.') /* what is still being made */
        return 0;
    if (!id_name_valid(name))
        return error_set(err, ERR_CONFIG, 0,
                         "images/%.64s is not a valid name: remove it from the state directory",
                         name);
    if (names->count == IMAGE_MAX)
        return error_set(err, ERR_CONFIG, 0, "there are more than %d images: remove some",
                         IMAGE_MAX);
    memcpy(names->name[names->count++], name, strlen(name) + 1);
    return 0;
}

static int read_names(int state, struct names *names, struct error *err)
{
    names->count = 0;
    cleanup_close int fd = fs_open_beneath(state, "images", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && errno == ENOENT)
        return 0;
    cleanup(cleanup_dir) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (dir == NULL)
        return error_set(err, ERR_CONFIG, errno, "the image catalogue cannot be read");
    (void)TAKE_FD(fd); /* the directory stream's now */
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (entry == NULL && errno != 0)
            return error_set(err, ERR_SYSTEM, errno, "the image catalogue cannot be read");
        if (entry == NULL)
            break;
        if (add_name(names, entry->d_name, err) < 0)
            return -1;
    }
    qsort(names->name, names->count, sizeof(names->name[0]), by_name);
    return 0;
}

/* On failure err->sys is ENOENT if the directory itself is not there. */
static int load(int state, const char *name, struct image *ret, struct error *err)
{
    struct image image = {0};
    cleanup_close int entry = image_entry_open(state, "images", name, err);
    if (entry < 0)
        return -1;
    if (image_manifest_image(entry, &image, err) < 0) {
        if (err->sys == ENOENT) /* of a file in it */
            err->sys = 0;
        return error_wrap(err, "images/%s", name);
    }
    memcpy(image.name, name, strlen(name) + 1);
    *ret = image;
    return 0;
}

int image_list(int state, struct image **ret, size_t *ret_count, struct error *err)
{
    cleanup_free struct names *names = malloc(sizeof(*names));
    cleanup_free struct image *images = calloc(IMAGE_MAX, sizeof(*images));
    if (names == NULL || images == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while listing images");
    if (read_names(state, names, err) < 0)
        return -1;
    size_t count = 0;
    for (size_t i = 0; i < names->count; i++) {
        struct error failure = {0};
        if (load(state, names->name[i], &images[count], &failure) == 0) {
            count++;
        } else if (failure.sys != ENOENT) { /* else it was removed after we read its name */
            *err = failure;
            return -1;
        }
    }
    *ret = TAKE_PTR(images);
    *ret_count = count;
    return 0;
}

static int refuse_unknown(int state, const char *what, struct error *err)
{
    cleanup_free struct names *names = malloc(sizeof(*names));
    struct error ignored = {0};
    if (names == NULL || read_names(state, names, &ignored) < 0 || names->count == 0)
        return error_set(err, ERR_IMAGE_UNKNOWN, 0,
                         "there is no image %s: add one with `motted image`", what);
    char list[128] = "";
    for (size_t i = 0, at = 0; i < names->count; i++) {
        if (at + strlen(names->name[i]) + sizeof(", …") > sizeof(list)) {
            snprintf(list + at, sizeof(list) - at, ", …");
            break;
        }
        at += (size_t)snprintf(list + at, sizeof(list) - at, "%s%s", i == 0 ? "" : ", ",
                               names->name[i]);
    }
    return error_set(err, ERR_IMAGE_UNKNOWN, 0, "there is no image %s; there is: %s", what, list);
}

int image_find(int state, const char *name, struct image *ret, struct error *err)
{
    /* A name that is not one is not quoted: it may be anything a caller sent. */
    if (!id_name_valid(name))
        return refuse_unknown(state, "of that name", err);
    struct error failure = {0};
    if (load(state, name, ret, &failure) == 0)
        return 0;
    if (failure.sys != ENOENT) {
        *err = failure;
        return -1;
    }
    char what[ID_NAME_MAX + 3];
    snprintf(what, sizeof(what), "`%s`", name);
    return refuse_unknown(state, what, err);
}

int image_find_digest(int state, const uint8_t digest[static HASH_SIZE], struct image *ret,
                      struct error *err)
{
    cleanup_free struct names *names = malloc(sizeof(*names));
    if (names == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while finding an image");
    if (read_names(state, names, err) < 0)
        return -1;
    struct error broken = {0};
    for (size_t i = 0; i < names->count; i++) {
        struct image image;
        struct error failure = {0};
        if (load(state, names->name[i], &image, &failure) < 0) {
            broken = failure; /* one broken entry must not hide the others */
        } else if (memcmp(image.digest, digest, HASH_SIZE) == 0) {
            *ret = image;
            return 0;
        }
    }
    if (broken.code != ERR_NONE && broken.sys != ENOENT) {
        *err = broken;
        return -1;
    }
    return refuse_unknown(state, "with that digest", err);
}

int image_kernel_load(int state, const char *name, struct image_kernel *ret, struct error *err)
{
    struct image_kernel kernel = {0};
    cleanup_close int entry = image_entry_open(state, "kernels", name, err);
    if (entry < 0)
        return -1;
    if (image_manifest_kernel(entry, &kernel, err) < 0)
        return error_wrap(err, "kernels/%s", name);
    memcpy(kernel.name, name, strlen(name) + 1);
    *ret = kernel;
    return 0;
}
