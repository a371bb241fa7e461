/* The fake routes and the server around them. */
#include "tests/unit/api/fake.h"

#include "api/internal.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>

enum { WAIT_MS = 20000 };

static int respond_text(struct api_response *response, const char *text, size_t len)
{
    response->body = malloc(len + 1);
    if (response->body == NULL)
        return -1;
    memcpy(response->body, text, len);
    response->body_len = len;
    response->status = 200;
    response->content_type = "text/plain";
    return 0;
}

static int handle_who(struct api *api, const struct api_request *request,
                      struct api_response *response, struct error *err)
{
    char text[256];
    (void)api;
    (void)err;
    int len =
        snprintf(text, sizeof(text), "{\"caller\":\"%s\",\"admin\":%s,\"id\":\"%s\"}",
                 request->caller->name, request->caller->admin ? "true" : "false", request->id);
    return respond_text(response, text, (size_t)len);
}

static int handle_echo(struct api *api, const struct api_request *request,
                       struct api_response *response, struct error *err)
{
    (void)api;
    (void)err;
    return respond_text(response, request->body, request->body_len);
}

static void pass_gate(void *context)
{
    struct fake *fake = context;
    pthread_mutex_lock(&fake->lock);
    fake->inside++;
    pthread_cond_broadcast(&fake->changed);
    while (!fake->open)
        pthread_cond_wait(&fake->changed, &fake->lock);
    fake->finished++;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}

static int handle_gate(struct api *api, const struct api_request *request,
                       struct api_response *response, struct error *err)
{
    (void)request;
    (void)err;
    pass_gate(api);
    return respond_text(response, "through", 7);
}

static int handle_later(struct api *api, const struct api_request *request,
                        struct api_response *response, struct error *err)
{
    (void)request;
    (void)err;
    response->later = pass_gate;
    response->later_context = api;
    return respond_text(response, "first", 5);
}

static int handle_upload(struct api *api, const struct api_request *request,
                         struct api_response *response, struct error *err)
{
    struct fake *fake = (struct fake *)(void *)api;
    uint8_t bytes[5000];
    uint64_t size = 0, sum = 0;
    ssize_t got;
    char text[96];
    if (strcmp(request->query, "early") == 0)
        return error_set(err, ERR_VM_UNKNOWN, 0, "nobody wants it");
    if (strcmp(request->query, "held") == 0)
        pass_gate(api);
    while ((got = request->upload->read(request->upload->context, bytes, sizeof(bytes), err)) > 0)
        for (ssize_t i = 0; i < got; i++)
            sum += bytes[i] * ++size;
    if (got < 0) {
        pthread_mutex_lock(&fake->lock);
        fake->broken++;
        pthread_cond_broadcast(&fake->changed);
        pthread_mutex_unlock(&fake->lock);
        return -1;
    }
    int len = snprintf(text, sizeof(text), "{\"size\":%llu,\"sum\":%llu}", (unsigned long long)size,
                       (unsigned long long)sum);
    return respond_text(response, text, (size_t)len);
}

static int handle_metrics(struct api *api, const struct api_request *request,
                          struct api_response *response, struct error *err)
{
    (void)api;
    (void)request;
    (void)err;
    return respond_text(response, "metrics", 7);
}

/* It would wait for no gate: the answer is at hand. */
static bool know(struct api *api, const struct api_request *request, struct api_response *response)
{
    (void)api;
    return strcmp(request->query, "known") == 0 && respond_text(response, "known", 5) == 0;
}

static const struct api_route routes[] = {
    {"GET", "/fast", handle_who, 0, API_POOL_FAST, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"GET", "/vms/{id}", handle_who, 0, API_POOL_FAST, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"POST", "/echo", handle_echo, FAKE_ECHO_MAX, API_POOL_FAST, API_ROLE_CALLER, false, NULL,
     API_ONCE},
    {"GET", "/slow", handle_gate, 0, API_POOL_LIFE, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"GET", "/held", handle_gate, 0, API_POOL_EXEC, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"GET", "/perhaps", handle_gate, 0, API_POOL_FAST, API_ROLE_CALLER, false, know, API_ONCE},
    {"GET", "/later", handle_later, 0, API_POOL_LIFE, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"GET", "/events", fake_events, 0, API_POOL_FAST, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"GET", "/file", fake_file, 0, API_POOL_FAST, API_ROLE_CALLER, false, NULL, API_ONCE},
    {"PUT", "/upload", handle_upload, FAKE_UPLOAD_MAX, API_POOL_FILES, API_ROLE_CALLER, false, NULL,
     API_ONCE},
    {"GET", "/healthz", api_health, 0, API_POOL_NONE, API_ROLE_ANYBODY, true, NULL, API_ONCE},
    {"GET", "/metrics", handle_metrics, 0, API_POOL_FAST, API_ROLE_LOCAL, true, NULL, API_ONCE},
};

