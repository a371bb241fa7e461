#include "guest/internal.h"
#include "support.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define BYTES_16 "000102030405060708090a0b0c0d0eff"
#define GOOD                                                                                       \
    "\"id\":1,\"op\":\"restore\",\"instance\":\"" SUPPORT_INSTANCE "\",\"generation\":4,"          \
    "\"wall_ms\":1764192000000,\"uptime_ms\":5000,\"entropy\":\"" BYTES_16 BYTES_16                \
    "\",\"hostname\":\"a-2\","                                                                     \
    "\"machine_id\":\"" BYTES_16 "\",\"token\":\"" BYTES_16 "\""

/* The fields of GOOD, with those of `change` in their place; one that is null is left out. */
static json_t *request_with(const char *change)
{
    json_t *request = json_loads("{" GOOD "}", 0, NULL), *changes = json_loads(change, 0, NULL);
    const char *name;
    json_t *value;
    cr_assert(request && changes, "%s", change);
    json_object_update(request, changes);
    json_object_foreach(changes, name, value) if (json_is_null(value))
        json_object_del(request, name);
    json_decref(changes);
    return request;
}

static int parse(const char *change, struct guest_restore *ret, struct guest_refusal *why)
{
    const struct guest_facts facts = {.generation = 3, .has_token = true};
    json_t *request = request_with(change);
    int result = guest_restore_parse(request, &facts, ret, why);
    json_decref(request);
    return result;
}

Test(guest_restore, R21_a_restore_is_read_whole)
{
    const struct guest_facts facts = {.generation = 3};
    struct guest_restore restore;
    struct guest_refusal why;
    json_t *request = request_with("{}");
    cr_assert_eq(guest_restore_parse(request, &facts, &restore, &why), 0);
    cr_assert_str_eq(restore.identity.instance, SUPPORT_INSTANCE);
    cr_assert_eq(restore.identity.generation, 4);
    cr_assert(restore.identity.has_token);
    cr_assert_eq(restore.identity.token[15], 0xff);
    cr_assert_eq(restore.wall_ms, 1764192000000);
    cr_assert_eq(restore.uptime_ms, 5000);
    cr_assert_eq(restore.entropy_len, 32);
    cr_assert_eq(restore.entropy[31], 0xff);
    cr_assert_str_eq(restore.hostname, "a-2");
    cr_assert_str_eq(restore.machine_id, BYTES_16);
    json_decref(request);
    request = request_with("{\"token\":null}"); /* on vsock there need be none */
    cr_assert_eq(guest_restore_parse(request, &facts, &restore, &why), 0);
    cr_assert_not(restore.identity.has_token);
    json_decref(request);
}

Test(guest_restore, R21_R31_a_restore_that_is_wrong_is_refused_and_says_which_field)
{
    static const char *const WRONG[][2] = {
        {"{\"instance\":null}", "instance"},
        {"{\"instance\":\"abcdefghij234567abc\"}", "instance"},
        {"{\"instance\":\"abcdefghij234567abcD\"}", "instance"},
        {"{\"generation\":null}", "generation"},
        {"{\"generation\":\"4\"}", "generation"},
        {"{\"generation\":4294967296}", "generation"},
        {"{\"wall_ms\":-1}", "wall_ms"},
        {"{\"wall_ms\":1.5}", "wall_ms"},
        {"{\"wall_ms\":9223372036854775807}", "wall_ms"},
        {"{\"uptime_ms\":null}", "uptime_ms"},
        {"{\"uptime_ms\":-1}", "uptime_ms"},
        {"{\"entropy\":\"" BYTES_16 "\"}", "entropy"},
        {"{\"entropy\":\"" BYTES_16 BYTES_16 "0\"}", "entropy"},
        {"{\"entropy\":\"" BYTES_16 BYTES_16 "0g\"}", "entropy"},
        {"{\"hostname\":\"\"}", "hostname"},
        {"{\"hostname\":\"a b\"}", "hostname"},
        {"{\"hostname\":1}", "hostname"},
        {"{\"machine_id\":\"" BYTES_16 "00\"}", "machine_id"},
        {"{\"machine_id\":null}", "machine_id"},
        {"{\"token\":null}", "token"},
        {"{\"token\":\"00\"}", "token"},
        {"{\"token\":7}", "token"},
        {"{\"colour\":\"red\"}", "colour"},
    };
    for (size_t i = 0; i < COUNT_OF(WRONG); i++) {
        struct guest_restore restore = {.wall_ms = 77};
        struct guest_refusal why = {0};
        cr_assert_eq(parse(WRONG[i][0], &restore, &why), -1, "%s", WRONG[i][0]);
        cr_assert_str_eq(why.code, "bad_request");
        cr_assert(strstr(why.message, WRONG[i][1]) != NULL, "%s: %s", WRONG[i][0], why.message);
        cr_assert_eq(restore.wall_ms, 77);
    }
    char text[1200], digits[2 * GUEST_ENTROPY_MAX + 3];
    memset(digits, 'a', sizeof digits);
    digits[sizeof digits - 1] = '\0';
    snprintf(text, sizeof text, "{\"entropy\":\"%s\"}", digits);
    struct guest_restore restore;
    struct guest_refusal why;
    cr_assert_eq(parse(text, &restore, &why), -1);
}

