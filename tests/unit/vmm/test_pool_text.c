/* What a pool is of, as the configuration says it. */
#include "vmm/vmm.h"

#include <criterion/criterion.h>

static void refused(const char *text, const char *says)
{
    struct vmm_pool_targets targets = {0};
    struct error err = {0};
    cr_assert_eq(vmm_pool_add(&targets, text, &err), -1, "%s was taken", text);
    cr_assert(err.code == ERR_CONFIG && targets.count == 0, "%s", text);
    cr_assert_not_null(strstr(err.msg, says), "%s: `%s` does not say `%s`", text, err.msg, says);
    cr_assert_not_null(strstr(err.msg, "pool"), "%s: %s", text, err.msg);
}

Test(vmm_pool_text, R20_what_is_left_out_is_as_in_a_spec)
{
    struct vmm_pool_targets targets = {0};
    struct error err = {0};
    cr_assert_eq(vmm_pool_add(&targets, "python,min=3", &err), 0, "%s", err.msg);
    const struct vmm_pool_target *first = &targets.of[0];
    cr_assert(strcmp(first->image, "python") == 0 && first->vcpus == 1 &&
              first->memory_mib == VMM_MEMORY_DEFAULT_MIB && first->disk_mib == 0 &&
              strcmp(first->seccomp, "minimal") == 0 && first->min == 3 && first->max == 3);
    cr_assert_eq(vmm_pool_add(&targets,
                              "a.b-c,max=8,seccomp=basic,disk-mib=64,memory-mib=512,vcpus=4,min=0",
                              &err),
                 0, "%s", err.msg);
    const struct vmm_pool_target *second = &targets.of[1];
    cr_assert(strcmp(second->image, "a.b-c") == 0 && second->vcpus == 4 &&
              second->memory_mib == 512 && second->disk_mib == 64 &&
              strcmp(second->seccomp, "basic") == 0 && second->min == 0 && second->max == 8);
    cr_assert_eq(targets.count, 2);
}

Test(vmm_pool_text, R20_what_is_wrong_is_named)
{
    refused("", "image name");
    refused("Python,min=1", "image name");
    refused("python", "min is missing");
    refused("python,max=2", "min is missing");
    refused("python,min=1,", "key=value");
    refused("python,min=1,min=1", "min stands twice");
    refused("python,min=1,seccomp=basic,seccomp=basic", "seccomp stands twice");
    refused("python,min=1,memory=5", "`memory`");
    refused("python,min=1,memory-mib=127", "memory-mib");
    refused("python,min=257", "min");
    refused("python,min=1x", "min");
    refused("python,min=-1", "min");
    refused("python,min=", "min");
    refused("python,min=0", "max");
    refused("python,min=2,max=1", "max");
    refused("python,min=1,vcpus=3", "vcpus");
    refused("python,min=1,vcpus=33", "vcpus");
    refused("python,min=1,seccomp=none", "seccomp");
    refused("python,min=1,disk-mib=1048577", "disk-mib");
    char longer[PRIV_POOL_SIZE + 1];
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    refused(longer, "characters");
}

Test(vmm_pool_text, R20_two_of_the_same_and_too_many_are_refused)
{
    struct vmm_pool_targets targets = {0};
    struct error err = {0};
    cr_assert_eq(vmm_pool_add(&targets, "python,min=1", &err), 0);
    cr_assert_eq(vmm_pool_add(&targets, "python,vcpus=1,min=2,max=9", &err), -1);
    cr_assert_not_null(strstr(err.msg, "the same"), "%s", err.msg);
    for (int i = 1; i < VMM_POOLS_MAX; i++) {
        char text[64];
        err = (struct error){0};
        snprintf(text, sizeof(text), "python-%d,min=1", i);
        cr_assert_eq(vmm_pool_add(&targets, text, &err), 0, "%s", err.msg);
    }
    cr_assert_eq(vmm_pool_add(&targets, "one-more,min=1", &err), -1);
    cr_assert_not_null(strstr(err.msg, "at most"), "%s", err.msg);
}
