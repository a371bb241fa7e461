/* What only root can do and what is done once: find the front and its user, directories, the lock,
 * limits, modules. */
#include "motted/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

int motted_find_program(const char *name, char out[static MOTTED_TEXT_MAX], struct error *err)
{
    static const char *const places[] = {"../libexec/motte", "."};
    char self[MOTTED_TEXT_MAX], path[2 * MOTTED_TEXT_MAX];
    ssize_t len = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[len < 0 ? 0 : len] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    for (size_t i = 0; slash != NULL && i < COUNT_OF(places); i++) {
        snprintf(path, sizeof(path), "%s/%s/%s", self, places[i], name);
        if (access(path, X_OK) == 0 && strlen(path) < MOTTED_TEXT_MAX) {
            memcpy(out, path, strlen(path) + 1);
            return 0;
        }
    }
    return error_set(err, ERR_CONFIG, 0, "%s is neither in %s/../libexec/motte nor in %s", name,
                     self, self);
}

int motted_find_front(const struct motted_config *config, struct motted_front *front,
                      struct error *err)
{
    const char *name = config->front_user;
    errno = 0;
    const struct passwd *user = getpwnam(name);
    if (user == NULL)
        return error_set(err, ERR_CONFIG, 0,
                         "there is no user `%s` for the front; make it: useradd --system "
                         "--user-group --no-create-home --shell /usr/sbin/nologin %s",
                         name, name);
    if (user->pw_uid == 0 || user->pw_gid == 0)
        return error_set(err, ERR_CONFIG, 0, "the front must not run as root or in its group");
    front->uid = user->pw_uid;
    front->gid = user->pw_gid;
    snprintf(front->name, sizeof(front->name), "%s", name);
    if (config->front[0] == '\0')
        return motted_find_program("motte-front", front->path, err);
    if (access(config->front, X_OK) < 0)
        return error_set(err, ERR_CONFIG, errno, "looking for the front %s", config->front);
    snprintf(front->path, sizeof(front->path), "%s", config->front);
    return 0;
}

static int make_directory(const char *parent, const char *name, mode_t mode, uid_t uid, gid_t gid,
                          struct error *err)
{
    char path[MOTTED_TEXT_MAX + 16];
    snprintf(path, sizeof(path), "%s/%s", parent, name);
    if (fs_mkdir_p(path, 0755) < 0)
        return error_set(err, ERR_CONFIG, errno, "making %s", path);
    cleanup_close int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fchown(fd, uid, gid) < 0 || fchmod(fd, mode) < 0)
        return error_set(err, ERR_CONFIG, errno, "making %s", path);
    return 0;
}

int motted_make_directories(const struct motted_config *config, const struct motted_front *front,
                            struct error *err)
{
    if (make_directory(config->run_dir, ".", 0755, 0, 0, err) < 0 ||
        make_directory(config->state_dir, ".", 0755, 0, 0, err) < 0 ||
        make_directory(config->state_dir, "images", 0755, 0, 0, err) < 0 ||
        make_directory(config->state_dir, "kernels", 0755, 0, 0, err) < 0)
        return -1;
    return make_directory(config->state_dir, "front", 0700, front->uid, front->gid, err);
}

int motted_lock(const char *run_dir, struct error *err)
{
    char path[MOTTED_TEXT_MAX + 16];
    if (fs_mkdir_p(run_dir, 0755) < 0)
        return error_set(err, ERR_CONFIG, errno, "making %s", run_dir);
    snprintf(path, sizeof(path), "%s/motted.lock", run_dir);
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(err, ERR_CONFIG, errno, "opening %s", path);
    /* A lock of the process, not of the open file: a VM's process that is being made has a copy of
     * the file for a moment, and shall not keep the next motted out when this one is killed. */
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_SETLK, &whole) < 0)
        return errno == EACCES || errno == EAGAIN
                   ? error_set(err, ERR_CONFIG, 0,
                               "another motted runs with the run-dir %s; stop it first, or give "
                               "this one directories and a cgroup of its own",
                               run_dir)
                   : error_set(err, ERR_CONFIG, errno, "locking %s", path);
    return TAKE_FD(fd);
}

/* A VM takes three descriptors here and some ten in the front. Without CAP_SYS_RESOURCE (a
 * container) the hard limit stays as it is, and fewer VMs fit. */
int motted_raise_limits(struct error *err)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return error_set(err, ERR_SYSTEM, errno, "reading the limit of open files");
    struct rlimit wanted = {MOTTED_FILES_MAX, MOTTED_FILES_MAX};
    if (limit.rlim_max >= MOTTED_FILES_MAX)
        wanted.rlim_max = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &wanted) == 0)
        return 0;
    log_warn(
        "open files stay limited to %llu instead of %d; raise the limit (LimitNOFILE=) for more "
        "VMs",
        (unsigned long long)limit.rlim_max, MOTTED_FILES_MAX);
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        return error_set(err, ERR_SYSTEM, errno, "raising the limit of open files");
    return 0;
}

/* Where they are built in, or modprobe is missing, there is nothing to do: netfilter_open tells. */
void motted_load_modules(void)
{
    char program[] = "modprobe", all[] = "-a", quiet[] = "-q", v4[] = "ip_tables",
         v6[] = "ip6_tables", security4[] = "iptable_security", security6[] = "ip6table_security",
         path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *argv[] = {program, all, quiet, v4, v6, security4, security6, NULL};
    char *environment[] = {path, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;
    if (posix_spawn_file_actions_init(&actions) != 0)
        return;
    posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    if (posix_spawnp(&pid, program, &actions, NULL, argv, environment) == 0)
        waitpid(pid, NULL, 0);
    posix_spawn_file_actions_destroy(&actions);
}
