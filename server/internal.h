/* server's inside. Only server/ and its tests include it. */
#ifndef MOTTE_SERVER_INTERNAL_H
#define MOTTE_SERVER_INTERNAL_H

#include "server/server.h"

#include <microhttpd.h>
#include <pthread.h>

/* ---- pool.c: bounded queues with their threads ---- */

struct server_job {
    struct server_job *next;
    void (*run)(struct server_job *job); /* the job may free itself */
};

struct server_pool;
/* No thread yet. */
int server_pool_open(struct server_pool_size size, struct server_pool **ret, struct error *err);
/* False when the queue is full, no thread can be had, or the pool ends: the job is then still the
 * caller's. */
bool server_pool_submit(struct server_pool *pool, struct server_job *job);
/* Lets queued and running jobs end until the deadline. 0: all ended, threads joined, pool freed.
 * Else the count of running jobs: queued ones never run, and the pool must stay. NULL: 0. */
unsigned server_pool_stop(struct server_pool *pool, int64_t deadline_ms);

struct server;

/* ---- deadline.c: absolute deadlines of connections ---- */

/* libmicrohttpd's own timeout counts inactivity only: one byte a second would keep a connection for
 * ever. */
struct server_deadlines;
struct server_watch { /* one per connection; all guarded by the deadlines' lock */
    struct server_watch *next, *previous;
    const void *group; /* its listener */
    int fd;
    bool reading;                  /* it is the client's turn to speak */
    int64_t since_ms, deadline_ms; /* when it was armed; 0: not armed, or cut */
};
int server_deadlines_start(struct server_deadlines **ret, struct error *err);
void server_deadlines_stop(struct server_deadlines *deadlines);
struct server_watch *server_deadlines_add(struct server_deadlines *deadlines, const void *group,
                                          int fd);
/* Before the descriptor is closed. NULL is allowed, here and below. */
void server_deadlines_remove(struct server_deadlines *deadlines, struct server_watch *watch);
/* In `ms` from now the connection is shut down; 0 disarms. `reading`: while we wait for the client's
 * words, so that it may be cut before. */
void server_deadlines_arm(struct server_deadlines *deadlines, struct server_watch *watch, int ms,
                          bool reading);
/* Not later than in `ms`, if armed. */
void server_deadlines_limit(struct server_deadlines *deadlines, struct server_watch *watch, int ms);
/* Cuts the connection of the group (NULL: any) that has kept us waiting for its words longest. False
 * when there is none: all have work under way. */
bool server_deadlines_evict(struct server_deadlines *deadlines, const void *group);

/* ---- door.c: one thread accepts for all listeners ---- */

/* In the place of libmicrohttpd's own accept, which at its limit leaves clients hanging in the
 * backlog, and without a free descriptor spins. */
struct server_door;
int server_door_open(struct server *server, struct server_door **ret, struct error *err);
/* Accepts no more; connections that stand are not touched. NULL is allowed. */
void server_door_close(struct server_door *door);

/* ---- server.c ---- */

struct server_listening {
    struct server *server;
    enum server_kind kind;
    int fd; /* listening; owned */
    struct MHD_Daemon *daemon;
    atomic_uint connections; /* accepted and not yet closed, */
    atomic_uint started;     /* and of these, those that the library has begun with */
};

struct server {
    struct server_options options;
    struct server_listening listening[SERVER_LISTENERS_MAX];
    struct server_pool *pools[API_POOL_COUNT];
    struct server_deadlines *deadlines;
    struct server_door *door;
    pthread_mutex_t lock; /* guards all below and every request's `stage` once it waits */
    pthread_cond_t idle;
    struct server_request *requests; /* every one between its request line and its end */
    bool stopping;
};

/* ---- request.c: one request from its first line to its answer ---- */

enum server_stage {
    SERVER_HEADERS,   /* the first call of the handler is still to come */
    SERVER_BODY,      /* taking the body */
    SERVER_WAITING,   /* a worker has it, or will; the connection is suspended */
    SERVER_DONE,      /* the response is complete, not yet handed to the library */
    SERVER_ANSWERED,  /* handed over */
    SERVER_ABANDONED, /* answered while the worker still has it: never freed */
};

