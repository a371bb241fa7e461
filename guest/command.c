#include "guest/internal.h"
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char DEFAULT_PATH[] =
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static int parse_argv(json_t *argv, struct guest_command *command, struct guest_refusal *why)
{
    size_t count = json_array_size(argv);
    if (count == 0)
        return guest_deny(why, "bad_request", "argv must be an array of one string or more");
    command->argv = calloc(count + 1, sizeof *command->argv);
    if (!command->argv)
        return guest_deny(why, "no_memory", "the guest has no memory left");
    for (size_t i = 0; i < count; i++) {
        json_t *word = json_array_get(argv, i);
        if (!json_is_string(word))
            return guest_deny(why, "bad_request", "argv must be an array of strings");
        command->argv[i] = (char *)(uintptr_t)json_string_value(word);
    }
    return 0;
}

/* Puts "name=value" where that name stands already, or at the end. */
static int env_set(char **env, const char *name, const char *value)
{
    size_t len = strlen(name), i = 0;
    char *text;
    if (asprintf(&text, "%s=%s", name, value) < 0)
        return -1;
    while (env[i] && (strncmp(env[i], name, len) != 0 || env[i][len] != '='))
        i++;
    free(env[i]);
    env[i] = text;
    return 0;
}

static int parse_env(json_t *given, struct guest_command *command, struct guest_refusal *why)
{
    if (given && !json_is_object(given))
        return guest_deny(why, "bad_request", "env must be an object of strings");
    command->env = calloc(json_object_size(given) + 5, sizeof *command->env);
    if (!command->env || !(command->env[0] = strdup(DEFAULT_PATH)) ||
        env_set(command->env, "HOME", command->user.home) ||
        env_set(command->env, "LANG", "C.UTF-8") ||
        (command->terminal && env_set(command->env, "TERM", "xterm")))
        return guest_deny(why, "no_memory", "the guest has no memory left");
    const char *name;
    json_t *value;
    json_object_foreach(given, name, value)
    {
        if (!json_is_string(value) || !*name || strchr(name, '='))
            return guest_deny(
                why, "bad_request",
                "env must be an object of strings whose names are not empty and have no =");
        if (env_set(command->env, name, json_string_value(value)))
            return guest_deny(why, "no_memory", "the guest has no memory left");
    }
    return 0;
}

static int known_fields_only(json_t *request, struct guest_refusal *why)
{
    static const char *const FIELDS[] = {"id",         "op",    "argv", "env",  "cwd", "user",
                                         "timeout_ms", "stdin", "pty",  "rows", "cols"};
    const char *name;
    json_t *value;
    json_object_foreach(request, name, value)
    {
        size_t i = 0;
        while (i < sizeof FIELDS / sizeof FIELDS[0] && strcmp(FIELDS[i], name) != 0)
            i++;
        if (i == sizeof FIELDS / sizeof FIELDS[0])
            return guest_deny(why, "bad_request", "exec has no field \"%.64s\"", name);
    }
    return 0;
}

static int parse_terminal(json_t *request, struct guest_command *command, struct guest_refusal *why)
{
    json_t *pty = json_object_get(request, "pty");
    json_t *rows = json_object_get(request, "rows"), *cols = json_object_get(request, "cols");
    command->terminal = json_is_true(pty);
    if (pty && !json_is_boolean(pty))
        return guest_deny(why, "bad_request", "pty must be true or false");
    if (!command->terminal)
        return rows || cols ? guest_deny(why, "bad_request", "rows and cols are of a pty") : 0;
    if (json_integer_value(rows) < 1 || json_integer_value(rows) > 65535 ||
        json_integer_value(cols) < 1 || json_integer_value(cols) > 65535)
        return guest_deny(why, "bad_request", "a pty needs rows and cols from 1 to 65535");
    command->rows = (unsigned short)json_integer_value(rows);
    command->cols = (unsigned short)json_integer_value(cols);
    return 0;
}

static int parse_rest(json_t *request, struct guest_command *command, struct guest_refusal *why)
{
    json_t *cwd = json_object_get(request, "cwd"), *user = json_object_get(request, "user");
    json_t *timeout = json_object_get(request, "timeout_ms");
    json_t *input = json_object_get(request, "stdin");
    if (cwd && (!json_is_string(cwd) || json_string_value(cwd)[0] != '/'))
        return guest_deny(why, "bad_request", "cwd must be an absolute path");
    if (!json_is_integer(timeout) || json_integer_value(timeout) < 1 ||
        json_integer_value(timeout) > GUEST_TIMEOUT_MAX_MS)
        return guest_deny(why, "bad_request", "timeout_ms must be a whole number from 1 to %d",
                          GUEST_TIMEOUT_MAX_MS);
    if (input && !json_is_boolean(input))
        return guest_deny(why, "bad_request", "stdin must be true or false");
    if (user && !json_is_string(user))
        return guest_deny(why, "bad_request", "user must be a string: name, uid or uid:gid");
    const char *who = user ? json_string_value(user) : "root";
    if (guest_user_find(who, &command->user))
        return guest_deny(why, "unknown_user", "the image has no user \"%.64s\"", who);
    command->cwd = cwd ? json_string_value(cwd) : "/";
    command->timeout_ms = (uint32_t)json_integer_value(timeout);
    command->input = json_is_true(input);
    return parse_terminal(request, command, why);
}

int guest_command_parse(json_t *request, struct guest_command *ret, struct guest_refusal *why)
{
    if (known_fields_only(request, why) || parse_rest(request, ret, why) ||
        parse_argv(json_object_get(request, "argv"), ret, why) ||
        parse_env(json_object_get(request, "env"), ret, why))
        return -1;
    return 0;
}

void guest_command_release(struct guest_command *command)
{
    for (char **entry = command->env; entry && *entry; entry++)
        free(*entry);
    free(command->env);
    free(command->argv);
    *command = (struct guest_command){0};
}

_Noreturn static void fail(int code, const char *what)
{
    dprintf(STDERR_FILENO, "motte: %s: %s\n", what, strerror(errno));
    _exit(code);
}

/* What the agent changed for itself must not reach the command. */
static void reset_signals(void)
{
    sigset_t none;
    for (int sig = 1; sig < NSIG; sig++)
        signal(sig, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void become_user(const struct guest_user *user)
{
    if (geteuid() != 0 && geteuid() == user->uid)
        return;
    if (setgroups(user->group_count, user->groups) || setresgid(user->gid, user->gid, user->gid) ||
        setresuid(user->uid, user->uid, user->uid))
        fail(126, "cannot become the user");
}

_Noreturn void guest_command_become(const struct guest_command *command, const int stdio[3])
{
    reset_signals();
    setsid();
    guest_put("/proc/self/oom_score_adj", "0");
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (dup2(stdio[fd], fd) < 0)
            _exit(126);
    if (command->terminal)
        ioctl(STDIN_FILENO, TIOCSCTTY, 0); /* ^C and a change of its size reach it by this */
    umask(022);
    become_user(&command->user);
    if (chdir(command->cwd))
        fail(126, command->cwd);
    environ = command->env; /* execvp looks the program up in this PATH */
    execvp(command->argv[0], command->argv);
    fail(errno == ENOENT ? 127 : 126, command->argv[0]);
}
