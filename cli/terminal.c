/* The terminal: its settings, its size, signals, and a line that says how far something is. */
#include "cli/internal.h"
#include <errno.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>

enum { SHOW_AFTER_US = 300000, SHOW_EVERY_US = 100000 };

struct cli_terminal {
    struct termios before;
};

struct cli_terminal *cli_terminal_raw(bool signals, struct error *err)
{
    struct cli_terminal *terminal = calloc(1, sizeof(*terminal));
    if (terminal == NULL || tcgetattr(STDIN_FILENO, &terminal->before) != 0) {
        error_set(err, ERR_SYSTEM, errno, "cannot read the terminal's settings");
        free(terminal);
        return NULL;
    }
    struct termios raw = terminal->before;
    cfmakeraw(&raw);
    if (signals) {
        raw.c_lflag |= ISIG;
        raw.c_oflag |= OPOST;
    }
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) != 0) {
        error_set(err, ERR_SYSTEM, errno, "cannot change the terminal's settings");
        free(terminal);
        return NULL;
    }
    return terminal;
}

void cli_terminal_restore(struct cli_terminal *terminal)
{
    if (terminal != NULL)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &terminal->before);
    free(terminal);
}

void cli_terminal_size(unsigned *ret_rows, unsigned *ret_columns)
{
    struct winsize size;
    *ret_rows = 24;
    *ret_columns = 80;
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
        *ret_rows = size.ws_row;
        *ret_columns = size.ws_col;
    }
}

int cli_signal_take(const struct cli *cli)
{
    struct signalfd_siginfo info;
    ssize_t got = read(cli->signals, &info, sizeof(info));
    return got == (ssize_t)sizeof(info) ? (int)info.ssi_signo : 0;
}

int cli_signal_heed(const struct cli *cli, struct error *err)
{
    int number = cli_signal_take(cli);
    return number == 0 || number == SIGWINCH ? 0 : error_set(err, ERR_CANCELLED, 0, "interrupted");
}

void cli_progress_begin(struct cli_progress *progress, struct cli *cli, const char *what,
                        bool bytes)
{
    *progress = (struct cli_progress){
        .cli = cli, .what = what, .began_us = clock_mono_us(), .total = -1, .bytes = bytes};
}

static void write_line(const struct cli_progress *progress, int64_t now_us)
{
    char done[16], total[16], pace[16];
    double seconds = (double)(now_us - progress->began_us) / 1e6;
    fputs("\r\033[K", stderr);
    cli_print_text(stderr, progress->what, strlen(progress->what), false);
    if (!progress->bytes) {
        fprintf(stderr, "  %.1f s", seconds);
        return;
    }
    cli_size((uint64_t)progress->done, done);
    cli_size((uint64_t)((double)progress->done / seconds), pace);
    if (progress->total > 0) {
        cli_size((uint64_t)progress->total, total);
        fprintf(stderr, "  %s of %s  %d%%  %s/s", done, total,
                (int)(100 * progress->done / progress->total), pace);
    } else {
        fprintf(stderr, "  %s  %s/s", done, pace);
    }
}

void cli_progress_show(struct cli_progress *progress)
{
    int64_t now_us = clock_mono_us();
    if (!progress->cli->err_terminal || progress->cli->json ||
        now_us - progress->began_us < SHOW_AFTER_US || now_us - progress->shown_us < SHOW_EVERY_US)
        return;
    write_line(progress, now_us);
    fflush(stderr);
    progress->shown_us = now_us;
}

void cli_progress_end(struct cli_progress *progress)
{
    if (progress->shown_us != 0)
        fputs("\r\033[K", stderr);
    progress->shown_us = 0;
}
