/*
 * api: Motte over HTTP, without the HTTP library. A request is what server/ read from a connection,
 * already bounded; a handler decodes it, authorises its caller, calls vmm/ or store/, and encodes
 * the answer. The one list of what there is stands in routes.c; the one list of errors in
 * problem.c.
 *
 * Thread-safe. Handlers block: they run on the worker pool their route names, never on a thread
 * that accepts or reads connections (API_POOL_NONE excepted, whose handlers do not block).
 */
#ifndef MOTTE_API_H
#define MOTTE_API_H

#include "store/store.h"
#include "vmm/vmm.h"

#include <stdatomic.h>

enum {
    API_TARGET_MAX = 2048,    /* bytes of a request target */
    API_REQUEST_ID_SIZE = 17, /* 16 hex digits and NUL */
    API_BODY_CREATE_MAX = 16 * 1024,
    API_BODY_EXEC_MAX = 1024 * 1024,
    API_BODY_DRAIN_MAX = 1024,
    API_OUTPUT_MAX = 1024 * 1024, /* of an exec, per stream */
    API_EXEC_TIMEOUT_DEFAULT_MS = 30000,
    API_EXEC_TIMEOUT_MAX_MS = 3600000,
    API_DRAIN_MAX_S = 30 * 86400, /* no VM lives longer */
    API_PAGE_DEFAULT = 100,
};

/* ---- who asks -------------------------------------------------------------------------------- */

/* Made by server/ from the connection (SO_PEERCRED or bearer token), never from the request's text.
 * Every row belongs to a name; an admin sees all rows. */
struct caller {
    char name[STORE_OWNER_MAX + 1];
    bool admin;
};

/* ---- what handlers work on ------------------------------------------------------------------- */

/* One per process; borrowed things. `metrics` writes the text of GET /metrics. */
struct api {
    struct vmm *vmm;
    struct store *store;
    int state_dir;
    atomic_bool ready; /* set after recovery, cleared when draining: GET /readyz */
    int (*metrics)(void *context, struct buf *ret, struct error *err);
    void *metrics_context;
};

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
enum { API_QUERY_KEY_SIZE = 33, API_QUERY_VALUE_SIZE = 513 };
int api_query_next(const char **cursor, char key[static API_QUERY_KEY_SIZE],
                   char value[static API_QUERY_VALUE_SIZE], struct error *err);

/* ---- request and response -------------------------------------------------------------------- */

struct api_request {
    const struct caller *caller; /* NULL on routes for everybody */
    char id[ID_VM_MAX + 1];      /* the path's {id}, checked; "" where there is none */
    const char *query;           /* raw */
    const char *body;            /* at most the route's limit; NULL without */
    size_t body_len;
    bool respond_async; /* Prefer: respond-async */
    char request_id[API_REQUEST_ID_SIZE];
};

/* Zero-initialise; release with api_response_release. */
struct api_response {
    unsigned status;
    char *body; /* owned; NULL: none */
    size_t body_len;
    const char *body_static; /* in the place of body: lives as long as the program */
    const char *content_type;
    char location[ID_VM_MAX + 8]; /* "" absent, as with the next ones */
    char link[API_TARGET_MAX + 64];
    char allow[32];
    unsigned retry_after_s; /* 0: absent */
    bool challenge;         /* WWW-Authenticate: Bearer */
    bool async_applied;     /* Preference-Applied: respond-async */
    bool close;             /* the connection cannot go on after this answer */
    enum error_code code;   /* of a problem; for the log */
    /* Work that goes on after the answer was sent, on the same worker: called exactly once by who
     * owns the response after handing the answer on. NULL: none. */
    void (*later)(void *context);
    void *later_context;
};
void api_response_release(struct api_response *response);

/* ---- routes ---------------------------------------------------------------------------------- */

enum api_pool {
    API_POOL_NONE, /* at once, on the connection's thread: must not block */
    API_POOL_FAST, /* reads */
    API_POOL_LIFE, /* spawn, delete, and what else waits for the root half */
    API_POOL_EXEC, /* commands */
    API_POOL_COUNT,
};

enum api_role {
    API_ROLE_ANYBODY, /* no identity needed */
    API_ROLE_CALLER,  /* some identity */
    API_ROLE_ADMIN,   /* an administrator's; others get ERR_FORBIDDEN */
};

/* Fills the response and returns 0, or leaves it untouched and returns -1 with err, which becomes a
 * problem. */
typedef int api_handler(struct api *api, const struct api_request *request,
                        struct api_response *response, struct error *err);

struct api_route {
    const char *method; /* "GET" */
    const char *path;   /* "/vms/{id}/exec" */
    api_handler *handler;
    size_t body_max; /* 0: takes no body */
    enum api_pool pool;
    enum api_role role;
    bool monitoring; /* also served by the metrics listener */
};

enum { API_ROUTES_MAX = 32 };

/* The table: *ret_count entries. */
const struct api_route *api_routes(size_t *ret_count);

/* The route for method and path, and the {id} copied out. Errors: ERR_ROUTE_UNKNOWN, ERR_METHOD
 * (then `allow` holds "GET, DELETE"), ERR_ID_INVALID. */
const struct api_route *api_route_match(const struct api_route *routes, size_t count,
                                        const char *method, const char *path,
                                        char id[static ID_VM_MAX + 1], char allow[static 32],
                                        struct error *err);

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
