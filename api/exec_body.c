/* The body of POST /vms/{id}/exec, decoded and bounded before anything is asked of the guest. */
#include "api/internal.h"

#include <stddef.h>

enum {
    ARGV_MAX = 1024,
    ENV_MAX = 1024,
    CWD_MAX = 4096, /* characters */
    USER_BYTES_MAX = 64,
    /* argv, env, cwd and user travel in one control frame; the rest of it is the envelope. */
    COMMAND_BYTES_MAX = WIRE_FRAME_MAX - 1024,
};

struct fields {
    const cJSON *argv, *env;
    char *shell, *cwd, *user, *input;
    uint32_t timeout_ms;
    bool input_open;
    const cJSON *pty;
};

/* The last two are of commands that are watched, and so may last. */
static const struct json_field table[] = {
    {"argv", JSON_ARRAY, offsetof(struct fields, argv), false, 1, ARGV_MAX},
    {"shell", JSON_STRING, offsetof(struct fields, shell), false, 1, API_BODY_EXEC_MAX},
    {"env", JSON_OBJECT, offsetof(struct fields, env), false, 0, ENV_MAX},
    {"cwd", JSON_TEXT, offsetof(struct fields, cwd), false, 1, CWD_MAX},
    {"user", JSON_STRING, offsetof(struct fields, user), false, 1, USER_BYTES_MAX},
    {"stdin", JSON_STRING, offsetof(struct fields, input), false, 0, API_BODY_EXEC_MAX},
    {"timeout_ms", JSON_U32, offsetof(struct fields, timeout_ms), false, 1,
     API_EXEC_LONG_TIMEOUT_MAX_MS},
    {"stdin_open", JSON_BOOL, offsetof(struct fields, input_open), false, 0, 0},
    {"pty", JSON_OBJECT, offsetof(struct fields, pty), false, 0, 2},
};
enum { WATCHED_ONLY = 2 };

static int check_argv(const cJSON *argv, struct error *err)
{
    const cJSON *word = NULL;
    cJSON_ArrayForEach(word, argv)
    {
        if (!cJSON_IsString(word))
            return error_set(err, ERR_FIELD_TYPE, 0, "argv: every element must be a string");
    }
    if (cJSON_GetArrayItem(argv, 0)->valuestring[0] == '\0')
        return error_set(err, ERR_FIELD_VALUE, 0, "argv: the first element names the program");
    return 0;
}

static int check_env(const cJSON *env, struct error *err)
{
    const cJSON *variable = NULL;
    cJSON_ArrayForEach(variable, env)
    {
        if (variable->string[0] == '\0' || strchr(variable->string, '=') != NULL)
            return error_set(err, ERR_FIELD_VALUE, 0,
                             "env: a name is not empty and has no `=` in it");
        if (!cJSON_IsString(variable))
            return error_set(err, ERR_FIELD_TYPE, 0, "env: every value must be a string");
    }
    return 0;
}

static int check_user(const char *user, struct error *err)
{
    for (const char *at = user; at != NULL && *at != '\0'; at++)
        if (*at < '!' || *at > '~')
            return error_set(err, ERR_FIELD_VALUE, 0,
                             "user: a name, a uid or uid:gid has no spaces and is in ASCII");
    return 0;
}

/* `shell` is short for argv ["/bin/sh", "-c", shell]. */
static int shell_argv(const char *shell, cJSON **ret, struct error *err)
{
    const char *const words[] = {"/bin/sh", "-c", shell};
    *ret = cJSON_CreateStringArray(words, COUNT_OF(words));
    return *ret != NULL ? 0
                        : error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading a command");
}

static int check_size(const struct vsock_exec_request *request, struct error *err)
{
    cleanup_free char *argv = json_print(request->argv);
    cleanup_free char *env = request->env != NULL ? json_print(request->env) : NULL;
    if (argv == NULL || (env == NULL && request->env != NULL))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading a command");
    size_t size = strlen(argv) + (env != NULL ? strlen(env) : 0) +
                  (request->cwd != NULL ? 6 * strlen(request->cwd) : 0);
    if (size > COMMAND_BYTES_MAX)
        return error_set(err, ERR_FIELD_RANGE, 0,
                         "argv, env and cwd take more than %d bytes of JSON; send bulk data as "
                         "stdin",
                         COMMAND_BYTES_MAX);
    return 0;
}

