/*
 * api: Motte over HTTP, without the HTTP library. A request is what server/ read from a connection,
 * already bounded; a handler decodes it, authorises its caller, calls vmm/ or store/, and encodes
 * the answer. The one list of what there is stands in routes.c; the one list of errors in
 * problem.c.
 *
 * Thread-safe. Handlers block: they run on the worker pool their route names, never on a thread
 * that accepts or reads connections (API_POOL_NONE and `known` excepted, which do not block).
 */
#ifndef MOTTE_API_H
#define MOTTE_API_H

#include "store/store.h"
#include "vmm/vmm.h"

#include <stdatomic.h>

#define API_EVENT_MAX ((INT64_C(1) << 53) - 1) /* what every reader of JSON takes for itself */

enum {
    API_TARGET_MAX = 2048, /* bytes of a request target */
    API_REQUEST_ID_SIZE = LOG_REQUEST_SIZE,
    API_EVENT_ID_SIZE = 33, /* of Last-Event-ID, with NUL; a longer one is refused */
    API_BODY_CREATE_MAX = 16 * 1024,
    API_BODY_EXEC_MAX = 1024 * 1024,
    API_BODY_DRAIN_MAX = 1024,
    API_BODY_STDIN_MAX = 512 * 1024,
    API_BODY_SIZE_MAX = 1024,
    API_OUTPUT_MAX = 1024 * 1024, /* of an exec, per stream */
    API_EXEC_TIMEOUT_DEFAULT_MS = 30000,
    API_EXEC_TIMEOUT_MAX_MS = 3600000,        /* of one that a request waits for */
    API_EXEC_LONG_TIMEOUT_MAX_MS = 604800000, /* of the others: docs/wire.md's */
    API_DRAIN_MAX_S = 30 * 86400,             /* no VM lives longer */
    API_PAGE_DEFAULT = 100,
    API_WAIT_MAX_S = 60,
    API_WAITS_MAX = 256,   /* at once; each owner has a share (base.h) */
    API_STREAMS_MAX = 512, /* likewise */
    API_KEY_MAX = 255,     /* bytes of an Idempotency-Key */
    API_FILE_MAX = 1 << 30,
    API_DIGEST_SIZE = 64, /* of SHA-256 as a header has it, with NUL */
    API_RANGE_SIZE = 64,  /* with NUL; a longer one is not one range, and counts as absent */
};

/* ---- who asks -------------------------------------------------------------------------------- */

/* Made by server/ from the connection (SO_PEERCRED or bearer token), never from the request's text.
 * Every row belongs to a name; an admin sees all rows. */
struct caller {
    char name[STORE_OWNER_MAX + 1]; /* the owner: a token's tenant, or the peer */
    bool admin;
    bool reader;                 /* may look and change nothing */
    bool local;                  /* root let him onto a socket of this host */
    char token[ID_NAME_MAX + 1]; /* by whose token, for the log; "" without one */
    uint8_t secret[HASH_SIZE];   /* that token's digest: one of the same name may come after it */
};

/* ---- what handlers work on ------------------------------------------------------------------- */

/* One per process; borrowed things. `metrics` writes the text of GET /metrics. `stands`: is the token
 * that the caller came with still good? For what lasts; NULL: it is. Waits for nothing. */
struct api {
    struct vmm *vmm;
    struct store *store;
    int state_dir;
    struct api_known *known; /* NULL: nothing is answered twice from memory */
    struct api_feed *feed;
    struct api_calls *calls; /* NULL: calls leave no audit */
    atomic_bool ready;       /* set after recovery, cleared when draining: GET /readyz */
    int (*metrics)(void *context, struct buf *ret, struct error *err);
    void *metrics_context;
    bool (*stands)(void *context, const struct caller *caller);
    void *stands_context;
};

/* Answers to GET /vms/{id} that are still true; bounded. NULL: out of memory. */
struct api_known *api_known_new(void);
void api_known_free(struct api_known *known);

/* What feeds those who watch events: a thread, which reads the inventory for all of them. Stop it
 * after the server, whose streams it feeds, and before the store is closed. NULL: nothing happens. */
int api_feed_start(struct store *store, struct api_feed **ret, struct error *err);
void api_feed_stop(struct api_feed *feed);

/* Takes the audit of calls to the inventory, with a thread of its own. Stop it after the server: what
 * was put is then written. In the functions NULL: nothing happens. */
int api_calls_start(struct store *store, struct api_calls **ret, struct error *err);
void api_calls_stop(struct api_calls *calls);
/* Copies it, and waits for nothing; where too many wait to be written it is lost. */
void api_calls_put(struct api_calls *calls, const struct store_call *call);
/* Returns when what was put is written or lost. */
void api_calls_flush(struct api_calls *calls);
/* How many were; not NULL. */
uint64_t api_calls_lost(struct api_calls *calls);

/* ---- target: path and query ------------------------------------------------------------------ */

struct api_target {
    char path[API_TARGET_MAX + 1];
    char query[API_TARGET_MAX + 1]; /* raw text after '?'; "" when there is none */
};

