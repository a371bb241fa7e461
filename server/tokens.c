/* Bearer tokens. Only their digests are kept, and all of them are compared each time. */
#include "server/internal.h"

enum { TOKENS_MAX = 256, TOKEN_MIN = 20, TOKEN_MAX = 256, DISTINCT_MIN = 8, FILE_MAX = 65536 };

struct token {
    char name[ID_NAME_MAX + 1];
    uint8_t digest[HASH_SIZE];
};

struct server_tokens {
    pthread_rwlock_t lock; /* the rest: a reload replaces it */
    size_t count;
    struct token tokens[TOKENS_MAX];
};

static bool digests_equal(const uint8_t *a, const uint8_t *b)
{
    unsigned differ = 0;
    for (size_t i = 0; i < HASH_SIZE; i++)
        differ |= (unsigned)(a[i] ^ b[i]);
    return differ == 0;
}

/* "changeme" and "xxxxxxxxxxxxxxxxxxxx" are not secrets. */
static int check_strength(const char *name, const char *token, struct error *err)
{
    bool seen[256] = {false};
    unsigned distinct = 0;
    size_t len = strlen(token);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)token[i];
        if (c <= ' ' || c >= 0x7f)
            return error_set(err, ERR_CONFIG, 0, "the token of `%s` may have printable ASCII only",
                             name);
        distinct += !seen[c];
        seen[c] = true;
    }
    if (len < TOKEN_MIN || len > TOKEN_MAX || distinct < DISTINCT_MIN)
        return error_set(err, ERR_CONFIG, 0,
                         "the token of `%s` is too weak or too long: make one with `motted token`",
                         name);
    return 0;
}

static int add(void *context, const char *name, const char *value, struct error *err)
{
    struct server_tokens *tokens = context;
    if (!id_name_valid(name) || strcmp(name, "root") == 0)
        return error_set(err, ERR_CONFIG, 0,
                         "tokens: `%s` cannot be a name; use a-z 0-9 . _ - and not root", name);
    if (tokens->count == TOKENS_MAX)
        return error_set(err, ERR_CONFIG, 0, "tokens: at most %d", TOKENS_MAX);
    if (check_strength(name, value, err) < 0)
        return -1;
    struct token *token = &tokens->tokens[tokens->count];
    snprintf(token->name, sizeof(token->name), "%s", name);
    hash_sha256(value, strlen(value), token->digest);
    for (size_t i = 0; i < tokens->count; i++)
        if (digests_equal(tokens->tokens[i].digest, token->digest))
            return error_set(err, ERR_CONFIG, 0, "tokens: `%s` and `%s` have the same one",
                             tokens->tokens[i].name, name);
    tokens->count++;
    return 0;
}

int server_tokens_read(int fd, struct server_tokens **ret, struct error *err)
{
    char text[FILE_MAX];
    ssize_t len = pread(fd, text, sizeof(text) - 1, 0);
    if (len < 0)
        return error_set(err, ERR_CONFIG, 0, "the tokens cannot be read");
    if (len == sizeof(text) - 1)
        return error_set(err, ERR_CONFIG, 0, "the tokens take more than %d bytes", FILE_MAX - 2);
    text[len] = '\0';
    cleanup_free struct server_tokens *tokens = calloc(1, sizeof(*tokens));
    int result = tokens != NULL ? kv_parse(text, "tokens", add, tokens, err) : -1;
    explicit_bzero(text, sizeof(text));
    if (tokens == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading tokens");
    if (result < 0)
        return -1;
    if (tokens->count == 0)
        return error_set(err, ERR_CONFIG, 0, "the tokens file is empty: run `motted token`");
    pthread_rwlock_init(&tokens->lock, NULL);
    *ret = TAKE_PTR(tokens);
    return 0;
}

int server_tokens_replace(struct server_tokens *tokens, int fd, struct error *err)
{
    struct server_tokens *fresh = NULL;
    if (server_tokens_read(fd, &fresh, err) < 0)
        return -1;
    pthread_rwlock_wrlock(&tokens->lock);
    tokens->count = fresh->count;
    memcpy(tokens->tokens, fresh->tokens, sizeof(tokens->tokens));
    pthread_rwlock_unlock(&tokens->lock);
    server_tokens_free(fresh);
    return 0;
}

void server_tokens_free(struct server_tokens *tokens)
{
    if (tokens == NULL)
        return;
    pthread_rwlock_destroy(&tokens->lock);
    free(tokens);
}

/* Compares with every one, whichever it is. */
static bool find(const struct server_tokens *tokens, const uint8_t *digest, struct caller *ret)
{
    const struct token *found = NULL;
    for (size_t i = 0; i < tokens->count; i++)
        if (digests_equal(tokens->tokens[i].digest, digest))
            found = &tokens->tokens[i];
    if (found == NULL)
        return false;
    *ret = (struct caller){.admin = strcmp(found->name, "admin") == 0};
    snprintf(ret->name, sizeof(ret->name), "%s", found->name);
    return true;
}

bool server_tokens_find(struct server_tokens *tokens, const char *header, struct caller *ret)
{
    static const char scheme[] = "Bearer ";
    if (tokens == NULL || header == NULL || strncasecmp(header, scheme, strlen(scheme)) != 0)
        return false;
    const char *token = header + strlen(scheme);
    token += strspn(token, " ");
    size_t len = strlen(token);
    uint8_t digest[HASH_SIZE];
    hash_sha256(token, len <= TOKEN_MAX ? len : 0, digest);
    pthread_rwlock_rdlock(&tokens->lock);
    bool found = find(tokens, digest, ret);
    pthread_rwlock_unlock(&tokens->lock);
    return found;
}
