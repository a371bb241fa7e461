/* Every route there is. openapi.yaml describes the same list; a test holds them together. */
#include "api/internal.h"

enum { CREATE = API_BODY_CREATE_MAX, EXEC = API_BODY_EXEC_MAX, DRAIN = API_BODY_DRAIN_MAX };

#define ANYBODY API_ROLE_ANYBODY
#define CALLER API_ROLE_CALLER
#define ADMIN API_ROLE_ADMIN

/* clang-format off */
static const struct api_route routes[] = {
    /* method path                    handler            body    pool           role     monitoring */
    {"POST",   "/vms",                 api_vm_create,     CREATE, API_POOL_LIFE, CALLER,  false},
    {"GET",    "/vms",                 api_vm_list,       0,      API_POOL_FAST, CALLER,  false},
    {"GET",    "/vms/{id}",            api_vm_get,        0,      API_POOL_FAST, CALLER,  false},
    {"DELETE", "/vms/{id}",            api_vm_delete,     0,      API_POOL_LIFE, CALLER,  false},
    {"POST",   "/vms/{id}/keepalive",  api_vm_keepalive,  CREATE, API_POOL_LIFE, CALLER,  false},
    {"POST",   "/vms/{id}/pause",      api_vm_pause,      0,      API_POOL_LIFE, CALLER,  false},
    {"POST",   "/vms/{id}/resume",     api_vm_resume,     0,      API_POOL_LIFE, CALLER,  false},
    {"POST",   "/vms/{id}/exec",       api_exec_create,   EXEC,   API_POOL_EXEC, CALLER,  false},
    {"GET",    "/vms/{id}/isolation",  api_isolation_get, 0,      API_POOL_LIFE, CALLER,  false},
    {"GET",    "/vms/{id}/audit",      api_audit_get,     0,      API_POOL_FAST, CALLER,  false},
    {"GET",    "/images",              api_image_list,    0,      API_POOL_FAST, CALLER,  false},
    {"GET",    "/capabilities",        api_capabilities,  0,      API_POOL_FAST, CALLER,  false},
    {"GET",    "/admin/cordon",        api_cordon_get,    0,      API_POOL_FAST, ADMIN,   false},
    {"POST",   "/admin/cordon",        api_cordon_set,    0,      API_POOL_FAST, ADMIN,   false},
    {"DELETE", "/admin/cordon",        api_cordon_lift,   0,      API_POOL_FAST, ADMIN,   false},
    {"POST",   "/admin/drain",         api_drain,         DRAIN,  API_POOL_FAST, ADMIN,   false},
    {"GET",    "/openapi.yaml",        api_openapi,       0,      API_POOL_FAST, CALLER,  false},
    {"GET",    "/metrics",             api_metrics,       0,      API_POOL_FAST, CALLER,  true},
    {"GET",    "/healthz",             api_health,        0,      API_POOL_NONE, ANYBODY, true},
    {"GET",    "/readyz",              api_ready,         0,      API_POOL_FAST, ANYBODY, true},
};
/* clang-format on */

const struct api_route *api_routes(size_t *ret_count)
{
    _Static_assert(COUNT_OF(routes) <= API_ROUTES_MAX, "metrics count by route");
    *ret_count = COUNT_OF(routes);
    return routes;
}
