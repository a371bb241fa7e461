/* api's inside: the handlers and what they share. Only api/ and its tests include it. */
#ifndef MOTTE_API_INTERNAL_H
#define MOTTE_API_INTERNAL_H

#include "api/api.h"

/* ---- handlers, one file per resource ---- */

/* vms.c */
api_handler api_vm_create, api_vm_list, api_vm_get, api_vm_delete;
/* known.c */
api_knower api_vm_known;
/* wait.c */
api_handler api_vm_wait;
/* patch.c */
api_handler api_vm_patch;
/* stats.c */
api_handler api_vm_stats;
/* keepalive.c */
api_handler api_vm_keepalive;
/* pause.c */
api_handler api_vm_pause, api_vm_resume;
/* snapshots.c */
api_handler api_snapshot_create, api_snapshot_list, api_snapshot_get, api_snapshot_delete;
/* fork.c */
api_handler api_vm_fork;
/* exec.c */
api_handler api_exec_create;
/* execs.c */
api_handler api_execs_create, api_execs_list, api_execs_get, api_execs_delete, api_execs_stdin,
    api_execs_resize;
/* exec_events.c */
api_handler api_execs_events;
/* files.c */
api_handler api_file_put, api_file_get, api_file_delete;
/* ls.c */
api_handler api_file_list;
/* archive.c */
api_handler api_archive_get, api_archive_put;
/* body.c: what comes, and what it comes to. It ends only if it is what it should be: else a file would
 * get its name. */
struct api_body {
    const struct api_request *request;
    struct hash *hash; /* owned */
    int64_t size;
    uint8_t digest[HASH_SIZE];
};
/* Of a vsock_source, whose context is the struct api_body. */
ssize_t api_body_read(void *context, void *data, size_t size, struct error *err);
void api_body_release(struct api_body *body);
/* file_query.c: `path`, and of the others those that the route takes. */
enum api_file_parameter {
    API_FILE_PATH = 1 << 0,
    API_FILE_MODE = 1 << 1,
    API_FILE_PARENTS = 1 << 2,
    API_FILE_RECURSIVE = 1 << 3,
    API_FILE_DIGEST = 1 << 4,
    API_FILE_LIMIT = 1 << 5,
    API_FILE_CURSOR = 1 << 6,
};
struct api_file_query {
    char path[API_QUERY_VALUE_SIZE];
    uint32_t mode, limit;
    bool parents, recursive;
    bool digest;                      /* sha-256 of what is read */
    char cursor[VSOCK_NAME_HEX_SIZE]; /* "": from the start */
};
int api_file_query_parse(const char *text, unsigned allowed, struct api_file_query *ret,
                         struct error *err);
/* digest.c: the value of a Repr-Digest. */
void api_digest_print(const uint8_t digest[static HASH_SIZE], char out[static API_DIGEST_SIZE]);
/* range.c: of `size` bytes. A part, at least one byte; all, where the header does not ask for one part
 * (RFC 9110: it is then as if it were not there); or none, where there is no such part. */
enum api_range { API_RANGE_ALL, API_RANGE_PART, API_RANGE_NONE };
enum api_range api_range_parse(const char *text, int64_t size, int64_t *ret_offset,
                               int64_t *ret_length);
/* download.c: the answer that is a part of `file` (taken in any case), or with a length of -1 an archive. */
int api_download_begin(struct vmm_file *file, int64_t offset, int64_t length,
                       struct api_response *response, struct error *err);
/* isolation.c */
api_handler api_isolation_get;
/* console.c */
api_handler api_console_get;
/* console_events.c: the same as a stream. */
api_handler api_console_follow;
/* audit.c */
api_handler api_audit_get;
/* calls_list.c */
api_handler api_calls_get;
/* vm_events.c */
api_handler api_events_watch;
/* admin.c */
api_handler api_cordon_get, api_cordon_set, api_cordon_lift, api_drain;
/* host.c */
api_handler api_image_list, api_capabilities, api_health, api_ready, api_metrics, api_openapi;

