/* SIGHUP to the motted that runs, and its answer: RUN/reloaded, which it writes after each reload
 * (motted/reload.c). */
#include "admin/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

enum { PATIENCE_MS = 10000, PAUSE_MS = 20, WORD_SIZE = 1024 };

/* Whoever holds the lock that motted holds as long as it lives; 0: nobody. */
static pid_t holder(int lock)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(lock, F_GETLK, &whole) == 0 && whole.l_type != F_UNLCK ? whole.l_pid : 0;
}

/* Not to a process that has the number since. */
static bool hang_up(int lock)
{
    pid_t pid = holder(lock);
    cleanup_close int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    return fd >= 0 && holder(lock) == pid &&
           syscall(SYS_pidfd_send_signal, fd, SIGHUP, NULL, 0) == 0;
}

/* What motted says of a reload that began after `asked_us`, and so read what was there by then; NULL:
 * nothing yet. A word of one that was under way may come in between. */
static const char *read_word(int run, int64_t asked_us, char word[static WORD_SIZE])
{
    char *text = NULL;
    if (fs_read_at(run, "reloaded", word, WORD_SIZE) < 0)
        return NULL;
    return strtoll(word, &text, 10) >= asked_us && *text == ' ' ? text : NULL;
}

int admin_reload(const struct admin *admin, struct error *err)
{
    char word[WORD_SIZE];
    cleanup_close int run = open(admin->run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cleanup_close int lock = run < 0 ? -1 : openat(run, "motted.lock", O_RDWR | O_CLOEXEC);
    if (lock < 0 || holder(lock) == 0) {
        fprintf(stderr, "motted does not run: it holds from its next start on\n");
        return 0;
    }
    const int64_t asked_us = clock_mono_us();
    if (!hang_up(lock))
        return error_set(err, ERR_SYSTEM, errno, "Cannot tell motted: reload it");
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    const char *text = NULL;
    while ((text = read_word(run, asked_us, word)) == NULL && clock_left_ms(deadline) > 0)
        poll(NULL, 0, PAUSE_MS);
    if (text == NULL) /* its lock is there before it listens */
        return error_set(err, ERR_SYSTEM, 0, "motted did not answer: look into its log");
    fprintf(stderr, "motted%s", text);
    bool taken = strncmp(text, " reloaded", strlen(" reloaded")) == 0;
    bool ours = strstr(text, admin->token_file) != NULL;
    if (taken && !ours)
        fprintf(stderr, "it does not read %s: give --token-file as its configuration has it\n",
                admin->token_file);
    return taken && ours ? 0 : 1;
}
