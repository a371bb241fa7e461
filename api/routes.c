/* Every route there is. openapi.yaml describes the same list; a test holds them together. */
#include "api/internal.h"

enum {
    CREATE = API_BODY_CREATE_MAX,
    EXEC = API_BODY_EXEC_MAX,
    DRAIN = API_BODY_DRAIN_MAX,
    STDIN = API_BODY_STDIN_MAX,
    SIZE = API_BODY_SIZE_MAX
};

#define ANYBODY API_ROLE_ANYBODY
#define CALLER API_ROLE_CALLER
#define LOCAL API_ROLE_LOCAL
#define ADMIN API_ROLE_ADMIN
#define ONCE API_ONCE
#define AGAIN API_AGAIN
#define KEPT API_KEPT

/* clang-format off */
static const struct api_route routes[] = {
    /* method path                    handler            body    pool           role     monitoring known retry */
    {"POST",   "/vms",                 api_vm_create,     CREATE, API_POOL_LIFE, CALLER,  false, NULL, KEPT},
    {"GET",    "/vms",                 api_vm_list,       0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}",            api_vm_get,        0,      API_POOL_FAST, CALLER,  false, api_vm_known, ONCE},
    {"DELETE", "/vms/{id}",            api_vm_delete,     0,      API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"PATCH",  "/vms/{id}",            api_vm_patch,      CREATE, API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/wait",       api_vm_wait,       0,      API_POOL_WAIT, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/stats",      api_vm_stats,      0,      API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"POST",   "/vms/{id}/keepalive",  api_vm_keepalive,  CREATE, API_POOL_LIFE, CALLER,  false, NULL, AGAIN},
    {"POST",   "/vms/{id}/pause",      api_vm_pause,      0,      API_POOL_LIFE, CALLER,  false, NULL, AGAIN},
    {"POST",   "/vms/{id}/resume",     api_vm_resume,     0,      API_POOL_LIFE, CALLER,  false, NULL, AGAIN},
    {"POST",   "/vms/{id}/snapshots",  api_snapshot_create, CREATE, API_POOL_LIFE, CALLER, false, NULL, KEPT},
    {"POST",   "/vms/{id}/fork",       api_vm_fork,       CREATE, API_POOL_LIFE, CALLER,  false, NULL, KEPT},
    {"POST",   "/vms/{id}/exec",       api_exec_create,   EXEC,   API_POOL_EXEC, CALLER,  false, NULL, ONCE},
    {"POST",   "/vms/{id}/execs",      api_execs_create,  EXEC,   API_POOL_EXEC, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/execs",      api_execs_list,    0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/execs/{eid}", api_execs_get,    0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"DELETE", "/vms/{id}/execs/{eid}", api_execs_delete, 0,      API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/execs/{eid}/events", api_execs_events, 0, API_POOL_FAST, CALLER, false, NULL, ONCE},
    {"POST",   "/vms/{id}/execs/{eid}/stdin", api_execs_stdin, STDIN, API_POOL_FAST, CALLER, false, NULL, AGAIN},
    {"POST",   "/vms/{id}/execs/{eid}/resize", api_execs_resize, SIZE, API_POOL_FAST, CALLER, false, NULL, AGAIN},
    {"PUT",    "/vms/{id}/files",      api_file_put,      API_FILE_MAX, API_POOL_FILES, CALLER, false, NULL, ONCE},
    {"GET",    "/vms/{id}/files",      api_file_get,      0,      API_POOL_FILES, CALLER, false, NULL, ONCE},
    {"DELETE", "/vms/{id}/files",      api_file_delete,   0,      API_POOL_EXEC, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/ls",         api_file_list,     0,      API_POOL_EXEC, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/archive",    api_archive_get,   0,      API_POOL_FILES, CALLER, false, NULL, ONCE},
    {"PUT",    "/vms/{id}/archive",    api_archive_put,   API_FILE_MAX, API_POOL_FILES, CALLER, false, NULL, ONCE},
    {"GET",    "/vms/{id}/isolation",  api_isolation_get, 0,      API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/console",    api_console_get,   0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/vms/{id}/audit",      api_audit_get,     0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/events",              api_events_watch,  0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/snapshots",           api_snapshot_list, 0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/snapshots/{id}",      api_snapshot_get,  0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"DELETE", "/snapshots/{id}",      api_snapshot_delete, 0,    API_POOL_LIFE, CALLER,  false, NULL, ONCE},
    {"GET",    "/images",              api_image_list,    0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/capabilities",        api_capabilities,  0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/audit",               api_calls_get,     0,      API_POOL_FAST, ADMIN,   false, NULL, ONCE},
    {"GET",    "/admin/cordon",        api_cordon_get,    0,      API_POOL_FAST, ADMIN,   false, NULL, ONCE},
    {"POST",   "/admin/cordon",        api_cordon_set,    0,      API_POOL_FAST, ADMIN,   false, NULL, AGAIN},
    {"DELETE", "/admin/cordon",        api_cordon_lift,   0,      API_POOL_FAST, ADMIN,   false, NULL, ONCE},
    {"POST",   "/admin/drain",         api_drain,         DRAIN,  API_POOL_FAST, ADMIN,   false, NULL, AGAIN},
    {"GET",    "/openapi.yaml",        api_openapi,       0,      API_POOL_FAST, CALLER,  false, NULL, ONCE},
    {"GET",    "/metrics",             api_metrics,       0,      API_POOL_FAST, LOCAL,   true, NULL, ONCE},
    {"GET",    "/healthz",             api_health,        0,      API_POOL_NONE, ANYBODY, true, NULL, ONCE},
    {"GET",    "/readyz",              api_ready,         0,      API_POOL_FAST, ANYBODY, true, NULL, ONCE},
};
/* clang-format on */

const struct api_route *api_routes(size_t *ret_count)
{
    _Static_assert(COUNT_OF(routes) <= API_ROUTES_MAX, "metrics count by route");
    *ret_count = COUNT_OF(routes);
    return routes;
}
