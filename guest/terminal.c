#include "guest/internal.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { SIZE_MAX_CELLS = 65535 };

static int set_size(int fd, unsigned short rows, unsigned short cols)
{
    const struct winsize size = {.ws_row = rows, .ws_col = cols};
    return ioctl(fd, TIOCSWINSZ, &size);
}

int guest_terminal_open(const struct guest_command *command, int *to, int *from, int theirs[3])
{
    *from = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*from < 0 || unlockpt(*from) || set_size(*from, command->rows, command->cols) ||
        fcntl(*from, F_SETFL, O_RDWR | O_NONBLOCK))
        return -1;
    *to = fcntl(*from, F_DUPFD_CLOEXEC, 0);
    theirs[0] = ioctl(*from, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (*to < 0 || theirs[0] < 0)
        return -1;
    /* Some programs open it again by its name. */
    if (fchown(theirs[0], command->user.uid, command->user.gid))
        guest_say("a terminal stays root's");
    for (int i = 1; i < 3; i++) {
        theirs[i] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 0);
        if (theirs[i] < 0)
            return -1;
    }
    return 0;
}

bool guest_terminal_resize(int fd, json_t *message)
{
    json_int_t rows = json_integer_value(json_object_get(message, "rows"));
    json_int_t cols = json_integer_value(json_object_get(message, "cols"));
    if (rows < 1 || rows > SIZE_MAX_CELLS || cols < 1 || cols > SIZE_MAX_CELLS)
        return false;
    if (fd >= 0)
        set_size(fd, (unsigned short)rows, (unsigned short)cols);
    return true;
}
