/* Listing, finding and manifests. */
#include "tests/unit/image/catalogue.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/stat.h>

static struct catalogue catalogue;

static void start(void)
{
    catalogue_init(&catalogue);
}

static void stop(void)
{
    catalogue_release(&catalogue);
}

TestSuite(image, .init = start, .fini = stop);

static enum error_code list(size_t *ret_count, struct error *err)
{
    struct image *images = NULL;
    *ret_count = 0;
    if (image_list(catalogue.fd, &images, ret_count, err) == 0)
        free(images);
    return err->code;
}

Test(image, no_catalogue_is_an_empty_list)
{
    size_t count = 7;
    struct error err = {0};
    cr_assert_eq(list(&count, &err), ERR_NONE, "%s", err.msg);
    cr_assert_eq(count, 0);
}

Test(image, lists_by_name_and_skips_what_is_being_made)
{
    catalogue_image(&catalogue, "python", "p");
    catalogue_image(&catalogue, "alpine", "a");
    catalogue_image(&catalogue, "node", "n");
    catalogue_write(&catalogue, "images/.new-1/disk", "half written");
    struct image *images = NULL;
    size_t count = 0;
    struct error err = {0};
    cr_assert_eq(image_list(catalogue.fd, &images, &count, &err), 0, "%s", err.msg);
    cr_assert_eq(count, 3);
    cr_assert_str_eq(images[0].name, "alpine");
    cr_assert_str_eq(images[1].name, "node");
    cr_assert_str_eq(images[2].name, "python");
    cr_assert_str_eq(images[2].kernel, "k1");
    cr_assert_eq(images[2].size, 1);
    cr_assert_eq(images[2].created_wall_ms, 1000);
    uint8_t digest[HASH_SIZE];
    catalogue_digest("p", digest);
    cr_assert_arr_eq(images[2].digest, digest, HASH_SIZE);
    free(images);
}

Test(image, an_unknown_image_is_refused_with_the_names_there_are)
{
    struct image image;
    struct error err = {0};
    cr_assert_eq(image_find(catalogue.fd, "x", &image, &err), -1);
    cr_assert_eq(err.code, ERR_IMAGE_UNKNOWN);
    catalogue_image(&catalogue, "python", "p");
    catalogue_image(&catalogue, "node", "n");
    err = (struct error){0};
    cr_assert_eq(image_find(catalogue.fd, "x", &image, &err), -1);
    cr_assert_eq(err.code, ERR_IMAGE_UNKNOWN);
    cr_assert_not_null(strstr(err.msg, "node, python"), "%s", err.msg);
    err = (struct error){0};
    cr_assert_eq(image_find(catalogue.fd, "node", &image, &err), 0, "%s", err.msg);
    cr_assert_str_eq(image.name, "node");
}

Test(image, very_many_names_do_not_overrun_the_message)
{
    for (int i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "an-image-of-a-long-name-%02d", i);
        catalogue_image(&catalogue, name, name);
    }
    struct image image;
    struct error err = {0};
    cr_assert_eq(image_find(catalogue.fd, "x", &image, &err), -1);
    cr_assert_eq(err.code, ERR_IMAGE_UNKNOWN);
    cr_assert_not_null(strstr(err.msg, "…"), "%s", err.msg);
}

Test(image, R10_a_name_cannot_leave_the_catalogue)
{
    catalogue_image(&catalogue, "python", "p");
    catalogue_write(&catalogue, "secret/manifest", "digest = 00\n");
    static const char *const names[] = {
        "../secret",
        "..",
        ".",
        "",
        "/etc",
        "python/../../secret",
        "python/",
        "Python",
        "caf\xc3\xa9",
        "python\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        struct image image;
        struct image_kernel kernel;
        uint8_t digest[HASH_SIZE] = {0};
        struct error find = {0}, load = {0}, open_err = {0};
        cr_assert_eq(image_find(catalogue.fd, names[i], &image, &find), -1, "%s", names[i]);
        cr_assert_eq(find.code, ERR_IMAGE_UNKNOWN, "%s", find.msg);
        cr_assert_eq(image_kernel_load(catalogue.fd, names[i], &kernel, &load), -1, "%s", names[i]);
        cr_assert_eq(image_open(catalogue.fd, NULL, IMAGE_DISK, names[i], digest, &open_err), -1,
                     "%s", names[i]);
    }
}

