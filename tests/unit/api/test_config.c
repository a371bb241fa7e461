/* Arguments, tokens, and what a reload may bring. */
#include "server/internal.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>

static enum error_code parse(const char *const *arguments, struct server_config *ret)
{
    char copies[16][64], *argv[17] = {copies[0]};
    int argc = 1;
    struct error err = {0};
    snprintf(copies[0], sizeof(copies[0]), "motte-front");
    for (; arguments[argc - 1] != NULL; argc++) {
        snprintf(copies[argc], sizeof(copies[argc]), "%s", arguments[argc - 1]);
        argv[argc] = copies[argc];
    }
    return server_config_parse(argc, argv, ret, &err) == 0 ? ERR_NONE : err.code;
}

#define PARSE(config, ...) parse((const char *const[]){__VA_ARGS__, NULL}, config)

static void open_fds(void)
{
    for (int fd = 20; fd < 24; fd++)
        cr_assert_eq(dup2(STDERR_FILENO, fd), fd);
}

TestSuite(server_config, .init = open_fds);

Test(server_config, takes_what_motted_passes)
{
    struct server_config config;
    cr_assert_eq(PARSE(&config, "--state-dir=/var/lib/motte", "--default-image=debian",
                       "--boot-timeout-ms=5000", "--answer-timeout-ms=700", "--log-level=3",
                       "--listen=unix:20", "--listen=tcp:21", "--metrics=22", "--token-fd=23"),
                 ERR_NONE);
    cr_assert_eq(config.boot_timeout_ms, 5000);
    cr_assert_eq(config.answer_timeout_ms, 700);
    cr_assert_eq(config.log_level, LOG_LEVEL_DEBUG);
    cr_assert_eq(config.listener_count, 3);
    cr_assert_eq(config.listeners[0].kind, SERVER_UNIX);
    cr_assert_eq(config.listeners[1].kind, SERVER_TCP);
    cr_assert_eq(config.listeners[2].kind, SERVER_METRICS);
    cr_assert_eq(config.listeners[2].fd, 22);
    cr_assert_eq(config.token_fd, 23);
    for (int fd = 20; fd < 24; fd++)
        cr_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
}

Test(server_config, refuses_anything_else)
{
    struct server_config config;
    static const char *const bad[] = {
        "--listen=unix:99",
        "--listen=unix:-1",
        "--listen=unix:1",
        "--listen=udp:20",
        "--listen=20",
        "--listen",
        "--metrics=x",
        "--log-level=4",
        "--boot-timeout-ms=0",
        "--answer-timeout-ms=99",
        "--state-dir=x",
        "--default-image=../x",
        "--default-image=",
        "--token-fd=99",
        "-h",
        "x",
        "--listen=tcp:21",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(
            PARSE(&config, "--state-dir=/s", "--default-image=a", "--listen=unix:20", bad[i]),
            ERR_CONFIG, "%s", bad[i]);
    cr_assert_eq(PARSE(&config, "--state-dir=/s", "--default-image=a"), ERR_CONFIG);
    cr_assert_eq(PARSE(&config, "--state-dir=/s", "--listen=unix:20"), ERR_CONFIG);
}

/* ---- tokens ---- */

static enum error_code read_tokens(const char *text, struct server_tokens **ret)
{
    struct error err = {0};
    cleanup_close int fd = memfd_create("tokens", MFD_CLOEXEC);
    cr_assert_eq(fs_write_all(fd, text, strlen(text)), 0);
    enum error_code code = server_tokens_read(fd, ret, &err) == 0 ? ERR_NONE : err.code;
    cr_assert(strstr(err.msg, "abcdefghij0123456789") == NULL, "a token stands in: %s", err.msg);
    return code;
}

Test(server_tokens, a_name_may_have_two_while_they_are_changed)
{
    struct server_tokens *tokens = NULL;
    struct caller caller;
    cr_assert_eq(read_tokens("a = abcdefghij0123456789\na = 0123456789abcdefghij\n", &tokens),
                 ERR_NONE);
    cr_assert(server_tokens_find(tokens, "Bearer abcdefghij0123456789", &caller));
    cr_assert(server_tokens_find(tokens, "Bearer 0123456789abcdefghij", &caller));
    cr_assert_str_eq(caller.name, "a");
    cr_assert_not(server_tokens_find(tokens, "Bearer a", &caller));
    cr_assert_not(server_tokens_find(tokens, NULL, &caller));
    cr_assert_not(server_tokens_find(NULL, "Bearer abcdefghij0123456789", &caller));
    server_tokens_free(tokens);
}

Test(server_tokens, weak_ones_and_names_of_others_are_refused)
{
    struct server_tokens *tokens = NULL;
    static const char *const bad[] = {
        "",
        "a = changeme\n",
        "a = xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
        "root = abcdefghij0123456789\n",
        "uid:0 = abcdefghij0123456789\n",
        "A = abcdefghij0123456789\n",
        "a = abcdefghij 0123456789\n",
        "a = abcdefghij0123456789\nb = abcdefghij0123456789\n",
        "a =\n",
        "a\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(read_tokens(bad[i], &tokens), ERR_CONFIG, "%s", bad[i]);
}

/* ---- reload ---- */

static struct priv_reload usual(void)
{
    return (struct priv_reload){.protocol = PRIV_PROTOCOL,
                                .log_level = LOG_LEVEL_INFO,
                                .boot_timeout_ms = 1000,
                                .default_image = "debian"};
}

static void refused(const struct priv_reload *reload)
{
    int pair[2];
    struct priv_reloaded answer;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert_eq(send(pair[0], reload, sizeof(*reload), 0), (ssize_t)sizeof(*reload));
    cr_assert(server_reload(pair[1], NULL, NULL), "and without touching the engine");
    cr_assert_eq(recv(pair[0], &answer, sizeof(answer), MSG_DONTWAIT), (ssize_t)sizeof(answer));
    cr_assert_eq(answer.code, ERR_PRIV_REFUSED);
    cr_assert_neq(answer.message[0], '\0');
    close(pair[0]);
    close(pair[1]);
}

Test(server_reload, what_no_root_half_sends_is_refused)
{
    struct priv_reload bad[6];
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = usual();
    bad[0].protocol++;
    bad[1].log_level = LOG_LEVEL_DEBUG + 1;
    bad[2].boot_timeout_ms = 1;
    bad[3].has_tokens = 1; /* and no descriptor */
    memset(bad[4].default_image, 'a', sizeof(bad[4].default_image));
    memcpy(bad[5].default_image, "../etc", sizeof("../etc"));
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(&bad[i]);
}

Test(server_reload, a_channel_that_ends_or_speaks_otherwise_is_given_up)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert(server_reload(pair[1], NULL, NULL), "nothing has come");
    cr_assert_eq(send(pair[0], "x", 1, 0), 1);
    cr_assert_not(server_reload(pair[1], NULL, NULL));
    close(pair[0]);
    cr_assert_not(server_reload(pair[1], NULL, NULL));
    close(pair[1]);
}
