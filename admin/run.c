/* Other programs, run by argv. */
#include "admin/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

static int spawn(const char *const *argv, int out, pid_t *ret)
{
    posix_spawn_file_actions_t actions;
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0)
        return code;
    code = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (code == 0)
        code = posix_spawn_file_actions_adddup2(&actions, out, 1);
    if (code == 0) /* posix_spawn takes char *const *, and does not write to it */
        code = posix_spawnp(ret, argv[0], &actions, NULL, (char *const *)(uintptr_t)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static void drain(int fd, char *out, size_t size)
{
    char rest[4096];
    size_t len = 0;
    for (;;) {
        bool full = len + 1 >= size;
        ssize_t n = full ? read(fd, rest, sizeof(rest)) : read(fd, out + len, size - len - 1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        if (!full)
            len += (size_t)n;
    }
    out[len] = '\0';
}

int admin_run(const char *const *argv, char *out, size_t size, struct error *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot make a pipe");
    cleanup_close int read_end = ends[0];
    cleanup_close int write_end = ends[1];
    pid_t pid = -1;
    int code = spawn(argv, write_end, &pid);
    if (code != 0)
        return error_set(err, ERR_SYSTEM, code, "Cannot run %s", argv[0]);
    close(TAKE_FD(write_end));
    drain(read_end, out, size);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return error_set(err, ERR_SYSTEM, errno, "Cannot wait for %s", argv[0]);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool admin_find_program(const char *name, char out[static 256])
{
    const char *path = getenv("PATH");
    char folders[4096];
    int n = snprintf(folders, sizeof(folders), "%s:/usr/local/bin:/usr/bin:/usr/sbin",
                     path != NULL ? path : "");
    if (n < 0 || (size_t)n >= sizeof(folders))
        return false;
    char *rest = folders;
    for (char *folder; (folder = strsep(&rest, ":")) != NULL;) {
        n = snprintf(out, 256, "%s/%s", folder, name);
        if (folder[0] == '/' && n > 0 && n < 256 && access(out, X_OK) == 0)
            return true;
    }
    return false;
}