Test(image, found_by_digest_even_beside_a_broken_entry)
{
    catalogue_image(&catalogue, "python", "p");
    catalogue_image(&catalogue, "node", "n");
    catalogue_write(&catalogue, "images/broken/manifest", "nonsense");
    uint8_t digest[HASH_SIZE];
    struct image image;
    struct error err = {0};
    catalogue_digest("p", digest);
    cr_assert_eq(image_find_digest(catalogue.fd, digest, &image, &err), 0, "%s", err.msg);
    cr_assert_str_eq(image.name, "python");
    catalogue_digest("none", digest);
    cr_assert_eq(image_find_digest(catalogue.fd, digest, &image, &err), -1);
    cr_assert_eq(err.code, ERR_CONFIG, "a broken entry may be the one: %s", err.msg);
    cr_assert_not_null(strstr(err.msg, "broken"), "%s", err.msg);
}

#define DIGEST "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

Test(image, a_manifest_of_any_other_form_is_refused_by_name)
{
    static const char *const bad[] = {
        "",
        "digest = " DIGEST "\nsize = 1\nkernel = k\n",
        "digest = " DIGEST "\nkernel = k\ncreated = 1\n",
        "digest = " DIGEST "\nsize = 1\ncreated = 1\n",
        "size = 1\nkernel = k\ncreated = 1\n",
        "digest = ba78\nsize = 1\nkernel = k\ncreated = 1\n",
        "digest = " DIGEST "00\nsize = 1\nkernel = k\ncreated = 1\n",
        "digest = ../../../etc/passwd\nsize = 1\nkernel = k\ncreated = 1\n",
        "digest = " DIGEST "\nsize = -1\nkernel = k\ncreated = 1\n",
        "digest = " DIGEST "\nsize = 1\nkernel = ../k\ncreated = 1\n",
        "digest = " DIGEST "\nsize = 1\nkernel = \ncreated = 1\n",
        "digest = " DIGEST "\nsize = 1\nkernel = k\ncreated = soon\n",
        "digest = " DIGEST "\nsize = 1\nkernel = k\ncreated = 1\nmode = 0777\n",
        "digest = " DIGEST "\nsize = 1\nsize = 1\nkernel = k\ncreated = 1\n",
        "digest " DIGEST "\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        size_t count = 0;
        struct image image;
        struct error listing = {0}, finding = {0};
        catalogue_write(&catalogue, "images/odd/manifest", bad[i]);
        cr_assert_eq(list(&count, &listing), ERR_CONFIG, "%s", bad[i]);
        cr_assert_not_null(strstr(listing.msg, "images/odd"), "%s", listing.msg);
        cr_assert_eq(image_find(catalogue.fd, "odd", &image, &finding), -1);
        cr_assert_eq(finding.code, ERR_CONFIG, "%s", finding.msg);
    }
}

