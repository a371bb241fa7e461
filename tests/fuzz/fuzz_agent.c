/* The agent's side: the kernel's command line, the host's frames, a command, a file, a restore. Nothing
 * is run or written. */
#include "fuzz.h"
#include "guest/internal.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BYTES_MAX = 1 << 16 };

static void restore(json_t *request)
{
    const struct guest_facts facts = {.generation = 3, .init = -1};
    struct guest_restore restore = {.entropy_len = 0};
    struct guest_refusal why = {0};
    if (guest_restore_parse(request, &facts, &restore, &why) < 0) {
        FUZZ_CHECK(why.code != NULL && why.message[0] != '\0');
        return;
    }
    FUZZ_CHECK(restore.identity.generation > facts.generation && restore.wall_ms >= 0 &&
               restore.uptime_ms >= 0);
    FUZZ_CHECK(strlen(restore.identity.instance) == GUEST_INSTANCE_LEN);
    FUZZ_CHECK(strlen(restore.machine_id) == GUEST_MACHINE_ID_LEN && restore.hostname[0] != '\0');
    FUZZ_CHECK(restore.entropy_len >= GUEST_ENTROPY_MIN);
}

static void file(json_t *request)
{
    struct guest_file file;
    struct guest_refusal why = {0};
    if (guest_file_parse(request, &file, &why) < 0)
        FUZZ_CHECK(why.code != NULL && why.message[0] != '\0');
    else
        FUZZ_CHECK(file.path[0] == '/' && file.mode <= 07777);
}

static void command(const struct guest_frame *frame)
{
    struct guest_command command = {0};
    struct guest_refusal why = {0};
    json_t *request =
        json_loadb((const char *)frame->data, frame->len, JSON_REJECT_DUPLICATES, NULL);
    if (json_is_object(request)) {
        restore(request);
        file(request);
        if (guest_command_parse(request, &command, &why) < 0)
            FUZZ_CHECK(why.code != NULL && why.message[0] != '\0');
        else
            FUZZ_CHECK(command.argv[0] != NULL && command.cwd[0] == '/' && command.timeout_ms > 0);
        guest_command_release(&command);
    }
    json_decref(request);
}

static void frames(const uint8_t *data, size_t size, const uint8_t *token)
{
    int fds[2];
    struct guest_conn *conn = calloc(1, sizeof(*conn));
    FUZZ_CHECK(conn != NULL && socketpair(AF_UNIX, SOCK_STREAM, 0, fds) == 0);
    FUZZ_CHECK(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    FUZZ_CHECK(write(fds[1], data, size) == (ssize_t)size && close(fds[1]) == 0);
    conn->fd = fds[0];
    conn->token = token;
    conn->sigio = -1;
    for (;;) {
        struct guest_frame frame;
        int got = guest_conn_next(conn, &frame);
        if (got > 0)
            command(&frame);
        if (got < 0 || (got == 0 && (conn->ended || conn->absent_since != 0)))
            break;
        if (got == 0)
            guest_conn_poll(conn, &(struct pollfd){.fd = conn->fd}, 1, 0);
    }
    close(conn->fd);
    free(conn);
}

static void cmdline(const uint8_t *data, size_t size)
{
    struct guest_facts facts = {0};
    char *text = strndup((const char *)data, size);
    FUZZ_CHECK(text != NULL);
    if (guest_facts_parse(text, &facts) == 0)
        FUZZ_CHECK(strlen(facts.instance) == GUEST_INSTANCE_LEN);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t token[WIRE_TOKEN_SIZE] = "a token of sorts";
    if (size == 0 || size > BYTES_MAX)
        return 0;
    if (data[0] % 3 == 0)
        cmdline(data + 1, size - 1);
    else
        frames(data + 1, size - 1, data[0] % 3 == 1 ? NULL : token);
    return 0;
}
