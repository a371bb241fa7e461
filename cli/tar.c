/* The host's tar at the other end of a pipe. */
#include "cli/tar.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

struct ends {
    int ours[2], theirs[2]; /* of the stream and of stderr; -1: none */
};

static void close_all(const int fds[2])
{
    for (size_t i = 0; i < 2; i++)
        if (fds[i] >= 0)
            close(fds[i]);
}

static int open_ends(bool packs, struct ends *ret)
{
    int stream[2], said[2] = {-1, -1};
    if (pipe2(stream, O_CLOEXEC) != 0)
        return -1;
    if (!packs && (pipe2(said, O_CLOEXEC) != 0 || fcntl(stream[1], F_SETFL, O_NONBLOCK) != 0)) {
        close_all(stream);
        close_all(said);
        return -1;
    }
    *ret = (struct ends){.ours = {stream[packs ? 0 : 1], said[0]},
                         .theirs = {stream[packs ? 1 : 0], said[1]}};
    return 0;
}

/* Signals are as this program found them: it blocks them for itself alone. */
static int spawn(const char *const *argv, const struct ends *ends, bool packs, pid_t *ret)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends->theirs[0],
                                     packs ? STDOUT_FILENO : STDIN_FILENO);
    if (ends->theirs[1] >= 0)
        posix_spawn_file_actions_adddup2(&actions, ends->theirs[1], STDERR_FILENO);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigdefault(&attributes, &defaults);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
    /* takes char *const *, and does not write to it */
    int failed =
        posix_spawnp(ret, argv[0], &actions, &attributes, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static int start(const char *const *argv, bool packs, struct cli_tar *ret, struct error *err)
{
    struct ends ends;
    unsetenv("TAR_OPTIONS"); /* might tell it to trust names */
    if (open_ends(packs, &ends) != 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot make a pipe to tar");
    pid_t pid = -1;
    int failed = spawn(argv, &ends, packs, &pid);
    close_all(ends.theirs);
    if (failed != 0) {
        close_all(ends.ours);
        return error_set(err, ERR_SYSTEM, failed, "cannot start tar, which copies directories");
    }
    *ret = (struct cli_tar){.pid = pid, .fd = ends.ours[0], .said = ends.ours[1]};
    return 0;
}

int cli_tar_pack(const char *folder, struct cli_tar *ret, struct error *err)
{
    const char *const argv[] = {"tar", "-C", folder, "--format=pax", "-cf", "-", ".", NULL};
    return start(argv, true, ret, err);
}

int cli_tar_unpack(const char *folder, struct cli_tar *ret, struct error *err)
{
    const char *const argv[] = {"tar",
                                "-C",
                                folder,
                                "--no-same-owner",
                                "--no-same-permissions",
                                "--no-acls",
                                "--no-selinux",
                                "--no-xattrs",
                                "--delay-directory-restore",
                                "--warning=no-timestamp",
                                "--warning=no-unknown-keyword",
                                "-xf",
                                "-",
                                NULL};
    return start(argv, false, ret, err);
}

/* 0: it has closed its stderr, and said nothing. */
static int complaint(struct cli_tar *tar, struct error *err)
{
    char said[200];
    ssize_t got = read(tar->said, said, sizeof(said) - 1);
    if (got == 0)
        return 0;
    said[got > 0 ? got : 0] = '\0';
    said[strcspn(said, "\n")] = '\0';
    return error_set(err, ERR_ARCHIVE, 0, "nothing is kept of what the VM packed: %s", said);
}

/* Waits for `fd` (or -1) and for what it says: 1: it has said its last; 0: `fd` is ready. */
static int wait_for(const struct cli *cli, struct cli_tar *tar, int fd, struct error *err)
{
    struct pollfd all[] = {{.fd = cli->signals, .events = POLLIN},
                           {.fd = tar->said, .events = POLLIN},
                           {.fd = fd, .events = POLLOUT}};
    if (poll(all, COUNT_OF(all), -1) < 0 && errno != EINTR)
        return error_set(err, ERR_SYSTEM, errno, "cannot wait for tar");
    if (all[0].revents != 0 && cli_signal_heed(cli, err) != 0)
        return -1;
    if (all[1].revents != 0)
        return complaint(tar, err) == 0 ? 1 : -1;
    return 0;
}

int cli_tar_give(const struct cli *cli, struct cli_tar *tar, const char *data, size_t len,
                 struct error *err)
{
    while (len > 0) {
        int ended = wait_for(cli, tar, tar->fd, err);
        if (ended < 0)
            return -1;
        ssize_t done = ended != 0 ? -1 : write(tar->fd, data, len);
        if (ended != 0)
            return error_set(err, ERR_ARCHIVE, 0, "tar ended before the archive did");
        if (done < 0 && errno != EAGAIN && errno != EINTR && errno != EPIPE)
            return error_set(err, ERR_SYSTEM, errno, "cannot write to tar");
        data += done > 0 ? done : 0;
        len -= done > 0 ? (size_t)done : 0;
    }
    return 0;
}

int cli_tar_end(const struct cli *cli, struct cli_tar *tar, struct error *err)
{
    close(TAKE_FD(tar->fd));
    for (int ended = tar->said < 0; ended != 1;)
        if ((ended = wait_for(cli, tar, -1, err)) < 0)
            return -1;
    int status;
    while (waitpid(tar->pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "cannot wait for tar");
    tar->pid = -1;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    return error_set(err, ERR_SYSTEM, 0, "tar did not copy all of it");
}

void cli_tar_release(struct cli_tar *tar)
{
    if (tar->pid > 0) {
        kill(tar->pid, SIGKILL);
        while (waitpid(tar->pid, NULL, 0) < 0 && errno == EINTR)
            continue;
    }
    close_all((const int[2]){tar->fd, tar->said});
    *tar = (struct cli_tar){.pid = -1, .fd = -1, .said = -1};
}
