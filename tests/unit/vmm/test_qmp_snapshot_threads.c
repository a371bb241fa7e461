/* Snapshots by QEMU's monitor, which is a script here: what it is told, in which order, and what is
 * made of its answers. */
#include "tests/unit/vmm/root.h"
#include "vmm/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { PATIENCE_MS = 60000, SHORT_MS = 300 };

struct script {
    bool apart;         /* that is what it has to be told */
    const char *status; /* before a migration; it is "postmigrate" when one has ended */
    const char *end;    /* what the event says of its end; NULL: none comes */
    int finishing;      /* so often it is still "finish-migrate" then */
    int active;         /* so often query-migrate says that one of before goes on */
    int listener;
    char told[512];   /* every command, in order */
    struct stat lent; /* the file behind getfd's descriptor */
};

/* Who asked may be gone. */
static void answer(int fd, const char *line)
{
    ssize_t n = send(fd, line, strlen(line), MSG_NOSIGNAL);
    CHECK(n == (ssize_t)strlen(line) || errno == EPIPE || errno == ECONNRESET);
}

static void answer_status(struct script *script, int fd)
{
    char line[128];
    bool ended = strstr(script->told, "migrate ") != NULL && script->end != NULL;
    const char *status = ended ? "postmigrate" : script->status;
    if (ended && script->finishing-- > 0)
        status = "finish-migrate";
    snprintf(line, sizeof(line), "{\"return\":{\"status\":\"%s\",\"running\":false}}\n", status);
    answer(fd, line);
}

/* At once: who has heard enough may be gone before the rest. */
static void begin_migration(const struct script *script, int fd)
{
#define EVENT(status) "{\"event\":\"MIGRATION\",\"data\":{\"status\":\"" status "\"}}\n"
    char lines[256];
    snprintf(lines, sizeof(lines), EVENT("setup") "{\"return\":{}}\n" EVENT("active") EVENT("%s"),
             script->end != NULL ? script->end : "active");
    answer(fd, lines);
}

static void obey(struct script *script, const char *command, int fd)
{
    size_t len = strlen(script->told);
    snprintf(script->told + len, sizeof(script->told) - len, "%s ", command);
    if (strcmp(command, "query-status") == 0)
        answer_status(script, fd);
    else if (strcmp(command, "query-migrate") == 0)
        answer(fd, script->active-- > 0 ? "{\"return\":{\"status\":\"active\"}}\n"
                                        : "{\"return\":{\"status\":\"cancelled\"}}\n");
    else if (strcmp(command, "migrate") == 0 || strcmp(command, "migrate-incoming") == 0)
        begin_migration(script, fd);
    else
        answer(fd, "{\"return\":{}}\n");
}

/* A command, and the descriptor that came with it. */
static bool next(struct script *script, int fd, char *command, size_t size)
{
    char line[1024] = "", control[CMSG_SPACE(sizeof(int))];
    struct iovec part = {.iov_base = line, .iov_len = sizeof(line) - 1};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    if (recvmsg(fd, &message, MSG_CMSG_CLOEXEC) <= 0)
        return false;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    CHECK((header != NULL) == (strstr(line, "\"getfd\"") != NULL));
    if (header != NULL) {
        int lent;
        memcpy(&lent, CMSG_DATA(header), sizeof(lent));
        CHECK(fstat(lent, &script->lent) == 0 && close(lent) == 0);
    }
    CHECK(strstr(line, "-capabilities") == NULL ||
          strstr(line, script->apart ? "x-ignore-shared\",\"state\":true"
                                     : "x-ignore-shared\",\"state\":false") != NULL);
    CHECK(strstr(line, "migrate-incoming") == NULL || strstr(line, "\"uri\":\"fd:3\"") != NULL);
    CHECK(sscanf(line, "{\"execute\":\"%63[^\"]", command) == 1 && strlen(command) < size);
    return true;
}

static void *monitor_main(void *context)
{
    struct script *script = context;
    char command[64];
    int fd = accept4(script->listener, NULL, NULL, SOCK_CLOEXEC);
    CHECK(fd >= 0);
    answer(fd, "{\"QMP\":{}}\n");
    while (next(script, fd, command, sizeof(command)))
        if (strcmp(command, "qmp_capabilities") == 0)
            answer(fd, "{\"return\":{}}\n");
        else
            obey(script, command, fd);
    close(fd);
    return NULL;
}

typedef int act(int api, struct error *err);