/* ---- shared ---- */

/* retry.c: what is kept of the request's answer: of one without a key nothing. `made` as in struct
 * store_keep. */
struct store_keep api_keep(const struct api_request *request,
                           int (*answer)(const void *made, struct store_answer *ret),
                           const void *made);
/* Its body is taken. */
void api_respond_answer(struct api_response *response, struct store_answer *answer);
/* Takes `json`; -1: out of memory. */
int api_answer_json(struct store_answer *ret, unsigned status, cJSON *json);
/* api_dispatch() of a request with a key. */
void api_dispatch_keyed(struct api *api, const struct api_route *route,
                        const struct api_request *request, struct api_response *ret);

/* The JSON answer; takes `json` (NULL: out of memory). */
int api_respond_json(struct api_response *response, unsigned status, cJSON *json,
                     struct error *err);

/* {NAME: [each of the items as `write` has it, …]}; NULL: out of memory. The caller's. */
struct api_list {
    const char *name;
    const void *items;
    size_t count, size; /* bytes of one */
    cJSON *(*write)(const void *item);
};
cJSON *api_list_json(const struct api_list *list);
/* The same with `next_cursor`; NULL: it is the last page. */
cJSON *api_page_json(const struct api_list *list, const char *next);

/* The row a caller means by `id`: his own first; for an admin then anybody's. ERR_VM_UNKNOWN,
 * ERR_VM_GONE. */
int api_vm_find(struct api *api, const struct caller *caller, const char *id, struct store_vm *ret,
                struct error *err);

/* vm_json.c: a row as clients see it; NULL when out of memory. */
cJSON *api_vm_json(const struct store_vm *vm);
/* certificate.c: after ERR_VM_GONE of `id`: the answer that says so, with what remains of the VM. */
void api_vm_gone(struct api *api, const struct api_request *request, const struct error *gone,
                 struct api_response *response);
/* A wall time, or null for 0. */
int api_add_time(cJSON *json, const char *name, int64_t wall_ms);
/* Names of the guards in a set of enum priv_guard bits, as a JSON array. */
cJSON *api_guards_json(uint32_t guards);
/* Wall time of the end of a VM's life, or 0 while it does not run yet. The row is of this boot:
 * recovery has ended all others before anybody can ask. */
int64_t api_vm_expires_wall_ms(const struct store_vm *vm);
/* The same from its two members. */
int64_t api_expires_wall_ms(int64_t expires_boot_ms, int64_t expires_wall_ms);

/* audit.c: an entry as clients see it; NULL when out of memory. */
cJSON *api_audit_json(const struct store_audit *entry);
/* A list by numbers that grow: ?limit=…&cursor=… */
struct api_seq_query {
    uint32_t limit;
    int64_t after; /* 0: from the start */
};
int api_seq_query_parse(const char *text, uint32_t usual, uint32_t max, struct api_seq_query *ret,
                        struct error *err);

/* feed.c: the stream of the events that a query asks for. */
struct api_events_query {
    char owner[STORE_OWNER_MAX + 1]; /* "": any */
    char id[ID_VM_MAX + 1];          /* "": any */
    uint32_t kinds;                  /* as struct store_events_filter has them */
    int64_t after, told;             /* as struct store_events has them */
    bool once;                       /* ends where nothing more is known yet */
    bool fresh;                      /* begins now: it is told where that is */
    bool unknown;                    /* begins before what is kept, and may have missed any */
};
int api_feed_watch(struct api_feed *feed, const struct api_events_query *query,
                   struct api_stream *ret, struct error *err);

/* known.c: keeps a 200 for api_vm_known(). `moment`: store_moment() from before the row was read.
 * `known` NULL: does nothing. */
void api_known_keep(struct api_known *known, uint64_t moment, const struct api_request *request,
                    const struct store_vm *vm, const struct api_response *response);

