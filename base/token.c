/* The tokens file: who may call over TCP, as what, and whose things he then sees. */
#include "base/base.h"

static const char *const role_names[] = {
    [TOKEN_READ] = "read", [TOKEN_OPERATE] = "operate", [TOKEN_ADMIN] = "admin"};

static const char digest_prefix[] = "sha256:", rate_prefix[] = "rate=";

const char *token_role_name(enum token_role role)
{
    return role_names[role];
}

int token_role_parse(const char *name, enum token_role *ret, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(role_names); i++) {
        if (strcmp(role_names[i], name) == 0) {
            *ret = (enum token_role)i;
            return 0;
        }
    }
    return error_set(err, ERR_CONFIG, 0, "`%.20s` is no role; there are read, operate and admin",
                     name);
}

int token_name_check(const char *what, const char *name, struct error *err)
{
    if (id_name_valid(name) && strcmp(name, "root") != 0)
        return 0;
    return error_set(err, ERR_CONFIG, 0,
                     "`%.40s` is no name of a %s: use 1 to %d of a-z 0-9 . _ - and not root", name,
                     what, ID_NAME_MAX);
}

bool token_matches(const struct token *token, const uint8_t digest[static HASH_SIZE])
{
    unsigned differ = 0;
    for (size_t i = 0; i < HASH_SIZE; i++)
        differ |= (unsigned)(token->digest[i] ^ digest[i]);
    return differ == 0;
}

static char *next_word(char **rest)
{
    char *word;
    while ((word = strsep(rest, " \t")) != NULL && *word == '\0')
        continue;
    return word;
}

static int parse_digest(const char *word, struct token *ret)
{
    size_t prefix = strlen(digest_prefix);
    return word == NULL || strncmp(word, digest_prefix, prefix) != 0
               ? -1
               : hash_from_hex(word + prefix, ret->digest, HASH_SIZE);
}

static int parse_rate(const char *word, struct token *ret)
{
    uint64_t rate = 0;
    struct error ignored = {0};
    if (word == NULL)
        return 0;
    if (strncmp(word, rate_prefix, strlen(rate_prefix)) != 0 ||
        kv_number("rate", word + strlen(rate_prefix), 1, TOKEN_RATE_MAX, &rate, &ignored) < 0)
        return -1;
    ret->rate = (uint32_t)rate;
    return 0;
}

/* Never says what stood there: it may be a secret that somebody wrote down. */
static int parse_value(char *value, struct token *ret, struct error *err)
{
    const char *role = next_word(&value);
    const char *tenant = next_word(&value);
    const char *digest = next_word(&value);
    const char *rate = next_word(&value);
    if (parse_digest(digest, ret) < 0 || parse_rate(rate, ret) < 0 || next_word(&value) != NULL)
        return error_set(
            err, ERR_CONFIG, 0,
            "the token `%s` is not `ROLE TENANT sha256:DIGEST [rate=N]`: make it with `motted "
            "token create`",
            ret->name);
    if (token_role_parse(role, &ret->role, err) < 0 || token_name_check("tenant", tenant, err) < 0)
        return -1;
    snprintf(ret->tenant, sizeof(ret->tenant), "%s", tenant);
    return 0;
}

static int add(void *context, const char *name, const char *value, struct error *err)
{
    struct token_list *list = context;
    cleanup_free char *copy = strdup(value);
    if (copy == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading tokens");
    if (token_name_check("token", name, err) < 0)
        return -1;
    if (list->count == TOKENS_MAX)
        return error_set(err, ERR_CONFIG, 0, "there are more than %d tokens", TOKENS_MAX);
    struct token *token = &list->tokens[list->count];
    snprintf(token->name, sizeof(token->name), "%s", name);
    if (parse_value(copy, token, err) < 0)
        return -1;
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->tokens[i].name, name) == 0 ||
            token_matches(&list->tokens[i], token->digest))
            return error_set(err, ERR_CONFIG, 0, "the token `%s` is there twice (as `%s`)", name,
                             list->tokens[i].name);
    list->count++;
    return 0;
}

int token_list_parse(char *text, struct token_list *ret, struct error *err)
{
    *ret = (struct token_list){0};
    return kv_parse(text, "tokens", add, ret, err);
}

int token_write(const struct token *token, struct buf *out)
{
    char hex[HASH_HEX_SIZE], rate[32] = "";
    hash_to_hex(token->digest, HASH_SIZE, hex);
    if (token->rate > 0)
        snprintf(rate, sizeof(rate), " %s%u", rate_prefix, token->rate);
    return buf_printf(out, "%s = %s %s %s%s%s\n", token->name, token_role_name(token->role),
                      token->tenant, digest_prefix, hex, rate);
}
