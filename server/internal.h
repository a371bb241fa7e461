/* server's inside. Only server/ and its tests include it. */
#ifndef MOTTE_SERVER_INTERNAL_H
#define MOTTE_SERVER_INTERNAL_H

#include "server/server.h"

#include <gnutls/abstract.h>
#include <microhttpd.h>
#include <pthread.h>

/* ---- pool.c: bounded queues with their threads ---- */

struct server_job {
    struct server_job *next;
    uint64_t
        owner; /* server_owner() of who asks; of a pool that is not shared it is not looked at */
    void (*run)(struct server_job *job); /* the job may free itself */
};

struct server_pool;
/* No thread yet. */
int server_pool_open(struct server_pool_size size, struct server_pool **ret, struct error *err);
/* False when the queue is full or the owner's share of it, no thread can be had, or the pool ends: the
 * job is then still the caller's. */
bool server_pool_submit(struct server_pool *pool, struct server_job *job);
/* Lets queued and running jobs end until the deadline. 0: all ended, threads joined. Else the count
 * of running jobs: queued ones never run, and the pool must stay. NULL: 0. */
unsigned server_pool_stop(struct server_pool *pool, int64_t deadline_ms);
/* After a stop that gave 0, when nobody submits any more. NULL is allowed. */
void server_pool_free(struct server_pool *pool);

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
    /* The listener's thread's alone: who is at the other end of a Unix socket, for as long as the
     * connection stands. */
    bool peer_known;
    uid_t peer;
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

/* ---- stream.c: answers that come as they arise ---- */

struct server_request;
struct server_stream;
struct server_streams;
int server_streams_start(struct server *server, struct server_streams **ret, struct error *err);
/* Streams of events end now; no new ones begin. NULL is allowed here and below. */
void server_streams_quiesce(struct server_streams *streams);
/* Those whose caller's token does not stand any more end now. */
void server_streams_revoke(struct server_streams *streams);
/* Lets the others go on until the deadline, then ends them. No connection is suspended for a stream
 * any more. */
void server_streams_finish(struct server_streams *streams, int64_t deadline_ms);
/* After the listeners' threads have ended. */
void server_streams_free(struct server_streams *streams);
/* Takes the stream out of the request's response. ERR_BUSY, ERR_SHUTTING_DOWN, ERR_NO_MEMORY: it is
 * still there. */
int server_stream_begin(struct server_request *request, struct server_stream **ret,
                        struct error *err);
/* The library's answer, which owns the stream; NULL when out of memory (then it is closed). */
struct MHD_Response *server_stream_answer(struct server_stream *stream);

/* ---- server.c ---- */

enum { SERVER_RANDOM = 32 };

struct server_listening {
    struct server *server;
    enum server_kind kind;
    int fd; /* listening; owned */
    struct MHD_Daemon *daemon;
    atomic_uint connections; /* accepted and not yet closed, */
    atomic_uint started;     /* and of these, those that the library has begun with */
    /* Its thread's alone: random numbers that no request has yet. */
    uint64_t random[SERVER_RANDOM];
    size_t random_left;
};

struct server {
    struct server_options options;
    struct server_listening listening[SERVER_LISTENERS_MAX];
    struct server_pool *pools[API_POOL_COUNT];
    struct server_deadlines *deadlines;
    struct server_door *door;
    struct server_streams *streams;
    pthread_mutex_t lock; /* guards all below and every request's `stage` once it waits */
    pthread_cond_t idle;
    struct server_request *requests; /* every one between its request line and its end */
    bool stopping;
};

/* ---- request.c: one request from its first line to its answer ---- */

enum server_stage {
    SERVER_HEADERS,   /* the first call of the handler is still to come */
    SERVER_BODY,      /* taking the body */
    SERVER_UPLOADING, /* a worker has it, or will, while the body is still taken */
    SERVER_EARLY,     /* the response is complete before the body, whose rest is dropped */
    SERVER_ORPHANED,  /* the connection has ended before its worker: that one frees it */
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
    struct server_upload *upload; /* owned; NULL: the body is taken whole before the handler */
    struct api_upload upload_source;
    size_t dropped; /* bytes of a body beyond the limit, read only to answer */
    bool no_memory; /* that is why */
    struct api_response response;
    struct server_stream *stream; /* that the answer is to be made of; NULL: of `response` alone */
    bool recorded;                /* in the audit of calls */
    int64_t answered_us;          /* when a stream began: its length is not the service's time */
};

