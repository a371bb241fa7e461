/* motte-admin token: the tokens file, line by line. It is root's and outside the front's directory: a
 * front that was taken over cannot give itself a token, and an old inventory that is restored brings
 * none back. */
#include "admin/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>

/* Tells our secrets from others', to those who look for leaked ones. */
static const char secret_prefix[] = "motte_";

struct tokens {
    int dir;          /* of the file; locked: one writer at a time */
    const char *name; /* in it */
    struct buf text;
    struct token_list list;
};

static void tokens_release(struct tokens *tokens)
{
    cleanup_close_func(&tokens->dir);
    buf_release(&tokens->text);
}

static int open_dir(const char *path, struct tokens *ret, struct error *err)
{
    char dir[256];
    const char *slash = strrchr(path, '/');
    if (path[0] != '/' || slash[1] == '\0' || (size_t)(slash - path) >= sizeof(dir))
        return error_set(err, ERR_CONFIG, 0, "--token-file: use an absolute path");
    snprintf(dir, sizeof(dir), "%.*s", slash == path ? 1 : (int)(slash - path), path);
    ret->name = slash + 1;
    ret->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (ret->dir < 0 || flock(ret->dir, LOCK_EX) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %.120s", dir);
    return 0;
}

/* No file yet is one without tokens. */
static int read_file(struct tokens *tokens, struct error *err)
{
    struct stat st;
    tokens->text.max = TOKENS_FILE_MAX - 2; /* what the service reads */
    cleanup_close int fd = openat(tokens->dir, tokens->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot open %.120s", tokens->name);
    cleanup_free char *text = malloc(TOKENS_FILE_MAX);
    ssize_t len = text != NULL ? read(fd, text, TOKENS_FILE_MAX) : -1;
    if (len < 0 || !S_ISREG(st.st_mode) || buf_append(&tokens->text, text, (size_t)len) < 0)
        return error_set(err, ERR_SYSTEM, len < 0 ? errno : 0,
                         "Cannot read %.120s, or it is no file of at most %zu bytes", tokens->name,
                         tokens->text.max);
    text[len] = '\0'; /* there is room: it fitted into tokens->text */
    return token_list_parse(text, &tokens->list, err);
}

static int tokens_open(const struct admin *admin, struct tokens *ret, struct error *err)
{
    return open_dir(admin->token_file, ret, err) < 0 ? -1 : read_file(ret, err);
}

static const struct token *find(const struct tokens *tokens, const char *name)
{
    for (size_t i = 0; i < tokens->list.count; i++)
        if (strcmp(tokens->list.tokens[i].name, name) == 0)
            return &tokens->list.tokens[i];
    return NULL;
}

static int replace(const struct tokens *tokens, const struct buf *text, struct error *err)
{
    if (fs_replace_at(tokens->dir, tokens->name, text->data != NULL ? text->data : "", text->len,
                      0600) < 0)
        return error_set(err, ERR_SYSTEM, errno, "Cannot write %.120s", tokens->name);
    return 0;
}

/* ---- create ---- */

static int make_secret(char *out, size_t size, struct error *err)
{
    uint8_t random[HASH_SIZE];
    char hex[HASH_HEX_SIZE];
    if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
        return error_set(err, ERR_SYSTEM, errno, "Cannot get random bytes");
    hash_to_hex(random, sizeof(random), hex);
    snprintf(out, size, "%s%s", secret_prefix, hex);
    return 0;
}

static int fill(const struct admin *admin, struct token *ret, struct error *err)
{
    const char *tenant = admin->tenant != NULL ? admin->tenant : admin->operand;
    if (token_name_check("token", admin->operand, err) < 0 ||
        token_name_check("tenant", tenant, err) < 0 ||
        token_role_parse(admin->role, &ret->role, err) < 0)
        return -1;
    snprintf(ret->name, sizeof(ret->name), "%s", admin->operand);
    snprintf(ret->tenant, sizeof(ret->tenant), "%s", tenant);
    ret->rate = admin->rate;
    return 0;
}

static int append(struct tokens *tokens, const struct token *token, struct error *err)
{
    const struct buf *text = &tokens->text;
    bool ended = text->len == 0 || text->data[text->len - 1] == '\n';
    if (tokens->list.count == TOKENS_MAX || (!ended && buf_append(&tokens->text, "\n", 1) < 0) ||
        token_write(token, &tokens->text) < 0)
        return error_set(err, ERR_CONFIG, 0, "There are too many tokens: revoke some");
    return replace(tokens, &tokens->text, err);
}

int admin_token_create(const struct admin *admin, struct error *err)
{
    cleanup(tokens_release) struct tokens tokens = {.dir = -1};
    struct token token = {0};
    char secret[sizeof(secret_prefix) + HASH_HEX_SIZE];
    if (admin->operand == NULL)
        return error_set(err, ERR_CONFIG, 0, "The NAME of the token is missing");
    if (fill(admin, &token, err) < 0 || tokens_open(admin, &tokens, err) < 0)
        return -1;
    if (find(&tokens, token.name) != NULL)
        return error_set(err, ERR_CONFIG, 0,
                         "There is a token `%s`; to change its secret make another for the same "
                         "tenant, then revoke this one",
                         token.name);
    if (make_secret(secret, sizeof(secret), err) < 0)
        return -1;
    hash_sha256(secret, strlen(secret), token.digest);
    if (append(&tokens, &token, err) < 0)
        return -1;
    printf("%s\n", secret);
    return admin_reload(admin, err);
}

/* ---- list ---- */

static int print_json(const struct tokens *tokens, struct error *err)
{
    cJSON *json = cJSON_CreateArray();
    bool failed = json == NULL;
    for (size_t i = 0; i < tokens->list.count && !failed; i++) {
        const struct token *token = &tokens->list.tokens[i];
        cJSON *object = cJSON_CreateObject();
        failed = object == NULL || !cJSON_AddItemToArray(json, object) ||
                 json_add_string(object, "name", token->name) < 0 ||
                 json_add_string(object, "role", token_role_name(token->role)) < 0 ||
                 json_add_string(object, "tenant", token->tenant) < 0 ||
                 (token->rate > 0 && json_add_number(object, "rate", token->rate) < 0);
    }
    cleanup_free char *text = failed ? NULL : cJSON_Print(json);
    cJSON_Delete(json);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory for the list");
    puts(text);
    return 0;
}

int admin_token_list(const struct admin *admin, struct error *err)
{
    cleanup(tokens_release) struct tokens tokens = {.dir = -1};
    if (tokens_open(admin, &tokens, err) < 0)
        return -1;
    if (admin->json)
        return print_json(&tokens, err);
    for (size_t i = 0; i < tokens.list.count; i++) {
        const struct token *token = &tokens.list.tokens[i];
        printf("%-32s %-8s %s\n", token->name, token_role_name(token->role), token->tenant);
    }
    return 0;
}

/* ---- revoke ---- */

/* Is this line, up to its `=`, about the name? Comments and other lines stay as they are. */
static bool is_about(const char *line, size_t len, const char *name)
{
    size_t skip = 0;
    while (skip < len && (line[skip] == ' ' || line[skip] == '\t'))
        skip++;
    const char *key = line + skip;
    size_t size = strlen(name);
    return len - skip > size && strncmp(key, name, size) == 0 && strchr(" \t=", key[size]) != NULL;
}

static int without(const struct tokens *tokens, const char *name, struct buf *ret)
{
    const char *line = tokens->text.data, *end = line + tokens->text.len;
    while (line < end) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        size_t len = (size_t)((newline != NULL ? newline + 1 : end) - line);
        if (!is_about(line, len, name) && buf_append(ret, line, len) < 0)
            return -1;
        line += len;
    }
    return 0;
}

int admin_token_revoke(const struct admin *admin, struct error *err)
{
    cleanup(tokens_release) struct tokens tokens = {.dir = -1};
    struct buf text cleanup(buf_release) = {.max = TOKENS_FILE_MAX};
    if (admin->operand == NULL)
        return error_set(err, ERR_CONFIG, 0, "The NAME of the token is missing");
    if (tokens_open(admin, &tokens, err) < 0)
        return -1;
    if (find(&tokens, admin->operand) == NULL)
        return error_set(err, ERR_NOT_FOUND, 0, "There is no token `%.40s`", admin->operand);
    if (without(&tokens, admin->operand, &text) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "Out of memory for the tokens");
    return replace(&tokens, &text, err) < 0 ? -1 : admin_reload(admin, err);
}
