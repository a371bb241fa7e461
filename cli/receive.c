/* Files and directories out of a VM: whole under their names, or not at all. */
#include "cli/cp.h"
#include "cli/tar.h"
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static const char temporary[] = ".motte-XXXXXX";

struct receiving {
    struct cli_copy *copy;
    int fd;             /* what is written; -1: it goes to tar */
    struct hash *hash;  /* or NULL */
    struct cli_tar tar; /* pid -1: none */
    char *target;       /* owned, as is the name beside it under which it comes */
    char *temp;
};

static int on_write(void *context, const char *data, size_t len, struct error *err)
{
    struct receiving *receiving = context;
    receiving->copy->progress.done += (int64_t)len;
    if (receiving->tar.pid > 0)
        return cli_tar_give(receiving->copy->cli, &receiving->tar, data, len, err);
    if (receiving->hash != NULL)
        hash_add(receiving->hash, data, len);
    if (fs_write_all(receiving->fd, data, len) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot write the copy");
    return 0;
}

static int on_ready(void *context, int fd, struct error *err)
{
    const struct receiving *receiving = context;
    cli_progress_show(&receiving->copy->progress);
    return fd >= 0 ? cli_signal_heed(receiving->copy->cli, err) : 0;
}

static int get(struct receiving *receiving, const char *path, struct cli_answer *ret,
               struct error *err)
{
    struct cli_request request = {
        .method = "GET", .path = path, .write = on_write, .ready = on_ready, .context = receiving};
    return cli_http(receiving->copy->cli, &request, ret, err);
}

/* Of a file that is too large to have a digest beforehand its length must do. */
static int ask_for_file(struct receiving *receiving, struct cli_answer *ret, struct error *err)
{
    cleanup_free char *path = cli_copy_path(receiving->copy, "files", NULL, "", err);
    cleanup_free char *with_digest = NULL;
    if (path == NULL)
        return -1;
    if (asprintf(&with_digest, "%s&digest=sha-256", path) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    int failed = get(receiving, with_digest, ret, err);
    if (failed == 0 && ret->digest[0] == '\0')
        return error_set(err, ERR_DIGEST, 0, "the service sent no digest of the file");
    if (failed == 0 || err->code != ERR_QUERY)
        return failed;
    *err = (struct error){0};
    return get(receiving, path, ret, err);
}

/* Bytes that are not those of the digest are an error. */
static int get_file(struct receiving *receiving, struct error *err)
{
    struct cli_answer cleanup_answer answer = {0};
    uint8_t hash[HASH_SIZE];
    char digest[CLI_DIGEST_SIZE];
    if ((receiving->hash = hash_new()) == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a digest");
    if (ask_for_file(receiving, &answer, err) != 0)
        return -1;
    hash_end(receiving->hash, hash);
    if (cli_copy_digest(hash, digest, err) != 0)
        return -1;
    if (answer.digest[0] == '\0' ? answer.length == receiving->copy->progress.done
                                 : strcmp(digest, answer.digest) == 0)
        return 0;
    return error_set(err, ERR_DIGEST, 0,
                     "what came is not what its digest says: the file became another while it was "
                     "read. Copy it again");
}

static int get_archive(struct receiving *receiving, struct error *err)
{
    cleanup_free char *path = cli_copy_path(receiving->copy, "archive", NULL, "", err);
    return path != NULL ? get(receiving, path, NULL, err) : -1;
}

/* ---- names ------------------------------------------------------------------------------------- */

/* A directory is what the copy is put into, by its name in the VM. */
static int find_target(struct receiving *receiving, struct error *err)
{
    struct stat status;
    const char *here = receiving->copy->here;
    bool into = stat(here, &status) == 0 && S_ISDIR(status.st_mode);
    cleanup_free char *name = into ? cli_copy_name(receiving->copy->there, err) : NULL;
    if (into && name == NULL)
        return -1;
    int len = asprintf(&receiving->target, "%s%s%s", here, into ? "/" : "", into ? name : "");
    while (len > 1 && receiving->target[len - 1] == '/')
        receiving->target[--len] = '\0';
    const char *slash = len > 0 ? strrchr(receiving->target, '/') : NULL;
    int folder = slash != NULL ? (int)(slash - receiving->target) + 1 : 0;
    if (len < 0 || asprintf(&receiving->temp, "%.*s%s", folder, receiving->target, temporary) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    return 0;
}

static mode_t mask(mode_t mode)
{
    mode_t own = umask(0);
    umask(own);
    return mode & ~own;
}

static int rename_it(const struct receiving *receiving, struct error *err)
{
    if (rename(receiving->temp, receiving->target) == 0)
        return 0;
    return error_set(err, ERR_SYSTEM, errno, "cannot name the copy %.160s", receiving->target);
}

/* ---- files ------------------------------------------------------------------------------------- */

/* Its mode is that of the file it replaces, or a new file's. */
static int fill_file(struct receiving *receiving, mode_t mode, struct error *err)
{
    if (get_file(receiving, err) != 0)
        return -1;
    if (fchmod(receiving->fd, mode) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot give the copy its permissions");
    return rename_it(receiving, err);
}

static int receive_file(struct receiving *receiving, struct error *err)
{
    struct stat status;
    if (find_target(receiving, err) != 0)
        return -1;
    bool there = lstat(receiving->target, &status) == 0;
    if (there && !S_ISREG(status.st_mode) && !S_ISLNK(status.st_mode))
        return error_set(err, ERR_CONFIG, 0,
                         "%.160s is no file that could be replaced: write to it through -",
                         receiving->target);
    mode_t mode = there && S_ISREG(status.st_mode) ? status.st_mode & 0777 : mask(0666);
    receiving->fd = mkostemp(receiving->temp, O_CLOEXEC);
    if (receiving->fd < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot make a file for %.140s",
                         receiving->target);
    int failed = fill_file(receiving, mode, err);
    close(receiving->fd);
    if (failed != 0)
        unlink(receiving->temp);
    return failed;
}

/* ---- directories -------------------------------------------------------------------------------- */

/* Nobody else may look into it before it is tame. */
static int fill_folder(struct receiving *receiving, int dir, struct error *err)
{
    if (cli_tar_unpack(receiving->temp, &receiving->tar, err) != 0)
        return -1;
    int failed = get_archive(receiving, err);
    if (failed == 0)
        failed = cli_tar_end(receiving->copy->cli, &receiving->tar, err);
    cli_tar_release(&receiving->tar);
    struct error strange = {0};
    int untamed = cli_tree_tame(dir, &strange);
    if (failed == 0 && untamed != 0)
        *err = strange;
    if (failed != 0 || untamed != 0)
        return -1;
    if (fchmod(dir, mask(0777)) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot give the copy its permissions");
    return rename_it(receiving, err);
}

static int receive_folder(struct receiving *receiving, struct error *err)
{
    struct stat status;
    if (find_target(receiving, err) != 0)
        return -1;
    if (lstat(receiving->target, &status) == 0)
        return error_set(err, ERR_CONFIG, 0, "%.160s is there: a directory replaces nothing",
                         receiving->target);
    if (mkdtemp(receiving->temp) == NULL)
        return error_set(err, ERR_SYSTEM, errno, "cannot make a directory for %.140s",
                         receiving->target);
    cleanup_close int dir = open(receiving->temp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    int failed = dir >= 0
                     ? fill_folder(receiving, dir, err)
                     : error_set(err, ERR_SYSTEM, errno, "cannot open %.160s", receiving->temp);
    if (failed != 0)
        fs_remove_tree(AT_FDCWD, receiving->temp);
    return failed;
}

int cli_copy_receive(struct cli_copy *copy, struct error *err)
{
    struct receiving receiving = {
        .copy = copy, .fd = STDOUT_FILENO, .tar = {.pid = -1, .fd = -1, .said = -1}};
    int failed;
    if (copy->here == NULL)
        failed = copy->recursive ? get_archive(&receiving, err) : get_file(&receiving, err);
    else
        failed = copy->recursive ? receive_folder(&receiving, err) : receive_file(&receiving, err);
    hash_free(receiving.hash);
    free(receiving.target);
    free(receiving.temp);
    return failed;
}