/* From the bytes of the request line, before anybody decodes anything. Refuses (ERR_BAD_REQUEST)
 * what two readers could read differently: a path with percent escapes, `//`, `.` or `..` segments,
 * a backslash, a byte that RFC 3986 does not allow in a target, another form than origin-form. */
int api_target_parse(const char *raw, struct api_target *ret, struct error *err);

/* Walks a query: copies the next `key=value`, percent-decoded, into `key` and `value`. Returns 1, 0
 * at the end, -1 on a bad escape, %00 or a part that does not fit (ERR_QUERY). Start with *cursor =
 * query. */
enum { API_QUERY_KEY_SIZE = 33, API_QUERY_VALUE_SIZE = 1025 };
int api_query_next(const char **cursor, char key[static API_QUERY_KEY_SIZE],
                   char value[static API_QUERY_VALUE_SIZE], struct error *err);

/* ---- request and response -------------------------------------------------------------------- */

/* A body that is still coming. The next bytes, of which there are as many as came, up to `size`; 0: it
 * has ended; -1: it never will (ERR_BAD_REQUEST), or is larger than the route lets it be
 * (ERR_BODY_TOO_LARGE). Waits for the client, who is given little time. */
struct api_upload {
    ssize_t (*read)(void *context, void *data, size_t size, struct error *err);
    void *context;
};

/* `sha-256=:<base64>:` of a Repr-Digest or Content-Digest (RFC 9530); other algorithms beside it are
 * not looked at. ERR_BAD_REQUEST: it has none, which would go unchecked. */
int api_digest_parse(const char *header, uint8_t out[static HASH_SIZE], struct error *err);

struct api_request {
    const struct caller *caller; /* NULL on routes for everybody */
    char id[ID_VM_MAX + 1];      /* the path's {id}, checked; "" where there is none */
    char exec[ID_INSTANCE_SIZE]; /* its {eid}, likewise */
    const char *query;           /* raw */
    const char *body;            /* at most the route's limit; NULL without */
    size_t body_len;
    const struct api_upload *upload; /* NULL where the body is whole before the handler begins */
    bool respond_async;              /* Prefer: respond-async */
    char range[API_RANGE_SIZE];      /* Range; "": absent */
    bool has_digest;                 /* Repr-Digest, or Content-Digest: */
    uint8_t digest[HASH_SIZE];       /* SHA-256 */
    char last_event_id[API_EVENT_ID_SIZE]; /* Last-Event-ID; "": absent */
    bool keyed; /* Idempotency-Key: its digest is in `key`, the rest api_dispatch() fills in */
    struct store_key key;
    char request_id[API_REQUEST_ID_SIZE];
};

/*
 * A body that comes as it arises: events, a console, a file. Who waits for it costs a connection and
 * what its source keeps, no thread: the server asks the source whenever the client can take more, and
 * suspends the connection while there is nothing.
 *
 * A handler fills `stream` in the place of `body`, with status and content_type as always. The server
 * owns it from then on: it calls `close` exactly once, also where it cannot give the stream (too many
 * are open: ERR_BUSY; it stops: ERR_SHUTTING_DOWN). All calls come from one thread at a time, the
 * connection's, so `read` must not block: no disk that may be slow, no lock that anybody holds while
 * he waits.
 *
 * `read` copies up to `size` bytes (at least 128) and returns how many; or API_STREAM_WAIT, when it has
 * put `waker` into a list, under the lock of what it waits for; it is called again after the wake, and
 * perhaps before: adding it twice is harmless. `close` takes the waker out, under the same lock.
 * So nobody is woken for a stream that is gone. A client that went away is noticed also while the
 * stream waits; one that takes nothing for half a minute, or less than `size` in send_ms, is cut.
 *
 * `events` (text/event-stream): `read` waits only where an event is complete, for that is where the
 * server puts comments when nothing was sent for keepalive_ms, so that proxies and clients see that it
 * lives. Such streams end as soon as the service stops, since clients come again with Last-Event-ID;
 * others have until the end of the drain.
 */
enum { API_STREAM_WAIT = 0, API_STREAM_END = -1, API_STREAM_BROKEN = -2 };
struct api_stream {
    /* NULL: the answer is none. API_STREAM_BROKEN: the client is to see that it is not whole. */
    ssize_t (*read)(void *context, char *out, size_t size, struct waker *waker);
    void (*close)(void *context, struct waker *waker); /* never NULL; frees the context */
    void *context;
    bool events;
    bool sized;    /* it will be `size` bytes: Content-Length */
    uint64_t size; /* else it is chunked, and its end shows */
};

