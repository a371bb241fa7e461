/* Bearer tokens. Only their digests are kept, and all of them are compared each time. */
#include "server/internal.h"

enum { SECRET_MAX = 256 };

/* What is left of a token's requests. */
struct bucket {
    double left;
    int64_t since_us; /* 0: full */
};

struct server_tokens {
    pthread_rwlock_t lock; /* the list: a reload replaces it */
    struct token_list list;
    pthread_mutex_t spending;
    struct bucket buckets[TOKENS_MAX]; /* of those in the list; under both locks */
};

int server_tokens_read(int fd, struct server_tokens **ret, struct error *err)
{
    cleanup_free char *text = malloc(TOKENS_FILE_MAX);
    cleanup_free struct server_tokens *tokens = calloc(1, sizeof(*tokens));
    if (text == NULL || tokens == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading tokens");
    ssize_t len = pread(fd, text, TOKENS_FILE_MAX - 1, 0);
    if (len < 0)
        return error_set(err, ERR_CONFIG, 0, "the tokens cannot be read");
    if (len == TOKENS_FILE_MAX - 1)
        return error_set(err, ERR_CONFIG, 0, "the tokens take more than %d bytes",
                         TOKENS_FILE_MAX - 2);
    text[len] = '\0';
    if (token_list_parse(text, &tokens->list, err) < 0)
        return -1;
    pthread_rwlock_init(&tokens->lock, NULL);
    pthread_mutex_init(&tokens->spending, NULL);
    *ret = TAKE_PTR(tokens);
    return 0;
}

static size_t place_of(const struct token_list *list, const char *name)
{
    size_t i = 0;
    while (i < list->count && strcmp(list->tokens[i].name, name) != 0)
        i++;
    return i;
}

/* A reload is no way to more requests. */
static void keep_buckets(const struct server_tokens *tokens, struct server_tokens *fresh)
{
    for (size_t i = 0; i < fresh->list.count; i++) {
        size_t old = place_of(&tokens->list, fresh->list.tokens[i].name);
        if (old < tokens->list.count)
            fresh->buckets[i] = tokens->buckets[old];
    }
}

void server_tokens_take(struct server_tokens *tokens, struct server_tokens *fresh)
{
    pthread_rwlock_wrlock(&tokens->lock);
    keep_buckets(tokens, fresh);
    tokens->list = fresh->list;
    memcpy(tokens->buckets, fresh->buckets, sizeof(tokens->buckets));
    pthread_rwlock_unlock(&tokens->lock);
    server_tokens_free(fresh);
}

void server_tokens_free(struct server_tokens *tokens)
{
    if (tokens == NULL)
        return;
    pthread_rwlock_destroy(&tokens->lock);
    pthread_mutex_destroy(&tokens->spending);
    free(tokens);
}

/* Compares with every one, whichever it is. */
static bool find(const struct token_list *list, const uint8_t *digest, struct caller *ret)
{
    const struct token *found = NULL;
    for (size_t i = 0; i < list->count; i++)
        if (token_matches(&list->tokens[i], digest))
            found = &list->tokens[i];
    if (found == NULL)
        return false;
    *ret =
        (struct caller){.admin = found->role == TOKEN_ADMIN, .reader = found->role == TOKEN_READ};
    snprintf(ret->name, sizeof(ret->name), "%s", found->tenant);
    snprintf(ret->token, sizeof(ret->token), "%s", found->name);
    memcpy(ret->secret, found->digest, sizeof(ret->secret));
    return true;
}

/* Of the same secret, tenant and role: else what it began is no longer what it may. */
static bool is_same(const struct token *token, const struct caller *caller)
{
    return token_matches(token, caller->secret) && strcmp(token->tenant, caller->name) == 0 &&
           (token->role == TOKEN_ADMIN) == caller->admin &&
           (token->role == TOKEN_READ) == caller->reader;
}

bool server_tokens_stand(void *context, const struct caller *caller)
{
    struct server_tokens *tokens = context;
    if (caller->token[0] == '\0' || tokens == NULL)
        return true;
    pthread_rwlock_rdlock(&tokens->lock);
    size_t i = place_of(&tokens->list, caller->token);
    bool stands = i < tokens->list.count && is_same(&tokens->list.tokens[i], caller);
    pthread_rwlock_unlock(&tokens->lock);
    return stands;
}

bool server_tokens_find(struct server_tokens *tokens, const char *header, struct caller *ret)
{
    static const char scheme[] = "Bearer ";
    if (tokens == NULL || header == NULL || strncasecmp(header, scheme, strlen(scheme)) != 0)
        return false;
    const char *secret = header + strlen(scheme);
    secret += strspn(secret, " ");
    size_t len = strlen(secret);
    uint8_t digest[HASH_SIZE];
    if (len == 0 || len > SECRET_MAX)
        return false;
    hash_sha256(secret, len, digest);
    pthread_rwlock_rdlock(&tokens->lock);
    bool found = find(&tokens->list, digest, ret);
    pthread_rwlock_unlock(&tokens->lock);
    return found;
}

static bool spend(struct bucket *bucket, uint32_t rate, int64_t now_us)
{
    const double most = 2.0 * rate;
    double came = bucket->since_us == 0 ? most : (double)(now_us - bucket->since_us) / 1e6 * rate;
    bucket->left = bucket->left + came < most ? bucket->left + came : most;
    bucket->since_us = now_us;
    if (bucket->left < 1)
        return false;
    bucket->left -= 1;
    return true;
}

bool server_tokens_spend(struct server_tokens *tokens, const char *name)
{
    bool good = true;
    pthread_rwlock_rdlock(&tokens->lock);
    size_t i = place_of(&tokens->list, name);
    if (i < tokens->list.count && tokens->list.tokens[i].rate > 0) {
        pthread_mutex_lock(&tokens->spending);
        good = spend(&tokens->buckets[i], tokens->list.tokens[i].rate, clock_mono_us());
        pthread_mutex_unlock(&tokens->spending);
    }
    pthread_rwlock_unlock(&tokens->lock);
    return good;
}