static int listen_unix(char *path, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    snprintf(path, size, "/tmp/motte-test-%d-%lld.sock", getpid(), (long long)clock_mono_us());
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 1024) < 0)
        return -1;
    return fd;
}

static int listen_tcp(unsigned *ret_port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 || listen(fd, 64) < 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) < 0)
        return -1;
    *ret_port = ntohs(address.sin_port);
    return fd;
}

static int add_token(struct buf *text, const char *name, enum token_role role, const char *secret)
{
    struct token token = {.role = role};
    snprintf(token.name, sizeof(token.name), "%s", name);
    snprintf(token.tenant, sizeof(token.tenant), "%s", name);
    hash_sha256(secret, strlen(secret), token.digest);
    return token_write(&token, text);
}

int fake_tokens(const char *extra)
{
    struct buf text cleanup(buf_release) = {.max = 4096};
    int fd = memfd_create("tokens", MFD_CLOEXEC);
    if (add_token(&text, "alice", TOKEN_OPERATE, FAKE_TOKEN) < 0 ||
        add_token(&text, "admin", TOKEN_ADMIN, FAKE_TOKEN_ADMIN) < 0 ||
        add_token(&text, "rita", TOKEN_READ, FAKE_TOKEN_READ) < 0 ||
        buf_printf(&text, "# more\n%s", extra) < 0 || fs_write_all(fd, text.data, text.len) < 0)
        return -1;
    return fd;
}

static struct server_tokens *make_tokens(void)
{
    struct server_tokens *tokens = NULL;
    struct error err = {0};
    cleanup_close int fd = fake_tokens("");
    return fd >= 0 && server_tokens_read(fd, &tokens, &err) == 0 ? tokens : NULL;
}

bool fake_start(struct fake *fake, struct server_options options)
{
    struct error err = {0};
    *fake = (struct fake){0};
    pthread_mutex_init(&fake->lock, NULL);
    pthread_cond_init(&fake->changed, NULL);
    const struct server_listener listeners[] = {
        {SERVER_UNIX, listen_unix(fake->path, sizeof(fake->path))},
        {SERVER_TCP, listen_tcp(&fake->port)},
        {SERVER_METRICS, listen_tcp(&fake->monitoring)},
    };
    fake->metrics = server_metrics_new(routes, COUNT_OF(routes));
    fake->tokens = make_tokens();
    options.routes = routes;
    options.route_count = COUNT_OF(routes);
    options.api = &fake->api;
    options.listeners = listeners;
    options.listener_count = COUNT_OF(listeners);
    options.tokens = fake->tokens;
    options.metrics = fake->metrics;
    return fake->tokens != NULL && server_start(&options, &fake->server, &err) == 0;
}

unsigned fake_stop(struct fake *fake)
{
    fake_open(fake);
    unsigned left = server_stop(fake->server, WAIT_MS);
    unlink(fake->path);
    server_metrics_free(fake->metrics);
    server_tokens_free(fake->tokens);
    pthread_mutex_destroy(&fake->lock);
    pthread_cond_destroy(&fake->changed);
    return left;
}

static bool wait_for(struct fake *fake, const unsigned *counter, unsigned count)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += WAIT_MS / 1000;
    int result = 0;
    pthread_mutex_lock(&fake->lock);
    while (*counter < count && result == 0)
        result = pthread_cond_timedwait(&fake->changed, &fake->lock, &until);
    bool there = *counter >= count;
    pthread_mutex_unlock(&fake->lock);
    return there;
}

bool fake_wait_inside(struct fake *fake, unsigned count)
{
    return wait_for(fake, &fake->inside, count);
}

bool fake_wait_broken(struct fake *fake, unsigned count)
{
    return wait_for(fake, &fake->broken, count);
}

bool fake_wait_finished(struct fake *fake, unsigned count)
{
    return wait_for(fake, &fake->finished, count);
}

bool fake_wait_closed(struct fake *fake, unsigned count)
{
    return wait_for(fake, &fake->closed, count);
}

void fake_open(struct fake *fake)
{
    pthread_mutex_lock(&fake->lock);
    fake->open = true;
    pthread_cond_broadcast(&fake->changed);
    pthread_mutex_unlock(&fake->lock);
}
