/* The doctor's look at programs, users and the catalogue. */
#include "admin/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>

/* Path given by an option, or found; false if neither is there to run. */
static bool locate(const char *given, const char *name, char path[static 256])
{
    if (given == NULL)
        return admin_find_program(name, path);
    (void)snprintf(path, 256, "%.255s", given);
    return access(path, X_OK) == 0;
}

/* First line of `PROGRAM --version`. */
static bool version_of(const char *path, char *line, size_t size)
{
    const char *const argv[] = {path, "--version", NULL};
    struct error ignored = {0};
    if (admin_run(argv, line, size, &ignored) != 0)
        return false;
    line[strcspn(line, "\n")] = '\0';
    return line[0] != '\0';
}

/* Versions whose filter file Motte writes: 1.12 to 1.14. */
static bool version_known(const char *line)
{
    static const char *const known[] = {" v1.12.", " v1.13.", " v1.14."};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (strstr(line, known[i]) != NULL)
            return true;
    return false;
}

static void check_firecracker(struct admin_report *report, const char *given, const char *name)
{
    char path[256], line[128];
    if (!locate(given, name, path))
        admin_report_add(report, name, ADMIN_LACKS, ADMIN_FIRECRACKER,
                         "run deploy/fetch-firecracker.sh, or give its path", "not found");
    else if (!version_of(path, line, sizeof(line)))
        admin_report_add(report, name, ADMIN_LACKS, ADMIN_FIRECRACKER,
                         "fetch it again with deploy/fetch-firecracker.sh",
                         "%.100s does not tell its version", path);
    else if (!version_known(line))
        admin_report_add(report, name, ADMIN_WARN, ADMIN_NOBODY,
                         "Motte is made for 1.12: with others only seccomp level `minimal` (the "
                         "built-in filter) is offered",
                         "%.100s: %.100s", path, line);
    else
        admin_report_add(report, name, ADMIN_OK, ADMIN_NOBODY, NULL, "%.100s: %.100s", path, line);
}

static void check_qemu(struct admin_report *report, const char *given)
{
    char path[256], line[128];
    if (locate(given, "qemu-system-x86_64", path) && version_of(path, line, sizeof(line)))
        admin_report_add(report, "qemu", ADMIN_OK, ADMIN_NOBODY, NULL, "%.100s: %.100s", path,
                         line);
    else
        admin_report_add(report, "qemu", ADMIN_LACKS, ADMIN_EMULATION,
                         "needed for `motted --dev` only: apt install qemu-system-x86",
                         "not found");
}

void admin_doctor_programs(const struct admin *admin, struct admin_report *report)
{
    check_firecracker(report, admin->firecracker, "firecracker");
    check_firecracker(report, admin->jailer, "jailer");
    check_qemu(report, admin->qemu);
}

static bool overlaps(const struct admin *admin, uint64_t first, uint64_t count)
{
    uint64_t base = admin->uid_base;
    return count > 0 && first < base + admin->uid_count && base < first + count;
}

static bool find_user(const struct admin *admin, char out[static 128])
{
    cleanup_file FILE *passwd = fopen("/etc/passwd", "re");
    const struct passwd *entry;
    while (passwd != NULL && (entry = fgetpwent(passwd)) != NULL)
        if (overlaps(admin, entry->pw_uid, 1)) {
            (void)snprintf(out, 128, "user %.32s has uid %u", entry->pw_name, entry->pw_uid);
            return true;
        }
    return false;
}

/* Lines of name:first:count. */
static bool find_subordinate(const struct admin *admin, char out[static 128])
{
    cleanup_file FILE *subuid = fopen("/etc/subuid", "re");
    cleanup_free char *line = NULL;
    size_t size = 0;
    while (subuid != NULL && getline(&line, &size, subuid) > 0) {
        line[strcspn(line, "\n")] = '\0';
        char *first = strchr(line, ':');
        char *count = first != NULL ? strchr(first + 1, ':') : NULL;
        if (count != NULL &&
            overlaps(admin, strtoull(first + 1, NULL, 10), strtoull(count + 1, NULL, 10))) {
            (void)snprintf(out, 128, "/etc/subuid has %.100s", line);
            return true;
        }
    }
    return false;
}

void admin_doctor_users(const struct admin *admin, struct admin_report *report)
{
    const struct passwd *motte = getpwnam("motte");
    if (motte != NULL)
        admin_report_add(report, "user motte", ADMIN_OK, ADMIN_NOBODY, NULL, "uid %u",
                         motte->pw_uid);
    else
        admin_report_add(report, "user motte", ADMIN_WARN, ADMIN_NOBODY,
                         "useradd --system --no-create-home --shell /usr/sbin/nologin motte (or "
                         "name another with --front-user)",
                         "there is none");
    char collision[128];
    uint32_t last = admin->uid_base + admin->uid_count - 1;
    if (!find_user(admin, collision) && !find_subordinate(admin, collision))
        admin_report_add(report, "uids of VMs", ADMIN_OK, ADMIN_NOBODY, NULL,
                         "%u to %u are nobody else's", admin->uid_base, last);
    else
        admin_report_add(report, "uids of VMs", ADMIN_LACKS, ADMIN_BOTH,
                         "choose another range with --uid-base, or move that user",
                         "%u to %u are taken: %s", admin->uid_base, last, collision);
}

void admin_doctor_catalogue(const struct admin *admin, struct admin_report *report)
{
    static const char *const remedy =
        "motte-admin kernel add, then image add (deploy/quickstart.sh "
        "does both)";
    struct error err = {0};
    cleanup_close int state = open(admin->state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_free struct image *images = NULL;
    size_t count = 0;
    if (state < 0) {
        admin_report_add(report, "images", ADMIN_WARN, ADMIN_NOBODY, remedy, "%.150s: %s",
                         admin->state_dir, strerror(errno));
        return;
    }
    int failed = image_list(state, &images, &count, &err);
    for (size_t i = 0; failed == 0 && i < count; i++) {
        struct image_kernel kernel;
        failed = image_kernel_load(state, images[i].kernel, &kernel, &err);
    }
    if (failed != 0)
        admin_report_add(report, "images", ADMIN_WARN, ADMIN_NOBODY, remedy, "%.250s", err.msg);
    else if (count == 0)
        admin_report_add(report, "images", ADMIN_WARN, ADMIN_NOBODY, remedy, "none in %.200s",
                         admin->state_dir);
    else
        admin_report_add(report, "images", ADMIN_OK, ADMIN_NOBODY, NULL, "%zu, the first is %s",
                         count, images[0].name);
}
