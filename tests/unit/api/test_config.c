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
    for (int fd = 20; fd < 26; fd++)
        cr_assert_eq(dup2(STDERR_FILENO, fd), fd);
}

TestSuite(server_config, .init = open_fds);

Test(server_config, takes_what_motted_passes)
{
    struct server_config config;
    cr_assert_eq(PARSE(&config, "--state-dir=/var/lib/motte", "--default-image=debian",
                       "--boot-timeout-ms=5000", "--answer-timeout-ms=700", "--image-snapshots=256",
                       "--log-level=3", "--log-format=1", "--listen=unix:20", "--listen=tcp:21",
                       "--metrics=22", "--token-fd=23", "--listen=tls:24", "--tls-fd=25"),
                 ERR_NONE);
    cr_assert_eq(config.boot_timeout_ms, 5000);
    cr_assert_eq(config.answer_timeout_ms, 700);
    cr_assert_eq(config.image_snapshots, 256u);
    cr_assert_eq(config.log_level, LOG_LEVEL_DEBUG);
    cr_assert_eq(config.log_format, LOG_JSON);
    cr_assert_eq(config.listener_count, 4);
    cr_assert_eq(config.listeners[3].kind, SERVER_TLS);
    cr_assert_eq(config.tls_fd, 25);
    cr_assert_eq(config.listeners[0].kind, SERVER_UNIX);
    cr_assert_eq(config.listeners[1].kind, SERVER_TCP);
    cr_assert_eq(config.listeners[2].kind, SERVER_METRICS);
    cr_assert_eq(config.listeners[2].fd, 22);
    cr_assert_eq(config.token_fd, 23);
    for (int fd = 20; fd < 26; fd++)
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
        "--log-format=2",
        "--boot-timeout-ms=0",
        "--answer-timeout-ms=99",
        "--image-snapshots=257",
        "--state-dir=x",
        "--default-image=../x",
        "--default-image=",
        "--token-fd=99",
        "--tls-fd=99",
        "--listen=tls:21",
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

#define SECRET "abcdefghij0123456789"
/* SHA-256 of SECRET, and of "abc" */
#define DIGEST "sha256:7ddccfc3e23baf04a142c2c74182139117ecfa82697d7a22404ceb4ac1a8a48b"
#define OTHER "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

static enum error_code read_tokens(const char *text, struct server_tokens **ret)
{
    struct error err = {0};
    cleanup_close int fd = memfd_create("tokens", MFD_CLOEXEC);
    cr_assert_eq(fs_write_all(fd, text, strlen(text)), 0);
    enum error_code code = server_tokens_read(fd, ret, &err) == 0 ? ERR_NONE : err.code;
    cr_assert(strstr(err.msg, SECRET) == NULL, "a token stands in: %s", err.msg);
    return code;
}

Test(server_tokens, a_tenant_may_have_several_in_different_roles)
{
    struct server_tokens *tokens = NULL;
    struct caller caller;
    cr_assert_eq(
        read_tokens("one = operate acme " DIGEST "\n two=read   acme\t" OTHER "\n", &tokens),
        ERR_NONE);
    cr_assert(server_tokens_find(tokens, "Bearer " SECRET, &caller));
    cr_assert_str_eq(caller.name, "acme");
    cr_assert_str_eq(caller.token, "one");
    cr_assert_not(caller.admin || caller.reader || caller.local);
    cr_assert(server_tokens_find(tokens, "bearer  abc", &caller));
    cr_assert_str_eq(caller.name, "acme");
    cr_assert_str_eq(caller.token, "two");
    cr_assert(caller.reader);
    cr_assert_not(server_tokens_find(tokens, "Bearer a", &caller));
    cr_assert_not(server_tokens_find(tokens, "Bearer " DIGEST, &caller));
    cr_assert_not(server_tokens_find(tokens, NULL, &caller));
    cr_assert_not(server_tokens_find(NULL, "Bearer " SECRET, &caller));
    server_tokens_free(tokens);
}

Test(server_tokens, a_rate_is_two_seconds_worth_and_no_reload_fills_it)
{
    struct server_tokens *tokens = NULL, *fresh = NULL;
    static const char text[] = "few = operate acme " DIGEST " rate=1\nany = read acme " OTHER "\n";
    cr_assert_eq(read_tokens(text, &tokens), ERR_NONE);
    cr_assert(server_tokens_spend(tokens, "few"));
    cr_assert(server_tokens_spend(tokens, "few"));
    cr_assert_not(server_tokens_spend(tokens, "few"));
    cr_assert_eq(read_tokens(text, &fresh), ERR_NONE);
    server_tokens_take(tokens, fresh);
    cr_assert_not(server_tokens_spend(tokens, "few"));
    for (int i = 0; i < 1000; i++)
        cr_assert(server_tokens_spend(tokens, "any") && server_tokens_spend(tokens, "gone"));
    server_tokens_free(tokens);
}

Test(server_tokens, without_any_nobody_gets_in)
{
    struct server_tokens *tokens = NULL;
    struct caller caller;
    cr_assert_eq(read_tokens("", &tokens), ERR_NONE);
    cr_assert_not(server_tokens_find(tokens, "Bearer ", &caller));
    cr_assert_not(server_tokens_find(tokens, "Bearer " SECRET, &caller));
    server_tokens_free(tokens);
}

Test(server_tokens, what_is_no_line_of_motted_token_is_refused)
{
    struct server_tokens *tokens = NULL;
    static const char *const bad[] = {
        "a = " SECRET "\n",
        "a = operate acme " SECRET "\n",
        "a = operate acme sha256:" SECRET "\n",
        "a = operate acme " DIGEST "0\n",
        "a = operate acme " DIGEST " x\n",
        "a = operate acme " DIGEST " rate=0\n",
        "a = operate acme " DIGEST " rate=\n",
        "a = operate acme " DIGEST " rate=1000001\n",
        "a = operate acme " DIGEST " rate=5 rate=5\n",
        "a = acme " DIGEST "\n",
        "a = root acme " DIGEST "\n",
        "a = Operate acme " DIGEST "\n",
        "a = operate root " DIGEST "\n",
        "a = operate uid:0 " DIGEST "\n",
        "a = operate :motte " DIGEST "\n",
        "root = operate acme " DIGEST "\n",
        "A = operate acme " DIGEST "\n",
        "a = operate acme " DIGEST "\nb = operate acme " DIGEST "\n",
        "a = operate acme " DIGEST "\na = operate acme " OTHER "\n",
        "a =\n",
        "a\n",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(read_tokens(bad[i], &tokens), ERR_CONFIG, "%s", bad[i]);
}

/* ---- reload ---- */

static const struct server_live nothing;

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
    cr_assert(server_reload(pair[1], &nothing), "and without touching the engine");
    cr_assert_eq(recv(pair[0], &answer, sizeof(answer), MSG_DONTWAIT), (ssize_t)sizeof(answer));
    cr_assert_eq(answer.code, ERR_PRIV_REFUSED);
    cr_assert_neq(answer.message[0], '\0');
    close(pair[0]);
    close(pair[1]);
}

Test(server_reload, what_no_root_half_sends_is_refused)
{
    struct priv_reload bad[8];
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        bad[i] = usual();
    bad[0].protocol++;
    bad[1].log_level = LOG_LEVEL_DEBUG + 1;
    bad[2].boot_timeout_ms = 1;
    bad[3].has_tokens = 1; /* and no descriptor */
    memset(bad[4].default_image, 'a', sizeof(bad[4].default_image));
    memcpy(bad[5].default_image, "../etc", sizeof("../etc"));
    memset(bad[6].pools[1], 'a', sizeof(bad[6].pools[1])); /* behind one that is good */
    memcpy(bad[6].pools[0], "python,min=1", sizeof("python,min=1"));
    bad[7].has_tls = 1; /* likewise */
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        refused(&bad[i]);
}

Test(server_reload, a_channel_that_ends_or_speaks_otherwise_is_given_up)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    cr_assert(server_reload(pair[1], &nothing), "nothing has come");
    cr_assert_eq(send(pair[0], "x", 1, 0), 1);
    cr_assert_not(server_reload(pair[1], &nothing));
    close(pair[0]);
    cr_assert_not(server_reload(pair[1], &nothing));
    close(pair[1]);
}
