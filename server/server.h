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
    SERVER_TCP,      /* callers by bearer token */
    SERVER_METRICS,  /* monitoring routes only, for anybody */
};

struct server_listener {
    enum server_kind kind;
    int fd; /* listening */
};

struct server_config {
    const char *state_dir, *default_image; /* borrowed from argv */
    int boot_timeout_ms, answer_timeout_ms;
    enum log_level log_level;
    struct server_listener listeners[SERVER_LISTENERS_MAX];
    size_t listener_count;
    int token_fd; /* -1: none */
};
/* Descriptors are checked and made close-on-exec. ERR_CONFIG names the argument. */
int server_config_parse(int argc, char **argv, struct server_config *ret, struct error *err);

/* ---- tokens ---------------------------------------------------------------------------------- */

struct server_tokens;
/* Reads `name = token` lines; keeps digests only. `admin` is the administrator. A name may have
 * several tokens (rotation). Refuses short or repeated tokens and bad names. */
int server_tokens_read(int fd, struct server_tokens **ret, struct error *err);
/* All of them in the place of all there were, or on error none. From any thread. */
int server_tokens_replace(struct server_tokens *tokens, int fd, struct error *err);
void server_tokens_free(struct server_tokens *tokens);
/* `header`: the value of Authorization, or NULL. Takes the same time whichever token it is. */
bool server_tokens_find(struct server_tokens *tokens, const char *header, struct caller *ret);

/* ---- metrics --------------------------------------------------------------------------------- */

struct server_metrics;
struct server_metrics *server_metrics_new(const struct api_route *routes, size_t count);
void server_metrics_free(struct server_metrics *metrics);
/* What vmm/ reports to. */
struct vmm_observer server_metrics_observer(struct server_metrics *metrics);
/* `route` NULL: none matched. */
void server_metrics_request(struct server_metrics *metrics, const struct api_route *route,
                            unsigned status, int64_t us);
/* Gauges that are read at each scrape; `store` and `vmm` NULL: left out. */
struct server_metrics_sources {
    struct server_metrics *metrics;
    struct store *store;
    struct vmm *vmm;
};
/* struct api's `metrics`; the context is a struct server_metrics_sources. */
int server_metrics_text(void *sources, struct buf *ret, struct error *err);

/* ---- the server ------------------------------------------------------------------------------ */

struct server_pool_size {
    unsigned threads, queue;
};

struct server_options {
    const struct api_route *routes;
    size_t route_count;
    struct api *api;
    const struct server_listener *listeners; /* descriptors are taken */
    size_t listener_count;
    struct server_tokens *tokens; /* NULL: TCP callers are all refused */
    struct server_metrics *metrics;
    struct server_pool_size pools[API_POOL_COUNT]; /* zero: the defaults */
    /* Per listener, 0: default. One more cuts the one that has kept us waiting for its words
     * longest; where all have work under way it is answered 503 and closed. */
    unsigned connections;
    /* Absolute deadlines of a connection, 0: defaults. `idle_ms`: until the next request line. */
    int header_ms, idle_ms, body_ms, send_ms;
};

struct server;

/* All but `listeners` is borrowed until server_stop. Serves from the moment it returns. */
int server_start(const struct server_options *options, struct server **ret, struct error *err);
/* Stops accepting, lets jobs end for at most `drain_ms` (new ones get shutting_down), answers what
 * still waits, stops. Returns how many jobs still run: if any, they use what the options lent, so
 * the caller must end the process without freeing it; else the server is freed. */
unsigned server_stop(struct server *server, int drain_ms);

/* ---- reload ---------------------------------------------------------------------------------- */

/* One message of the root half's on PRIV_RELOAD_FD: takes what is new and answers. False when the
 * channel has ended. */
bool server_reload(int channel, struct server_tokens *tokens /* NULL: none */, struct vmm *vmm);

/* ---- the service manager --------------------------------------------------------------------- */

/* sd_notify's protocol: one datagram to $NOTIFY_SOCKET, "READY=1" say; without the variable nothing
 * happens. */
int server_notify(const char *text, struct error *err);

#endif
