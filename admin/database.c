/* motte-admin backup, restore: copies of the inventory. Its directory is the front's own, so whoever
 * took the front over chose what lies there: SQLite runs as the front's user, and root only lends
 * the file outside. */
#include "admin/internal.h"

#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sys/file.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

struct database {
    char dir[256];
    int fd; /* of that directory */
    uid_t uid;
    gid_t gid;
    int file; /* the operand: to write into, or to read */
    char aside[STORE_ASIDE_SIZE];
};

static int find(const struct admin *admin, struct database *ret, struct error *err)
{
    struct stat st;
    if (admin->operand == NULL)
        return error_set(err, ERR_CONFIG, 0, "The name of the copy's file is missing");
    if (geteuid() != 0)
        return error_set(err, ERR_SYSTEM, 0, "The inventory is the service's: run this as root");
    int len = snprintf(ret->dir, sizeof(ret->dir), "%s/front", admin->state_dir);
    if (len < 0 || (size_t)len >= sizeof(ret->dir))
        return error_set(err, ERR_CONFIG, 0, "--state-dir: this path is too long");
    ret->fd = open(ret->dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (ret->fd < 0 || fstat(ret->fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno,
                         "Cannot open %s (motted makes it at its first start)", ret->dir);
    if (st.st_uid == 0 || st.st_gid == 0)
        return error_set(err, ERR_CONFIG, 0, "%s is root's, not the front's", ret->dir);
    if (flock(ret->fd, LOCK_EX | LOCK_NB) < 0)
        return error_set(err, ERR_SYSTEM, 0, "Another backup or restore is at work; wait for it");
    ret->uid = st.st_uid;
    ret->gid = st.st_gid;
    return 0;
}

static void database_release(struct database *database)
{
    cleanup_close_func(&database->fd);
    cleanup_close_func(&database->file);
}

static int copy_file(int from, int to, struct error *err)
{
    enum { CHUNK = 1 << 20 };
    ssize_t n;
    while ((n = sendfile(to, from, NULL, CHUNK)) > 0)
        continue;
    if (n < 0 || fsync(to) < 0)
        return error_set(err, errno == ENOSPC ? ERR_STORE_FULL : ERR_SYSTEM, errno,
                         "Cannot copy the file");
    return 0;
}

/* ---- as the front's user ---- */

static int become(const struct database *database, struct error *err)
{
    if (setgroups(0, NULL) < 0 || setresgid(database->gid, database->gid, database->gid) < 0 ||
        setresuid(database->uid, database->uid, database->uid) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot become the front's user");
    return 0;
}

static int write_backup(struct database *database, struct error *err)
{
    static const char name[] = "backup.part";
    if (store_backup(database->dir, name, err) < 0)
        return -1;
    cleanup_close int from = openat(database->fd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    unlinkat(database->fd, name, 0);
    if (from < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open the copy");
    return copy_file(from, database->file, err);
}

static int take_backup(struct database *database, struct error *err)
{
    static const char name[] = "restore.part";
    unlinkat(database->fd, name, 0);
    cleanup_close int to =
        openat(database->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make %s/%s", database->dir, name);
    if (copy_file(database->file, to, err) == 0 &&
        store_restore(database->dir, name, database->aside, err) == 0)
        return 0;
    unlinkat(database->fd, name, 0);
    return -1;
}

/* What the child tells: its error, or what was set aside. */
struct told {
    struct error err;
    char aside[STORE_ASIDE_SIZE];
};

__attribute__((noreturn)) static void child(struct database *database, int out,
                                            int (*work)(struct database *, struct error *))
{
    struct told told = {0};
    if (become(database, &told.err) == 0 && work(database, &told.err) == 0)
        memcpy(told.aside, database->aside, sizeof(told.aside));
    _exit(fs_write_all(out, &told, sizeof(told)) == 0 ? 0 : 1);
}

static int as_front(struct database *database, int (*work)(struct database *, struct error *),
                    struct error *err)
{
    int ends[2], status = 0;
    struct told told = {0};
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make a pipe");
    cleanup_close int in = ends[0];
    cleanup_close int out = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot start a process");
    if (pid == 0)
        child(database, out, work);
    close(TAKE_FD(out));
    ssize_t n = read(in, &told, sizeof(told));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n != (ssize_t)sizeof(told))
        return error_set(err, ERR_INTERNAL, 0, "The process that does the work ended early");
    *err = told.err;
    memcpy(database->aside, told.aside, sizeof(told.aside));
    return err->code == ERR_NONE ? 0 : -1;
}

/* ---- commands ---- */

int admin_backup(const struct admin *admin, struct error *err)
{
    cleanup(database_release) struct database database = {.fd = -1, .file = -1};
    struct stat st;
    if (find(admin, &database, err) < 0)
        return -1;
    database.file =
        open(admin->operand, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (database.file < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make %.120s", admin->operand);
    if (as_front(&database, write_backup, err) < 0 || fstat(database.file, &st) < 0) {
        unlink(admin->operand);
        return -1;
    }
    printf("%s: %lld bytes\n", admin->operand, (long long)st.st_size);
    return 0;
}

/* The lock that motted holds as long as it lives (motted/prepare.c): held here, none starts. */
static int keep_motted_out(const struct admin *admin, struct error *err)
{
    char path[256];
    if (fs_mkdir_p(admin->run_dir, 0755) < 0 ||
        snprintf(path, sizeof(path), "%s/motted.lock", admin->run_dir) >= (int)sizeof(path))
        return error_set(err, ERR_CONFIG, errno, "Cannot make %s", admin->run_dir);
    cleanup_close int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fd < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %s", path);
    if (fcntl(fd, F_SETLK, &whole) < 0)
        return error_set(err, ERR_CONFIG, 0,
                         "motted runs: stop it first (systemctl stop motted; VMs run on)");
    return TAKE_FD(fd);
}

int admin_restore(const struct admin *admin, struct error *err)
{
    cleanup(database_release) struct database database = {.fd = -1, .file = -1};
    if (find(admin, &database, err) < 0)
        return -1;
    cleanup_close int lock = keep_motted_out(admin, err);
    if (lock < 0)
        return -1;
    database.file = open(admin->operand, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (database.file < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %.120s", admin->operand);
    if (as_front(&database, take_backup, err) < 0)
        return -1;
    printf("restored; start motted now\n");
    if (database.aside[0] != '\0')
        printf("what was there is kept as %s/%.*s\n", database.dir, STORE_ASIDE_SIZE,
               database.aside);
    return 0;
}
