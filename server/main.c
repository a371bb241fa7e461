/*
 * motte-front: everything of Motte that needs no privilege. motted starts it (docs/handover.md). A
 * table of contents: what is opened, in which order, and closed in reverse.
 */
#include "server/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>

enum { DRAIN_MS = 10000 };

struct front {
    struct server_config config;
    int signals, state_dir;
    struct server_confined confined;
    struct server_tokens *tokens;
    struct server_tls *tls;
    struct server_metrics *metrics;
    struct server_metrics_sources sources;
    struct store *store;
    struct priv_client *priv;
    struct vmm *vmm;
    struct api api;
    struct server *server;
};

static int open_signals(struct front *front, struct error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGHUP, SIG_IGN);                /* the root half's: it reads the configuration */
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* before threads: they inherit it */
    front->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (front->signals < 0)
        return error_set(err, ERR_SYSTEM, errno, "cannot listen to signals");
    return 0;
}

static int open_files(struct front *front, struct error *err)
{
    const struct server_config *config = &front->config;
    char path[256];
    int len = snprintf(path, sizeof(path), "%s/front", config->state_dir);
    if (len < 0 || (size_t)len >= sizeof(path))
        return error_set(err, ERR_CONFIG, 0, "--state-dir: this path is too long");
    front->state_dir = open(config->state_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (front->state_dir < 0)
        return error_set(err, ERR_CONFIG, errno, "--state-dir: cannot open %s", config->state_dir);
    if (config->token_fd >= 0 && server_tokens_read(config->token_fd, &front->tokens, err) < 0)
        return -1;
    if (config->tls_fd >= 0 && server_tls_read(config->tls_fd, &front->tls, err) < 0)
        return -1;
    if (store_open(path, &front->store, err) < 0)
        return -1;
    store_quotas_set(front->store, &config->quotas);
    return 0;
}

/* What is opened is opened; from here on the front takes words from outside. */
static int confine(struct front *front, struct error *err)
{
    const struct server_confined *confined = &front->confined;
    if (server_confine(front->state_dir, &front->confined, err) < 0)
        return -1;
    bool whole = confined->landlock_abi > 0 && confined->filtered;
    log_write(whole ? LOG_LEVEL_INFO : LOG_LEVEL_WARN, "confined: %s, %s",
              confined->landlock_abi > 0
                  ? "files by landlock"
                  : "files by their permissions alone (this kernel has no landlock)",
              confined->filtered ? "system calls by seccomp"
                                 : "any system call (built with a sanitizer)");
    return 0;
}

static int open_vmm(struct front *front, struct error *err)
{
    size_t route_count = 0;
    const struct api_route *routes = api_routes(&route_count);
    front->metrics = server_metrics_new(routes, route_count);
    if (front->metrics == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for metrics");
    if (priv_client_new(PRIV_ROOT_CHANNEL_FD, &front->priv, err) < 0)
        return -1;
    struct vmm_config config = {
        .priv = front->priv,
        .store = front->store,
        .state_dir = front->state_dir,
        .answer_timeout_ms = front->config.answer_timeout_ms,
        .image_snapshots = front->config.image_snapshots,
        .defaults = {.boot_timeout_ms = front->config.boot_timeout_ms},
        .pools = front->config.pools,
        .observer = server_metrics_observer(front->metrics),
    };
    snprintf(config.defaults.image, sizeof(config.defaults.image), "%s",
             front->config.default_image);
    return vmm_open(&config, &front->vmm, err);
}

static int recover(struct front *front, struct error *err)
{
    struct vmm_recovered recovered = {0};
    if (vmm_recover(front->vmm, &recovered, err) < 0)
        return error_wrap(err, "recovery");
    log_info("recovered: %u adopted, %u undone, %u lost", recovered.adopted, recovered.undone,
             recovered.lost);
    struct store_cordon cordon;
    if (store_cordon_get(front->store, &cordon, err) < 0)
        return -1;
    if (cordon.set)
        log_warn("%s cordoned this host: no new VMs until DELETE /admin/cordon", cordon.owner);
    return 0;
}

static int serve(struct front *front, struct error *err)
{
    front->sources = (struct server_metrics_sources){
        .metrics = front->metrics, .store = front->store, .vmm = front->vmm};
    front->api.vmm = front->vmm;
    front->api.store = front->store;
    front->api.known = api_known_new();
    if (front->api.known == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for answers");
    if (api_feed_start(front->store, &front->api.feed, err) < 0 ||
        api_calls_start(front->store, &front->api.calls, err) < 0)
        return -1;
    front->sources.calls = front->api.calls;
    front->api.state_dir = front->state_dir;
    front->api.metrics = server_metrics_text;
    front->api.metrics_context = &front->sources;
    front->api.stands = server_tokens_stand;
    front->api.stands_context = front->tokens;
    atomic_store(&front->api.ready, true);
    struct server_options options = {
        .api = &front->api,
        .listeners = front->config.listeners,
        .listener_count = front->config.listener_count,
        .tokens = front->tokens,
        .tls = front->tls,
        .metrics = front->metrics,
    };
    options.routes = api_routes(&options.route_count);
    return server_start(&options, &front->server, err);
}

static int front_open(struct front *front, int argc, char **argv, struct error *err)
{
    if (server_config_parse(argc, argv, &front->config, err) < 0)
        return -1;
    log_open("motte-front", front->config.log_level, front->config.log_format);
    if (open_signals(front, err) < 0 || open_files(front, err) < 0 || confine(front, err) < 0 ||
        open_vmm(front, err) < 0 || recover(front, err) < 0 || serve(front, err) < 0)
        return -1;
    return server_notify("READY=1", err);
}

static void front_close(struct front *front)
{
    api_feed_stop(front->api.feed);
    api_calls_stop(front->api.calls);
    api_known_free(front->api.known);
    vmm_free(front->vmm);
    priv_client_free(front->priv);
    store_close(front->store);
    server_metrics_free(front->metrics);
    server_tokens_free(front->tokens);
    server_tls_free(front->tls);
    if (front->state_dir >= 0)
        close(front->state_dir);
    if (front->signals >= 0)
        close(front->signals);
    if (front->confined.proc >= 0)
        close(front->confined.proc);
    if (front->confined.boot_id >= 0)
        close(front->confined.boot_id);
}

/* True: asked to stop. False: the root half is gone. */
static bool front_wait(const struct front *front)
{
    struct pollfd events[] = {
        {.fd = front->signals, .events = POLLIN},
        {.fd = priv_client_lost_fd(front->priv), .events = POLLIN},
        {.fd = PRIV_RELOAD_FD, .events = POLLIN},
    };
    const struct server_live live = {front->tokens, front->tls, front->store, front->vmm,
                                     front->server};
    for (;;) {
        int n = poll(events, COUNT_OF(events), -1);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 || events[0].revents != 0 || events[1].revents != 0)
            return events[1].revents == 0;
        if (!server_reload(PRIV_RELOAD_FD, &live))
            events[2].fd = -1; /* the root half ends: the other channel tells in a moment */
    }
}

/* Requests end in their own time, up to a bound; VMs run on. Returns false when some did not: their
 * threads still use what front_close() would free. */
static bool front_drain(struct front *front)
{
    struct error err = {0};
    if (server_notify("STOPPING=1", &err) < 0)
        log_warn("%s; ignoring", err.msg);
    atomic_store(&front->api.ready, false);
    vmm_drain(front->vmm);
    unsigned left = server_stop(front->server, DRAIN_MS);
    if (left > 0)
        log_warn("stopping with %u requests unfinished", left);
    return left == 0;
}

/* Where each thread allocates for itself, what one VM needs lies scattered over all of them. */
static void share_memory(void)
{
    enum { ARENAS = 2 };
    mallopt(M_ARENA_MAX, ARENAS);
}

int main(int argc, char **argv)
{
    struct front front = {.signals = -1,
                          .state_dir = -1,
                          .confined = {.proc = -1, .boot_id = -1},
                          .config = {.token_fd = -1, .tls_fd = -1}};
    struct error err = {0};
    share_memory();
    log_open("motte-front", LOG_LEVEL_INFO, LOG_TEXT);
    if (front_open(&front, argc, argv, &err) < 0) {
        log_error("%s [%s]", err.msg, error_code_name(err.code));
        if (front.server != NULL && server_stop(front.server, 0) > 0)
            _exit(EXIT_FAILURE); /* threads still run */
        front_close(&front);
        return EXIT_FAILURE;
    }
    log_info("ready: %zu listeners", front.config.listener_count);
    if (!front_wait(&front)) {
        log_error("the root half is gone; nothing can be done without it");
        _exit(EXIT_FAILURE); /* at once: requests in flight cannot end */
    }
    log_info("stopping");
    if (!front_drain(&front)) {
        api_calls_flush(front.api.calls);
        _exit(EXIT_SUCCESS);
    }
    front_close(&front);
    return EXIT_SUCCESS;
}
