/* api's inside: the handlers and what they share. Only api/ and its tests include it. */
#ifndef MOTTE_API_INTERNAL_H
#define MOTTE_API_INTERNAL_H

#include "api/api.h"

/* ---- handlers, one file per resource ---- */

/* vms.c */
api_handler api_vm_create, api_vm_list, api_vm_get, api_vm_delete;
/* keepalive.c */
api_handler api_vm_keepalive;
/* pause.c */
api_handler api_vm_pause, api_vm_resume;
/* exec.c */
api_handler api_exec_create;
/* isolation.c */
api_handler api_isolation_get;
/* audit.c */
api_handler api_audit_get;
/* admin.c */
api_handler api_cordon_get, api_cordon_set, api_cordon_lift, api_drain;
/* host.c */
api_handler api_image_list, api_capabilities, api_health, api_ready, api_metrics, api_openapi;

/* ---- shared ---- */

/* The JSON answer; takes `json` (NULL: out of memory). */
int api_respond_json(struct api_response *response, unsigned status, cJSON *json,
                     struct error *err);

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

/* list_query.c: the query of GET /vms. */
struct api_list_query {
    uint32_t limit;
    enum store_state state;           /* 0: any */
    char label[API_QUERY_VALUE_SIZE]; /* "key" or "key=value", split in place */
    const char *label_key, *label_value;
    char cursor[ID_INSTANCE_SIZE]; /* "" from the start */
    char kept[API_TARGET_MAX + 1]; /* the query without its cursor: what `next` repeats */
};
int api_list_query_parse(const char *query, struct api_list_query *ret, struct error *err);
/* Routes without parameters: any is an error. */
int api_query_none(const char *query, struct error *err);

/* exec_body.c: the body of POST /vms/{id}/exec. `json` owns what `request` borrows. */
struct api_exec_body {
    cJSON *json;
    cJSON *shell_argv;                /* owned: made from `shell` */
    char *shell, *cwd, *user, *input; /* owned */
    struct vsock_exec_request request;
};
int api_exec_body_parse(const char *text, size_t len, struct api_exec_body *ret, struct error *err);
void api_exec_body_release(struct api_exec_body *body);

/* Built from openapi.yaml; NUL-terminated. */
extern const char api_openapi_text[];

#endif
