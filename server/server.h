/*
 * server: api/ over libmicrohttpd. Listeners accept, read bounded requests and know their callers;
 * worker pools run handlers; metrics count. Used by main.c and by tests, which bring routes of
 * their own.
 *
 * The way of a request: a listener's thread takes it apart (request.c), suspends the connection and
 * queues it to the pool its route names (pool.c); a worker runs the handler and resumes the
 * connection; the listener's thread sends the answer.
 */
#ifndef MOTTE_SERVER_H
#define MOTTE_SERVER_H

#include "api/api.h"

/* ---- configuration: what motted passes (docs/handover.md) -------------------------------------
 */

enum { SERVER_LISTENERS_MAX = 8, SERVER_BOOT_MIN_MS = 100, SERVER_BOOT_MAX_MS = 3600000 };

enum server_kind {
    SERVER_UNIX = 1, /* callers by SO_PEERCRED */
    SERVER_TCP,      /* callers by bearer token; loopback */
    SERVER_TLS,      /* the same, encrypted */
    SERVER_METRICS,  /* monitoring routes only, for anybody */
};

struct server_listener {
    enum server_kind kind;
    int fd; /* listening */
};

struct server_config {
    const char *state_dir, *default_image; /* borrowed from argv */
    int boot_timeout_ms, answer_timeout_ms;
    uint32_t image_snapshots;
    enum log_level log_level;
    enum log_format log_format;
    struct server_listener listeners[SERVER_LISTENERS_MAX];
    size_t listener_count;
    int token_fd, tls_fd; /* -1: none */
    struct store_quotas quotas;
    struct vmm_pool_targets pools;
};
/* Descriptors are checked and made close-on-exec. ERR_CONFIG names the argument. */
int server_config_parse(int argc, char **argv, struct server_config *ret, struct error *err);

/* ---- tokens ---------------------------------------------------------------------------------- */

struct server_tokens;
/* Reads a tokens file (base.h). One without any is fine: then nobody gets in. */
int server_tokens_read(int fd, struct server_tokens **ret, struct error *err);
/* All of `fresh`, which is taken, in the place of all there were. From any thread. */
void server_tokens_take(struct server_tokens *tokens, struct server_tokens *fresh);
void server_tokens_free(struct server_tokens *tokens);
/* `header`: the value of Authorization, or NULL. Takes the same time whichever token it is. */
bool server_tokens_find(struct server_tokens *tokens, const char *header, struct caller *ret);
/* One request of the token's: false when it had too many. A bucket that holds two seconds' worth, kept
 * over reloads. */
bool server_tokens_spend(struct server_tokens *tokens, const char *name);
/* Is the token that a caller came with still there, and may it still do what it might? True for who
 * came without one. struct api's `stands`; the context is the tokens, or NULL. */
bool server_tokens_stand(void *tokens, const struct caller *caller);

/* ---- the certificate ------------------------------------------------------------------------- */

struct server_tls;
/* Reads PEM: the certificate, its chain, its key. ERR_CONFIG. */
int server_tls_read(int fd, struct server_tls **ret, struct error *err);
/* New connections get that of `fresh`, which is taken; those that stand keep theirs. From any thread.
 */
void server_tls_take(struct server_tls *tls, struct server_tls *fresh);
void server_tls_free(struct server_tls *tls);

/* ---- metrics --------------------------------------------------------------------------------- */

struct server_metrics;
struct server_metrics *server_metrics_new(const struct api_route *routes, size_t count);
void server_metrics_free(struct server_metrics *metrics);
/* What vmm/ reports to. */
struct vmm_observer server_metrics_observer(struct server_metrics *metrics);
/* `route` NULL: none matched. */
void server_metrics_request(struct server_metrics *metrics, const struct api_route *route,
                            unsigned status, int64_t us);
/* One stream more, or less. */
void server_metrics_streams(struct server_metrics *metrics, int by);
/* Gauges that are read at each scrape; NULL: left out. */
struct server_metrics_sources {
    struct server_metrics *metrics;
    struct store *store;
    struct vmm *vmm;
    struct api_calls *calls;
};
/* struct api's `metrics`; the context is a struct server_metrics_sources. */
int server_metrics_text(void *sources, struct buf *ret, struct error *err);

/* ---- the server ------------------------------------------------------------------------------ */

struct server_pool_size {
    unsigned threads, queue;
    bool shared; /* each owner has a share (base.h) of both */
};

struct server_options {
    const struct api_route *routes;
    size_t route_count;
    struct api *api;
    const struct server_listener *listeners; /* descriptors are taken */
    size_t listener_count;
    struct server_tokens *tokens; /* NULL: TCP callers are all refused */
    struct server_tls *tls;       /* for SERVER_TLS */
    struct server_metrics *metrics;
    struct server_pool_size pools[API_POOL_COUNT]; /* zero: the defaults */
    /* Per listener, 0: default. One more cuts the one that has kept us waiting for its words
     * longest; where all have work under way it is answered 503 and closed. */
    unsigned connections;
    unsigned streams; /* open at once, over all listeners; 0: default */
    /* Absolute deadlines of a connection, 0: defaults. `idle_ms`: until the next request line;
     * `send_ms`: for an answer, or for each piece of a stream. */
    int header_ms, idle_ms, body_ms, send_ms;
    int keepalive_ms; /* silence of a stream of events before a comment is sent; 0: default */
};

struct server;

/* All but `listeners` is borrowed until server_stop. Serves from the moment it returns. */
int server_start(const struct server_options *options, struct server **ret, struct error *err);
/* Stops accepting, lets jobs end for at most `drain_ms` (new ones get shutting_down), answers what
 * still waits, stops. Returns how many jobs still run: if any, they use what the options lent, so
 * the caller must end the process without freeing it; else the server is freed. */
unsigned server_stop(struct server *server, int drain_ms);
/* After server_tokens_take(): streams whose token does not stand any more end. */
void server_revoke(struct server *server);

/* ---- reload ---------------------------------------------------------------------------------- */

/* What a reload changes; borrowed. */
struct server_live {
    struct server_tokens *tokens; /* NULL: none */
    struct server_tls *tls;       /* NULL: none */
    struct store *store;
    struct vmm *vmm;
    struct server *server;
};
/* One message of the root half's on PRIV_RELOAD_FD: takes what is new and answers. False when the
 * channel has ended. */
bool server_reload(int channel, const struct server_live *live);

/* ---- the service manager --------------------------------------------------------------------- */

/* sd_notify's protocol: one datagram to $NOTIFY_SOCKET, "READY=1" say; without the variable nothing
 * happens. */
int server_notify(const char *text, struct error *err);

#endif