/* What its connection has; NULL: there was no memory for it. */
struct server_watch *server_watch_of(struct MHD_Connection *connection);

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

/* ---- calls.c ---- */

/* Once there is an answer; again is harmless. */
void server_call_record(struct server_request *request);

/* ---- upload.c: a body that a worker reads while it comes ---- */

struct server_upload;
/* `patience_ms`: for each 64 KiB. NULL: out of memory. */
struct server_upload *server_upload_new(struct server_deadlines *deadlines,
                                        struct MHD_Connection *connection, int patience_ms,
                                        uint64_t max);
void server_upload_free(struct server_upload *upload); /* NULL is allowed */
/* On the connection's thread. Takes what there is room for; when that is not all, the connection is
 * suspended until there is. False: too much came, the connection is to be closed. */
bool server_upload_put(struct server_upload *upload, const char *data, size_t *size);
void server_upload_end(struct server_upload *upload); /* that was all */
/* No more will come. True: the connection is suspended for it, and the caller has to resume it. */
bool server_upload_break(struct server_upload *upload);
/* On the worker's: an api_upload's. */
ssize_t server_upload_read(void *upload, void *data, size_t size, struct error *err);
/* Reads no more: what still comes is dropped. */
void server_upload_close(struct server_upload *upload);

/* check.c: target, headers, route, caller, announced body. On error what `response` needs besides
 * the problem (allow, close) is set. */
int server_request_check(struct server_request *request, const char *method, const char *version,
                         struct error *err);

/* ---- headers.c: what the headers say ---- */

struct server_headers {
    unsigned content_lengths, hosts, authorizations, content_types, transfer_encodings, digests,
        ranges;
    unsigned last_event_ids, keys;
    /* Borrowed from the connection. */
    const char *authorization, *content_type, *last_event_id, *key, *digest, *range;
    bool content_encoded, respond_async;
    bool if_range;  /* no validator is given out, so none can match: there is then no range */
    bool chunked;   /* the last Transfer-Encoding is just that */
    bool broken;    /* a line that others would read as another, or as more than one */
    bool malformed; /* a character that no header may have, or a length that is no number */
    uint64_t content_length;
};
/* Refuses what two readers of one request could take apart differently. */
int server_headers_read(struct MHD_Connection *connection, const char *version,
                        struct server_headers *ret, struct error *err);
bool server_headers_json(const struct server_headers *headers);
/* Bytes that mean nothing here: application/octet-stream or application/x-tar, or not said. */
bool server_headers_octets(const struct server_headers *headers);
bool server_headers_body(const struct server_headers *headers);

/* ---- quotas.c ---- */

/* One tenant's of the configuration: TENANT,key=value,… A tenant stands once. ERR_CONFIG. */
int server_quota_add(struct store_quotas *quotas, const char *text, struct error *err);

/* ---- caller.c ---- */

/* Who asks, by the kind of listener. ERR_UNAUTHORIZED, ERR_RATE. */
int server_caller(const struct server_listening *listening, struct MHD_Connection *connection,
                  const char *authorization, struct caller *ret, struct error *err);
/* A number for whom a share is counted by; two that had the same would have one share. */
uint64_t server_owner(const struct caller *caller);

/* ---- tls.c ---- */

/* TLS 1.2 and 1.3 with what GnuTLS holds good. */
#define SERVER_TLS_PRIORITIES "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA:-SHA1"
/* A session begins: it gets the certificate of now. On the listener's thread, before the handshake. */
void server_tls_begin(struct server_tls *tls, struct MHD_Connection *connection);
/* What the library asks for a certificate where server_tls_begin set none: there is none. */
gnutls_certificate_retrieve_function2 server_tls_none;

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

/* Hands the response (its body and the stream are taken) to the library. */
enum MHD_Result server_answer(struct server_request *request);

#endif