/* list_query.c: the query of GET /vms. */
struct api_list_query {
    uint32_t limit;
    enum store_state state;           /* 0: any */
    char label[API_QUERY_VALUE_SIZE]; /* "key" or "key=value", split in place */
    const char *label_key, *label_value;
    char cursor[ID_INSTANCE_SIZE]; /* "" from the start */
    char kept[API_TARGET_MAX + 1]; /* the query without its cursor: what `next` repeats */
};
int api_take_state(const char *value, enum store_state *ret, struct error *err);
int api_list_query_parse(const char *query, struct api_list_query *ret, struct error *err);
/* Of a list that has no states. */
int api_snapshot_query_parse(const char *query, struct api_list_query *ret, struct error *err);
/* Routes without parameters: any is an error. */
int api_query_none(const char *query, struct error *err);

/* exec_body.c: the body of POST /vms/{id}/exec. `json` owns what `request` borrows. */
struct api_exec_body {
    cJSON *json;
    cJSON *shell_argv;                /* owned: made from `shell` */
    char *shell, *cwd, *user, *input; /* owned */
    struct vsock_exec_request request;
    bool input_open; /* of POST /vms/{id}/execs alone, as is a terminal */
};
/* `watched`: of POST /vms/{id}/execs. */
int api_exec_body_parse(const char *text, size_t len, bool watched, struct api_exec_body *ret,
                        struct error *err);
void api_exec_body_release(struct api_exec_body *body);

/* execs.c: the command that a request means. ERR_VM_UNKNOWN. Its VM may have ended. */
int api_exec_key(struct api *api, const struct api_request *request, struct vmm_exec_key *ret,
                 struct error *err);
/* exec_json.c: a command as clients see it, NULL when out of memory; `output`: with what is kept of
 * its output. */
cJSON *api_exec_json(struct api *api, const struct vmm_exec_key *key,
                     const struct vmm_exec_record *record, bool output);

/* base64.c: RFC 4648, with padding. */
#define API_BASE64_SIZE(len) (((len) + 2) / 3 * 4)
size_t api_base64_encode(const void *data, size_t len, char *out);
/* In place; returns the length, or -1 for what is no base64. */
ssize_t api_base64_decode(char *text, size_t len);

/* events.c: one server-sent event, made whole and sent in parts. `id` is what Last-Event-ID will say. */
enum {
    API_EVENT_PIECE = 6144, /* bytes that one carries */
    API_EVENT_HEAD = 96,
};
#define API_EVENT_END "end" /* the id of the last one */
struct api_event {
    size_t len, sent; /* equal: all of it was sent */
    bool last;        /* nothing comes after it */
    char text[API_BASE64_SIZE(API_EVENT_PIECE) + API_EVENT_HEAD];
};
void api_event_bytes(struct api_event *event, const char *name, const char *id, const char *piece,
                     size_t len);
/* Takes `json` (NULL: out of memory); -1: out of memory, or it does not fit. */
int api_event_json(struct api_event *event, const char *name, const char *id, cJSON *json);
/* So many bytes were not kept until they could be sent; or nobody knows how many. */
int api_event_gap(struct api_event *event, const char *id, bool known, uint64_t dropped);
/* A stream's `read`: sends what is left, then what `next` puts into `event`; that returns 1, or what
 * `read` is to return: API_STREAM_WAIT, API_STREAM_BROKEN. */
ssize_t api_event_read(struct api_event *event, ssize_t (*next)(void *context, struct waker *waker),
                       void *context, char *out, size_t size, struct waker *waker);
/* 0: the answer is a stream of events, which owns `context`. */
int api_respond_events(struct api_response *response,
                       ssize_t (*read)(void *context, char *out, size_t size, struct waker *waker),
                       void (*close)(void *context, struct waker *waker), void *context);

/* Built from openapi.yaml; NUL-terminated. */
extern const char api_openapi_text[];

#endif
