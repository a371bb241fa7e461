/* Files and directories into a VM. */
#include "cli/cp.h"
#include "cli/tar.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>

struct sending {
    struct cli_copy *copy;
    int fd;             /* what is read */
    struct cli_tar tar; /* which packs it, or pid -1 */
};

/* Waits where libcurl would not see a signal. */
static int wait_for_input(const struct sending *sending, struct error *err)
{
    struct pollfd all[] = {{.fd = sending->copy->cli->signals, .events = POLLIN},
                           {.fd = sending->fd, .events = POLLIN}};
    while (all[1].revents == 0) {
        if (poll(all, COUNT_OF(all), -1) < 0 && errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "cannot wait for what is to be copied");
        if (all[0].revents != 0 && cli_signal_heed(sending->copy->cli, err) != 0)
            return -1;
    }
    return 0;
}

/* What tar could not read must not look like the archive's end. */
static ssize_t on_read(void *context, char *out, size_t size, struct error *err)
{
    struct sending *sending = context;
    if (wait_for_input(sending, err) != 0)
        return -1;
    ssize_t got = read(sending->fd, out, size);
    if (got < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot read what is to be copied");
    sending->copy->progress.done += got;
    if (got == 0 && sending->tar.pid > 0)
        return cli_tar_end(sending->copy->cli, &sending->tar, err);
    return got;
}

static int on_ready(void *context, int fd, struct error *err)
{
    const struct sending *sending = context;
    cli_progress_show(&sending->copy->progress);
    return fd >= 0 ? cli_signal_heed(sending->copy->cli, err) : 0;
}

/* A path in the VM that ends with `/` is where the copy lies, by its name here. */
static char *path_for(const struct cli_copy *copy, const char *what, const char *query,
                      struct error *err)
{
    cleanup_free char *name = NULL;
    size_t len = strlen(copy->there);
    if (len > 0 && copy->there[len - 1] == '/' && copy->here != NULL &&
        (name = cli_copy_name(copy->here, err)) == NULL)
        return NULL;
    return cli_copy_path(copy, what, name, query, err);
}

static int put(struct sending *sending, const char *path, const char *digest, int64_t length,
               struct error *err)
{
    struct cli_answer cleanup_answer answer = {0};
    bool packed = sending->copy->recursive;
    struct cli_request request = {.method = "PUT",
                                  .path = path,
                                  .type = packed ? "application/x-tar" : "application/octet-stream",
                                  .digest = digest,
                                  .read = on_read,
                                  .length = length,
                                  .ready = on_ready,
                                  .context = sending};
    sending->copy->progress.total = length;
    if (cli_http(sending->copy->cli, &request, &answer, err) != 0)
        return -1;
    return sending->copy->cli->json ? cli_print_json(answer.json, err) : 0;
}

static int send_stream(struct sending *sending, mode_t mode, const char *digest, int64_t length,
                       struct error *err)
{
    const struct cli_copy *copy = sending->copy;
    char query[64] = "";
    const char *parents = copy->parents ? "&parents=true" : "";
    if (copy->recursive)
        snprintf(query, sizeof(query), "%s", parents);
    else
        snprintf(query, sizeof(query), "&mode=%04o%s", mode & 0777u, parents);
    cleanup_free char *path = path_for(copy, copy->recursive ? "archive" : "files", query, err);
    return path != NULL ? put(sending, path, digest, length, err) : -1;
}

/* What has a size is read twice: its digest goes before it. */
static int send_file(struct sending *sending, struct error *err)
{
    const struct cli_copy *copy = sending->copy;
    struct stat status;
    cleanup_close int fd = open(copy->here, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot read %.160s", copy->here);
    if (S_ISDIR(status.st_mode))
        return error_set(err, ERR_CONFIG, 0, "%.160s is a directory: copy it with -r", copy->here);
    sending->fd = fd;
    if (!S_ISREG(status.st_mode))
        return send_stream(sending, 0644, NULL, -1, err);
    uint8_t hash[HASH_SIZE];
    char digest[CLI_DIGEST_SIZE];
    if (hash_sha256_fd(fd, hash, err) != 0 || cli_copy_digest(hash, digest, err) != 0)
        return -1;
    if (lseek(fd, 0, SEEK_SET) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot read %.160s again", copy->here);
    return send_stream(sending, status.st_mode, digest, (int64_t)status.st_size, err);
}

static int send_folder(struct sending *sending, struct error *err)
{
    struct stat status;
    const char *here = sending->copy->here;
    if (stat(here, &status) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot read %.160s", here);
    if (!S_ISDIR(status.st_mode))
        return error_set(err, ERR_CONFIG, 0, "%.160s is no directory: copy it without -r", here);
    if (cli_tar_pack(here, &sending->tar, err) != 0)
        return -1;
    sending->fd = sending->tar.fd;
    return send_stream(sending, 0, NULL, -1, err);
}

int cli_copy_send(struct cli_copy *copy, struct error *err)
{
    struct sending sending = {
        .copy = copy, .fd = STDIN_FILENO, .tar = {.pid = -1, .fd = -1, .said = -1}};
    int failed = copy->here == NULL ? send_stream(&sending, 0644, NULL, -1, err)
                 : copy->recursive  ? send_folder(&sending, err)
                                    : send_file(&sending, err);
    cli_tar_release(&sending.tar);
    return failed;
}
