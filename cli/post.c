/* Requests that make something: made once, whatever happens to their answers, and not left behind by
 * a program that is told to end. */
#include "cli/internal.h"
#include <poll.h>
#include <signal.h>

enum { AGAIN_FOR_MS = 30000, REST_MS = 200 };

struct making {
    struct cli *cli;
    struct cli_progress *progress;
    int signal; /* that came meanwhile, or 0 */
};

/* The first signal waits until it is known what there is to end; the second does not. */
static int on_ready(void *context, int fd, struct error *err)
{
    struct making *making = context;
    if (making->progress != NULL)
        cli_progress_show(making->progress);
    if (fd < 0 || fd != making->cli->signals)
        return 0;
    int number = cli_signal_take(making->cli);
    if (number == 0 || number == SIGWINCH)
        return 0;
    if (making->signal != 0)
        return error_set(err, ERR_CANCELLED, 0, "interrupted twice: what was asked for may go on");
    making->signal = number;
    return 0;
}

/* Its answer was lost, or the service is about to come back. A service that was never `there` is
 * told at once. */
static bool worth_another(const struct cli *cli, const struct error *err, bool there)
{
    if (cli->unreached)
        return there || !cli->unconnected;
    return err->code == ERR_KEY_BUSY || err->code == ERR_SHUTTING_DOWN;
}

static int send_until(struct cli *cli, const struct cli_request *request, bool there,
                      struct cli_answer *ret, struct error *err)
{
    int64_t deadline_ms = clock_mono_ms() + AGAIN_FOR_MS;
    for (;; there = true) {
        int failed = cli_http(cli, request, ret, err);
        if (failed == 0 || !worth_another(cli, err, there) || clock_left_ms(deadline_ms) == 0)
            return failed;
        struct pollfd signals = {.fd = cli->signals, .events = POLLIN};
        poll(&signals, 1, REST_MS);
        *err = (struct error){0};
        if (signals.revents != 0 && request->ready(request->context, cli->signals, err) != 0)
            return -1;
    }
}

int cli_make(struct cli *cli, const struct cli_making *what, struct cli_answer *ret,
             struct error *err)
{
    char key[ID_INSTANCE_SIZE];
    if (id_instance_make(key, err) != 0)
        return -1;
    struct making making = {.cli = cli, .progress = what->progress};
    struct cli_request request = {.method = what->method != NULL ? what->method : "POST",
                                  .path = what->path,
                                  .body = what->body,
                                  .prefer = what->asynchronous ? "respond-async" : NULL,
                                  .key = what->method != NULL ? NULL : key,
                                  .ready = on_ready,
                                  .context = &making};
    int failed = send_until(cli, &request, what->there, ret, err);
    if (what->ret_signal != NULL)
        *what->ret_signal = making.signal;
    return failed;
}

int cli_unmake(struct cli *cli, const char *path, struct error *err)
{
    const struct cli_making what = {.method = "DELETE", .path = path, .there = true};
    cJSON *problem = TAKE_PTR(cli->problem);
    bool unreached = cli->unreached;
    int failed = cli_make(cli, &what, NULL, err);
    cJSON_Delete(cli->problem);
    cli->problem = problem;
    cli->unreached = unreached;
    return failed;
}