Test(image, a_manifest_that_is_too_long_or_holds_a_nul_is_refused)
{
    size_t count = 0;
    struct error err = {0};
    char text[6000];
    memset(text, '#', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    catalogue_write(&catalogue, "images/odd/manifest", text);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    cr_assert_not_null(strstr(err.msg, "longer"), "%s", err.msg);
    catalogue_image(&catalogue, "odd", "x");
    int fd = openat(catalogue.fd, "images/odd/manifest", O_WRONLY | O_APPEND | O_CLOEXEC);
    cr_assert_eq(fs_write_all(fd, "\0", 1), 0);
    close(fd);
    err = (struct error){0};
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    cr_assert_not_null(strstr(err.msg, "NUL"), "%s", err.msg);
}

Test(image, R21_a_manifest_others_could_have_written_is_refused)
{
    size_t count = 0;
    struct error err = {0};
    catalogue_image(&catalogue, "odd", "x");
    cr_assert_eq(list(&count, &err), ERR_NONE, "%s", err.msg);
    cr_assert_eq(fchmodat(catalogue.fd, "images/odd/manifest", 0646, 0), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    err = (struct error){0};
    cr_assert_eq(fchmodat(catalogue.fd, "images/odd/manifest", 0664, 0), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    err = (struct error){0};
    cr_assert_eq(fchmodat(catalogue.fd, "images/odd/manifest", 0644, 0), 0);
    cr_assert_eq(list(&count, &err), ERR_NONE, "%s", err.msg);
    cr_assert_eq(fchownat(catalogue.fd, "images/odd/manifest", 1000, 0, 0), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    err = (struct error){0};
    cr_assert_eq(fchownat(catalogue.fd, "images/odd/manifest", 0, 0, 0), 0);
    cr_assert_eq(fchmodat(catalogue.fd, "images/odd", 0777, 0), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG, "a directory in which others swap files");
}

Test(image, R21_links_and_other_files_in_place_of_an_entry_are_refused)
{
    size_t count = 0;
    struct error err = {0};
    catalogue_image(&catalogue, "good", "x");
    cr_assert_eq(symlinkat("good", catalogue.fd, "images/link"), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    cr_assert_not_null(strstr(err.msg, "link"), "%s", err.msg);
    cr_assert_eq(unlinkat(catalogue.fd, "images/link", 0), 0);
    err = (struct error){0};
    catalogue_image(&catalogue, "odd", "x");
    cr_assert_eq(unlinkat(catalogue.fd, "images/odd/manifest", 0), 0);
    cr_assert_eq(symlinkat("../good/manifest", catalogue.fd, "images/odd/manifest"), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    err = (struct error){0};
    cr_assert_eq(unlinkat(catalogue.fd, "images/odd/manifest", 0), 0);
    cr_assert_eq(mkfifoat(catalogue.fd, "images/odd/manifest", 0444), 0);
    cr_assert_eq(list(&count, &err), ERR_CONFIG, "and does not hang");
    err = (struct error){0};
    catalogue_write(&catalogue, "images/Bad Name/manifest", "");
    cr_assert_eq(list(&count, &err), ERR_CONFIG);
    cr_assert_not_null(strstr(err.msg, "Bad Name"), "%s", err.msg);
}

Test(image, kernels_have_optional_parts)
{
    struct image_kernel kernel;
    struct error err = {0};
    catalogue_write(&catalogue, "kernels/small/manifest", "vmlinux = " DIGEST "\n");
    catalogue_write(&catalogue, "kernels/big/manifest",
                    "vmlinux = " DIGEST "\ninitrd = " DIGEST "\nscratch = " DIGEST
                    "\nboot_args = console=ttyS0 quiet\n");
    cr_assert_eq(image_kernel_load(catalogue.fd, "small", &kernel, &err), 0, "%s", err.msg);
    cr_assert_not(kernel.has_initrd || kernel.has_scratch);
    cr_assert_str_eq(kernel.boot_args, "");
    cr_assert_eq(image_kernel_load(catalogue.fd, "big", &kernel, &err), 0, "%s", err.msg);
    cr_assert(kernel.has_initrd && kernel.has_scratch);
    cr_assert_str_eq(kernel.boot_args, "console=ttyS0 quiet");
    cr_assert_str_eq(kernel.name, "big");
    cr_assert_eq(image_kernel_load(catalogue.fd, "none", &kernel, &err), -1);
    cr_assert_eq(err.code, ERR_CONFIG);
}

Test(image, kernel_arguments_are_bounded_printable_text)
{
    char text[200 + IMAGE_BOOT_ARGS_MAX] = "vmlinux = " DIGEST "\nboot_args = ";
    struct image_kernel kernel;
    size_t start_of_args = strlen(text);
    memset(text + start_of_args, 'a', IMAGE_BOOT_ARGS_MAX - 1);
    struct error err = {0};
    catalogue_write(&catalogue, "kernels/k/manifest", text);
    cr_assert_eq(image_kernel_load(catalogue.fd, "k", &kernel, &err), 0, "%s", err.msg);
    cr_assert_eq(strlen(kernel.boot_args), IMAGE_BOOT_ARGS_MAX - 1);
    strcat(text, "a");
    catalogue_write(&catalogue, "kernels/k/manifest", text);
    cr_assert_eq(image_kernel_load(catalogue.fd, "k", &kernel, &err), -1);
    err = (struct error){0};
    catalogue_write(&catalogue, "kernels/k/manifest",
                    "vmlinux = " DIGEST "\nboot_args = a\x1b[2Jb\n");
    cr_assert_eq(image_kernel_load(catalogue.fd, "k", &kernel, &err), -1);
    cr_assert_eq(err.code, ERR_CONFIG);
}