struct size_fields {
    uint32_t rows, cols;
};

static int check_pty(const cJSON *pty, struct vsock_exec_request *request, struct error *err)
{
    static const struct json_field members[] = {
        {"rows", JSON_U32, offsetof(struct size_fields, rows), false, 1, UINT16_MAX},
        {"cols", JSON_U32, offsetof(struct size_fields, cols), false, 1, UINT16_MAX},
    };
    struct size_fields size = {.rows = 24, .cols = 80};
    if (pty == NULL)
        return 0;
    if (json_decode(pty, members, COUNT_OF(members), &size, err) < 0)
        return error_wrap(err, "pty");
    request->pty = true;
    request->size = (struct vsock_size){.rows = (uint16_t)size.rows, .cols = (uint16_t)size.cols};
    return 0;
}

/* Where a request may be waiting for a command its time is short, and its input all there is. */
static int check_watched(const struct fields *fields, bool watched, struct api_exec_body *body,
                         struct error *err)
{
    if (!watched && fields->timeout_ms > API_EXEC_TIMEOUT_MAX_MS)
        return error_set(err, ERR_FIELD_RANGE, 0,
                         "timeout_ms: at most %d; POST /vms/{id}/execs takes more",
                         API_EXEC_TIMEOUT_MAX_MS);
    if (watched && body->request.input_len > VMM_EXEC_INPUT_MAX)
        return error_set(err, ERR_FIELD_RANGE, 0,
                         "stdin: at most %d bytes; send the rest to .../stdin", VMM_EXEC_INPUT_MAX);
    body->input_open = fields->input_open;
    return check_pty(fields->pty, &body->request, err);
}

static int check(const struct fields *fields, struct api_exec_body *body, struct error *err)
{
    if ((fields->argv == NULL) == (fields->shell == NULL))
        return error_set(err, fields->argv == NULL ? ERR_FIELD_MISSING : ERR_FIELD_VALUE, 0,
                         "send exactly one of argv and shell");
    if (fields->argv != NULL && check_argv(fields->argv, err) < 0)
        return -1;
    if (fields->shell != NULL && shell_argv(fields->shell, &body->shell_argv, err) < 0)
        return -1;
    if (check_env(fields->env, err) < 0 || check_user(fields->user, err) < 0)
        return -1;
    if (fields->cwd != NULL && fields->cwd[0] != '/')
        return error_set(err, ERR_FIELD_VALUE, 0, "cwd: use an absolute path");
    body->request = (struct vsock_exec_request){
        .argv = fields->argv != NULL ? fields->argv : body->shell_argv,
        .env = fields->env,
        .cwd = fields->cwd,
        .user = fields->user,
        .input = fields->input,
        .input_len = fields->input != NULL ? strlen(fields->input) : 0,
        .timeout_ms = fields->timeout_ms,
        .output_max = API_OUTPUT_MAX,
    };
    return check_size(&body->request, err);
}

int api_exec_body_parse(const char *text, size_t len, bool watched, struct api_exec_body *ret,
                        struct error *err)
{
    size_t count = watched ? COUNT_OF(table) : COUNT_OF(table) - WATCHED_ONLY;
    struct fields fields = {.timeout_ms = API_EXEC_TIMEOUT_DEFAULT_MS};
    *ret = (struct api_exec_body){0};
    int result = json_parse(text, len, &ret->json, err);
    if (result == 0)
        result = json_decode(ret->json, table, count, &fields, err);
    ret->shell = fields.shell;
    ret->cwd = fields.cwd;
    ret->user = fields.user;
    ret->input = fields.input;
    if (result == 0)
        result = check(&fields, ret, err);
    if (result == 0)
        result = check_watched(&fields, watched, ret, err);
    if (result < 0)
        api_exec_body_release(ret);
    return result;
}

void api_exec_body_release(struct api_exec_body *body)
{
    free(body->shell);
    free(body->cwd);
    free(body->user);
    free(body->input);
    cJSON_Delete(body->shell_argv);
    cJSON_Delete(body->json);
    *body = (struct api_exec_body){0};
}