static int play(struct script *script, act *what, struct error *err)
{
    char dir[] = "/tmp/motte-qmp.XXXXXX";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    pthread_t thread;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/api", dir);
    script->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(bind(script->listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
    CHECK(listen(script->listener, 4) == 0);
    CHECK(pthread_create(&thread, NULL, monitor_main, script) == 0);
    int api = open(address.sun_path, O_PATH | O_CLOEXEC);
    CHECK(api >= 0);
    int result = what(api, err);
    CHECK((result == 0) == (err->code == ERR_NONE));
    pthread_join(thread, NULL);
    close(api);
    close(script->listener);
    CHECK(unlink(address.sun_path) == 0 && rmdir(dir) == 0);
    return result;
}

static int save(int api, struct error *err)
{
    cleanup_close int file = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return vmm_qmp_save(api, file, false, PATIENCE_MS, err);
}

static int save_soon(int api, struct error *err)
{
    cleanup_close int file = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return vmm_qmp_save(api, file, false, SHORT_MS, err);
}

static int load(int api, struct error *err)
{
    return vmm_qmp_load(api, -1, true, PATIENCE_MS, err);
}

/* Somebody deletes the VM: as an eventfd that is raised. */
static int load_unwanted(int api, struct error *err)
{
    cleanup_close int gone = eventfd(1, EFD_CLOEXEC);
    return vmm_qmp_load(api, gone, true, PATIENCE_MS, err);
}

static int resume(int api, struct error *err)
{
    return vmm_qmp_resume(api, PATIENCE_MS, err);
}

#define WRITE "migrate-set-capabilities migrate-set-parameters getfd migrate "

static void test_R21_a_snapshot_is_written_to_the_lent_file(void)
{
    struct script script = {.status = "paused", .end = "completed", .finishing = 3};
    struct error err = {0};
    struct stat null;
    CHECK(play(&script, save, &err) == 0);
    CHECK(strcmp(script.told, "query-status " WRITE
                              "query-status query-status query-status query-status ") == 0);
    CHECK(stat("/dev/null", &null) == 0 && null.st_ino == script.lent.st_ino);
}

static void test_R21_after_one_the_guest_stands_again_before_the_next(void)
{
    struct script script = {.status = "postmigrate", .end = "completed"};
    struct error err = {0};
    CHECK(play(&script, save, &err) == 0);
    CHECK(strcmp(script.told, "query-status cont stop " WRITE "query-status ") == 0);
}

static void test_R21_what_qemu_could_not_write_is_no_snapshot(void)
{
    struct script script = {.status = "paused", .end = "failed"};
    struct error err = {0};
    CHECK(play(&script, save, &err) < 0 && err.code == ERR_HYPERVISOR);
    struct script silent = {.status = "paused"};
    err = (struct error){0};
    CHECK(play(&silent, save_soon, &err) < 0 && err.code == ERR_HYPERVISOR_TIMEOUT);
}

static void test_R21_what_qemu_could_not_read_is_no_vm(void)
{
    struct script script = {.apart = true, .status = "inmigrate", .end = "completed"};
    struct error err = {0};
    CHECK(play(&script, load, &err) == 0);
    CHECK(strcmp(script.told, "migrate-set-capabilities migrate-incoming ") == 0);
    struct script failing = {.apart = true, .status = "inmigrate", .end = "failed"};
    CHECK(play(&failing, load, &err) < 0 && err.code == ERR_HYPERVISOR);
}

static void test_R04_a_delete_waits_for_no_snapshot_to_be_read(void)
{
    struct script script = {.apart = true, .status = "inmigrate"};
    struct error err = {0};
    int64_t began = clock_mono_ms();
    CHECK(play(&script, load_unwanted, &err) < 0 && err.code == ERR_CANCELLED);
    CHECK(clock_mono_ms() - began < PATIENCE_MS / 2);
}

static void test_R02_what_an_earlier_front_was_at_is_given_up(void)
{
    struct script script = {.status = "paused", .active = 2};
    struct error err = {0};
    CHECK(play(&script, resume, &err) == 0);
    CHECK(strcmp(script.told, "query-migrate migrate_cancel query-migrate query-migrate "
                              "query-status cont ") == 0);
    struct script idle = {.status = "paused"};
    CHECK(play(&idle, resume, &err) == 0);
    CHECK(strcmp(idle.told, "query-migrate query-status cont ") == 0);
}

int main(void)
{
    test_R21_a_snapshot_is_written_to_the_lent_file();
    test_R21_after_one_the_guest_stands_again_before_the_next();
    test_R21_what_qemu_could_not_write_is_no_snapshot();
    test_R21_what_qemu_could_not_read_is_no_vm();
    test_R04_a_delete_waits_for_no_snapshot_to_be_read();
    test_R02_what_an_earlier_front_was_at_is_given_up();
    return 0;
}