struct server_request {
    struct server_request *next, *previous; /* in server->requests */
    struct server_job job;
    struct server_listening *listening;
    struct MHD_Connection *connection;
    enum server_stage stage;
    int64_t start_us;
    char method[16];
    char raw[API_TARGET_MAX + 2]; /* one more than allowed, so that too long is seen as such */
    struct api_target target;
    const struct api_route *route; /* NULL: none matched */
    struct caller caller;
    struct api_request api;
    struct buf body;
    size_t dropped; /* bytes of a body beyond the limit, read only to answer */
    bool no_memory; /* that is why */
    struct api_response response;
};

/* libmicrohttpd's callbacks; `cls` is the struct server_listening. */
void *server_request_begin(void *cls, const char *uri, struct MHD_Connection *connection);
enum MHD_Result server_request_handle(void *cls, struct MHD_Connection *connection, const char *url,
                                      const char *method, const char *version,
                                      const char *upload_data, size_t *upload_data_size,
                                      void **con_cls);
void server_request_end(void *cls, struct MHD_Connection *connection, void **con_cls,
                        enum MHD_RequestTerminationCode why);
/* Answers a waiting request in its worker's place. With the server's lock held; returns true when
 * the caller must resume the connection after unlocking. */
bool server_request_abandon(struct server_request *request);

/* check.c: target, headers, route, caller, announced body. On error what `response` needs besides
 * the problem (allow, close) is set. */
int server_request_check(struct server_request *request, const char *method, const char *version,
                         struct error *err);

/* ---- headers.c: what the headers say ---- */

struct server_headers {
    unsigned content_lengths, hosts, authorizations, content_types, transfer_encodings;
    const char *authorization, *content_type; /* borrowed from the connection */
    bool content_encoded, respond_async;
    bool chunked;   /* the last Transfer-Encoding is just that */
    bool broken;    /* a line that others would read as another, or as more than one */
    bool malformed; /* a character that no header may have, or a length that is no number */
    uint64_t content_length;
};
/* Refuses what two readers of one request could take apart differently. */
int server_headers_read(struct MHD_Connection *connection, const char *version,
                        struct server_headers *ret, struct error *err);
bool server_headers_json(const struct server_headers *headers);
bool server_headers_body(const struct server_headers *headers);

/* ---- caller.c ---- */

/* Who asks, by the kind of listener. ERR_UNAUTHORIZED. */
int server_caller(const struct server_listening *listening, struct MHD_Connection *connection,
                  const char *authorization, struct caller *ret, struct error *err);

/* ---- confine.c: the front gives up what it does not need ---- */

enum { SERVER_RULE_ARGS = 3 };
struct server_rule_arg { /* (argument & mask) == value */
    unsigned index;
    uint32_t mask; /* 0: no condition */
    uint32_t value;
    bool own_pid; /* the value is this process's number */
};
struct server_rule {
    int nr;
    uint32_t action; /* SCMP_ACT_… */
    struct server_rule_arg args[SERVER_RULE_ARGS];
};
extern const struct server_rule server_rules[]; /* confine_table.c */
extern const size_t server_rule_count;

struct server_confined {
    int landlock_abi; /* 0: this kernel has no landlock, file permissions stand alone */
    bool filtered;    /* false only in builds with ASan or TSan */
    /* Stay open while the front runs: landlock's rules about files in /proc belong to inodes that
     * the kernel, short of memory, forgets and makes anew unless somebody holds them. */
    int proc, boot_id;
};
/* After all is opened, before the first thread and the first byte from outside. Landlock, seccomp,
 * then reads back from the kernel that no privilege is left. No way back. On error parts may hold
 * already: the caller must end. */
int server_confine(int state_dir, struct server_confined *ret, struct error *err);

/* ---- answer.c ---- */

/* Hands the response (its body is taken) to the library. */
enum MHD_Result server_answer(struct MHD_Connection *connection, const char *request_id,
                              struct api_response *response);

#endif