/* Zero-initialise; release with api_response_release. */
struct api_response {
    unsigned status;
    struct api_stream stream; /* in the place of a body */
    char *body;               /* owned; NULL: none */
    size_t body_len;
    const char *body_static; /* in the place of body: lives as long as the program */
    const char *content_type;
    char location[ID_VM_MAX + 40]; /* "" absent, as with the next ones */
    char link[API_TARGET_MAX + 64];
    char allow[32];
    char content_range[64];
    char digest[API_DIGEST_SIZE];  /* Repr-Digest */
    unsigned retry_after_s;        /* 0: absent */
    bool challenge;                /* WWW-Authenticate: Bearer */
    bool async_applied;            /* Preference-Applied: respond-async */
    bool close;                    /* the connection cannot go on after this answer */
    bool replayed;                 /* Idempotent-Replayed: true */
    bool kept;                     /* under the request's key, with what it tells of */
    char making[ID_INSTANCE_SIZE]; /* the VM that it tells of, if that does not run yet */
    enum error_code code;          /* of a problem; for the log */
    /* Work that goes on after the answer was sent, on the same worker: called exactly once by who
     * owns the response after handing the answer on. NULL: none. */
    void (*later)(void *context);
    void *later_context;
};
void api_response_release(struct api_response *response);

/* ---- routes ---------------------------------------------------------------------------------- */

enum api_pool {
    API_POOL_NONE,  /* at once, on the connection's thread: must not block */
    API_POOL_FAST,  /* reads */
    API_POOL_LIFE,  /* spawn, delete, and what else waits for the root half */
    API_POOL_EXEC,  /* commands */
    API_POOL_FILES, /* files, which may take as long as their clients do */
    API_POOL_WAIT,  /* waits for what others do */
    API_POOL_COUNT,
};

/* Whom a route is for; others get ERR_FORBIDDEN. What is no GET is for no reader besides. */
enum api_role {
    API_ROLE_ANYBODY, /* no identity needed */
    API_ROLE_CALLER,  /* some identity */
    API_ROLE_LOCAL,   /* tells of all tenants' VMs together: an administrator, or a local caller */
    API_ROLE_ADMIN,   /* an administrator */
};

/* What a request with an Idempotency-Key leaves that was not answered when the service was killed. */
enum api_retry {
    API_ONCE,  /* nobody knows whether it was done: it is not done again */
    API_AGAIN, /* done or not, doing it again leaves the same */
    API_KEPT,  /* nothing: what it makes is kept with its answer */
};

/* Fills the response and returns 0, or leaves it untouched and returns -1 with err, which becomes a
 * problem. */
typedef int api_handler(struct api *api, const struct api_request *request,
                        struct api_response *response, struct error *err);

/* The complete answer, if it is known without waiting for anything; else false, and the handler is
 * asked, on its pool. Runs on the connection's thread, once the request has passed every check. */
typedef bool api_knower(struct api *api, const struct api_request *request,
                        struct api_response *response);

struct api_route {
    const char *method; /* "GET" */
    const char *path;   /* "/vms/{id}/exec" */
    api_handler *handler;
    size_t body_max; /* 0: takes no body */
    enum api_pool pool;
    enum api_role role;
    bool monitoring;      /* also served by the metrics listener */
    api_knower *known;    /* asked first; NULL: none */
    enum api_retry retry; /* of a POST */
};

/* Its body is read as it comes: the handler begins with the headers, and has `upload` in the place of
 * `body`. The answer is sent when the body has ended, whenever it is there. */
static inline bool api_route_uploads(const struct api_route *route)
{
    return route->pool == API_POOL_FILES && route->body_max > 0;
}

enum { API_ROUTES_MAX = 64 };

/* The table: *ret_count entries. */
const struct api_route *api_routes(size_t *ret_count);

/* What stands in a path where its route has {id} and {eid}; "": nothing. */
struct api_ids {
    char id[ID_VM_MAX + 1];
    char exec[ID_INSTANCE_SIZE];
};

/* The route for method and path, and its ids copied out. Errors: ERR_ROUTE_UNKNOWN, ERR_METHOD
 * (then `allow` holds "GET, DELETE"), ERR_ID_INVALID. */
const struct api_route *api_route_match(const struct api_route *routes, size_t count,
                                        const char *method, const char *path, struct api_ids *ret,
                                        char allow[static 32], struct error *err);

/* ERR_FORBIDDEN says which right is missing. Looks at nothing but the route: whether a thing is there
 * is not told. */
int api_role_check(const struct api_route *route, const struct caller *caller, struct error *err);

/* Runs a route's handler; an error becomes a problem. Always leaves a complete response. */
void api_dispatch(struct api *api, const struct api_route *route, const struct api_request *request,
                  struct api_response *ret);

/* ---- problems: RFC 9457 ---------------------------------------------------------------------- */

struct api_problem_kind {
    unsigned status;
    const char *title;
    const char *remediation; /* what the reader can do about it */
    unsigned retry_after_s;  /* 0: a retry will not help by itself */
};
/* Every code but ERR_NONE has one; an unknown code gets ERR_INTERNAL's. */
const struct api_problem_kind *api_problem_kind(enum error_code code);

/* The whole answer for an error. `context` (a JSON object or NULL) is taken. Falls back to a static
 * text when out of memory. */
void api_problem(const struct error *err, const char *request_id, cJSON *context,
                 struct api_response *ret);

#endif
