/* Many clients at once, then a stop under load: run under ThreadSanitizer too. */
#include "tests/unit/api/fake.h"

enum { CLIENTS = 8, REQUESTS = 60 };

struct client {
    pthread_t thread;
    struct fake *fake;
    unsigned wrong;
};

static bool ask(struct fake *fake, int *fd, const char *text)
{
    if (*fd < 0)
        *fd = http_connect_unix(fake->path);
    bool sent = *fd >= 0 && http_send(*fd, text);
    struct http_answer answer = sent ? http_read(*fd) : (struct http_answer){0};
    bool good = answer.status == 200 || answer.status == 404 || answer.status == 503;
    http_release(&answer);
    return good;
}

/* Leaves while others listen and speak. */
static bool listen_a_while(struct fake *fake)
{
    cleanup_close int fd = http_connect_unix(fake->path);
    bool sent = fd >= 0 && http_send(fd, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n");
    struct http_answer answer = sent ? http_read(fd) : (struct http_answer){0};
    fake_say(fake, "word");
    http_release(&answer);
    return answer.status == 200 || answer.status == 503;
}

static void *run(void *context)
{
    static const char *const texts[] = {
        "GET /fast HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        "Content-Length: 4\r\n\r\nbody",
        "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /later HTTP/1.1\r\nHost: x\r\n\r\n",
        "PUT /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "PUT /upload?early HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
        "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    };
    struct client *client = context;
    cleanup_close int fd = -1;
    for (size_t i = 0; i < REQUESTS; i++)
        if (!ask(client->fake, &fd, texts[i % COUNT_OF(texts)]) ||
            (i % 4 == 0 && !listen_a_while(client->fake)))
            client->wrong++;
    return NULL;
}

static unsigned load(struct fake *fake)
{
    struct client clients[CLIENTS];
    unsigned wrong = 0;
    for (size_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){.fake = fake};
        if (pthread_create(&clients[i].thread, NULL, run, &clients[i]) != 0)
            return 1;
    }
    for (size_t i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        wrong += clients[i].wrong;
    }
    return wrong;
}

/* Stops while requests wait at the gate: they pass it as the server drains. */
static bool stop_under_load(struct fake *fake)
{
    int fds[16];
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = http_connect_unix(fake->path);
        if (fds[i] < 0 || !http_send(fds[i], "GET /held HTTP/1.1\r\nHost: x\r\n\r\n"))
            return false;
    }
    bool good = fake_stop(fake) == 0;
    for (size_t i = 0; i < COUNT_OF(fds); i++)
        close(fds[i]);
    return good;
}

static void *ask_by_token(void *context)
{
    struct client *client = context;
    for (size_t i = 0; i < REQUESTS; i++) {
        cleanup_close int fd = http_connect_tcp(client->fake->port);
        bool sent = fd >= 0 && http_send(fd, "GET /fast HTTP/1.1\r\nHost: x\r\n"
                                             "Authorization: Bearer " FAKE_TOKEN "\r\n\r\n");
        struct http_answer answer = sent ? http_read(fd) : (struct http_answer){0};
        client->wrong += answer.status != 200;
        http_release(&answer);
    }
    return NULL;
}

/* A caller whose token stays notices nothing of the others' comings and goings. */
static unsigned replace_tokens_under_load(struct fake *fake)
{
    struct client client = {.fake = fake};
    unsigned wrong = 0;
    if (pthread_create(&client.thread, NULL, ask_by_token, &client) != 0)
        return 1;
    for (unsigned i = 0; i < 200; i++) {
        struct error err = {0};
        cleanup_close int fd = fake_tokens(i % 2 ? "" : "bare = abcdefghij0123456789\n");
        struct server_tokens *fresh = NULL;
        wrong += (server_tokens_read(fd, &fresh, &err) == 0) != (i % 2 == 1);
        if (fresh != NULL)
            server_tokens_take(fake->tokens, fresh);
    }
    pthread_join(client.thread, NULL);
    return wrong + client.wrong;
}

int main(void)
{
    struct fake fake;
    log_open("test", LOG_LEVEL_ERROR, LOG_TEXT);
    const struct server_options options = {.pools = {[API_POOL_FAST] = {4, 8, false},
                                                     [API_POOL_LIFE] = {4, 4, false},
                                                     [API_POOL_EXEC] = {4, 8, true}}};
    if (!fake_start(&fake, options))
        return 1;
    fake_open(&fake);
    unsigned wrong = load(&fake) + replace_tokens_under_load(&fake);
    if (wrong > 0)
        fprintf(stderr, "%u requests had no answer, or a wrong one\n", wrong);
    bool stopped = stop_under_load(&fake);
    if (!stopped)
        fprintf(stderr, "the server did not stop\n");
    return wrong == 0 && stopped ? 0 : 1;
}