Test(guest_restore, R21_a_generation_that_does_not_grow_is_refused)
{
    static const char *const OLD[] = {"{\"generation\":3}", "{\"generation\":1}"};
    for (size_t i = 0; i < COUNT_OF(OLD); i++) {
        struct guest_restore restore;
        struct guest_refusal why;
        cr_assert_eq(parse(OLD[i], &restore, &why), -1);
        cr_assert_str_eq(why.code, "old_generation");
    }
}

/* ---- machine id ---- */

Test(guest_restore, R21_a_machine_id_is_renewed_where_there_is_one)
{
    char dir[] = "/tmp/restore-XXXXXX", path[64], other[64], got[64] = "";
    cr_assert(mkdtemp(dir) != NULL);
    snprintf(path, sizeof path, "%s/id", dir);
    snprintf(other, sizeof other, "%s/other", dir);
    cr_assert_eq(guest_machine_id_renew(path, BYTES_16), 0);
    cr_assert_neq(access(path, F_OK), 0, "none was there");
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0444);
    cr_assert_eq(write(fd, "0123456789abcdef0123456789abcdef with more behind\n", 50), 50);
    close(fd);
    cr_assert_eq(guest_machine_id_renew(path, BYTES_16), 0);
    cr_assert_gt(fs_read_at(AT_FDCWD, path, got, sizeof got), 0);
    cr_assert_str_eq(got, BYTES_16 "\n");
    /* What is no file of its own is left alone, and holds nobody up. */
    cr_assert(rename(path, other) == 0 && symlink(other, path) == 0);
    cr_assert_eq(guest_machine_id_renew(path, "ffffffffffffffffffffffffffffffff"), 0);
    cr_assert_gt(fs_read_at(AT_FDCWD, other, got, sizeof got), 0);
    cr_assert_str_eq(got, BYTES_16 "\n");
    cr_assert(unlink(path) == 0 && mkfifo(path, 0600) == 0);
    cr_assert_eq(guest_machine_id_renew(path, BYTES_16), 0);
    cr_assert(unlink(path) == 0 && mkdir(path, 0700) == 0);
    cr_assert_eq(guest_machine_id_renew(path, BYTES_16), 0);
    cr_assert(rmdir(path) == 0 && unlink(other) == 0 && rmdir(dir) == 0);
}

/* ---- from one agent to the next ---- */

Test(guest_restore, R21_the_next_agent_finds_what_the_last_one_handed_on)
{
    struct guest_handover next = {.listener = -1, .facts = {.generation = 5, .ports = 2}}, got;
    int fds[2];
    memset(next.ports, -1, sizeof next.ports);
    next.ports[1] = open("/dev/null", O_RDONLY); /* as after the exec: not close-on-exec */
    cr_assert_eq(guest_handover_prepare(&next, fds), 0);
    cr_assert(fcntl(fds[0], F_GETFD) & FD_CLOEXEC && fcntl(fds[1], F_GETFD) & FD_CLOEXEC);
    char pipe[16], name[] = "/init", word[] = "restored", other[] = "quiet";
    snprintf(pipe, sizeof pipe, "%d", fds[1]);
    char *argv[] = {name, word, pipe, NULL}, *boot[] = {name, other, pipe, NULL};
    cr_assert_eq(guest_handover_take(1, argv, &got), 0);
    cr_assert_eq(guest_handover_take(3, boot, &got), 0);
    cr_assert_eq(guest_handover_take(3, argv, &got), 1);
    cr_assert_eq(got.facts.generation, 5);
    cr_assert_eq(got.ports[1], next.ports[1]);
    cr_assert(fcntl(got.ports[1], F_GETFD) & FD_CLOEXEC, "commands would inherit it");
    cr_assert_eq(fcntl(fds[1], F_GETFD), -1, "read once, and gone");
    cr_assert_eq(guest_handover_take(3, argv, &got), -1);
    close(fds[0]);
    close(got.ports[1]);
}

static void *ask(void *context)
{
    const struct guest_identity identity = {.instance = SUPPORT_INSTANCE, .generation = 9};
    int *init = context;
    if (guest_handover_ask(*init, &identity) == 0)
        return NULL;
    *init = errno;
    return context;
}

Test(guest_restore, R21_a_session_learns_whether_init_will_begin_anew)
{
    static const int ERRORS[] = {0, EMFILE};
    int ends[2];
    pid_t asker;
    struct guest_identity identity;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
    cr_assert_not(guest_handover_asked(ends[0], &asker, &identity));
    for (size_t i = 0; i < COUNT_OF(ERRORS); i++) {
        pthread_t thread;
        void *failed;
        int init = ends[1];
        pthread_create(&thread, NULL, ask, &init);
        struct pollfd there = {.fd = ends[0], .events = POLLIN};
        cr_assert_eq(poll(&there, 1, 5000), 1);
        cr_assert(guest_handover_asked(ends[0], &asker, &identity));
        guest_handover_answer(ends[0], ERRORS[i]);
        pthread_join(thread, &failed);
        cr_assert_eq(asker, getpid());
        cr_assert_eq(identity.generation, 9);
        cr_assert_eq(failed != NULL, ERRORS[i] != 0);
        cr_assert(!failed || init == ERRORS[i]);
    }
    close(ends[0]);
    close(ends[1]);
}
