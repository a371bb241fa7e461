/* What the host offers and how the service does: images, capabilities, health, metrics, the
 * contract. */
#include "api/internal.h"

#include "netfilter/netfilter.h" /* enum netfilter_state only; nothing of it is linked */

/* ---- images ---- */

static cJSON *image_json(const void *item)
{
    const struct image *image = item;
    char digest[sizeof("sha256:") - 1 + HASH_HEX_SIZE] = "sha256:", created[25];
    hash_to_hex(image->digest, HASH_SIZE, digest + strlen("sha256:"));
    clock_format(image->created_wall_ms, created);
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "name", image->name) < 0 ||
        json_add_string(json, "digest", digest) < 0 ||
        json_add_number(json, "size_bytes", (double)image->size) < 0 ||
        json_add_string(json, "kernel", image->kernel) < 0 ||
        json_add_string(json, "created_at", created) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static cJSON *images_json(const struct image *images, size_t count, const char *default_image)
{
    cleanup_json cJSON *json =
        api_list_json(&(struct api_list){"images", images, count, sizeof(*images), image_json});
    return json == NULL || json_add_string(json, "default", default_image) < 0 ? NULL
                                                                               : TAKE_PTR(json);
}

int api_image_list(struct api *api, const struct api_request *request,
                   struct api_response *response, struct error *err)
{
    cleanup_free struct image *images = NULL;
    size_t count = 0;
    struct vmm_defaults defaults;
    if (api_query_none(request->query, err) < 0 ||
        image_list(api->state_dir, &images, &count, err) < 0)
        return -1;
    vmm_defaults(api->vmm, &defaults);
    return api_respond_json(response, 200, images_json(images, count, defaults.image), err);
}

/* ---- capabilities ---- */

static const char *firewall_name(uint32_t state)
{
    static const char *const names[] = {
        [NETFILTER_OFF] = "off",
        [NETFILTER_SECURITY] = "security",
        [NETFILTER_FILTER] = "filter",
        [NETFILTER_NO_STACK] = "no_stack",
    };
    return state < COUNT_OF(names) ? names[state] : "unknown";
}

static cJSON *firewall_json(const struct priv_host *host)
{
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "ipv4", firewall_name(host->firewall_v4)) < 0 ||
        json_add_string(json, "ipv6", firewall_name(host->firewall_v6)) < 0 ||
        json_add_bool(json, "in_sync", host->firewall_in_sync != 0) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static cJSON *limits_json(const struct priv_host *host)
{
    const struct {
        const char *name;
        double value;
    } limits[] = {
        {"max_vms", host->max_vms},
        {"max_vcpus", host->max_vcpus},
        {"min_memory_mib", VMM_MEMORY_MIN_MIB},
        {"max_memory_mib", host->max_memory_mib},
        {"max_disk_mib", host->max_disk_mib},
        {"total_memory_mib", host->total_memory_mib},
        {"default_ttl_s", VMM_TTL_DEFAULT_S},
        {"max_ttl_s", VMM_TTL_MAX_S},
        {"default_exec_timeout_ms", API_EXEC_TIMEOUT_DEFAULT_MS},
        {"max_exec_timeout_ms", API_EXEC_TIMEOUT_MAX_MS},
        {"max_exec_output_bytes", API_OUTPUT_MAX},
        {"max_exec_body_bytes", API_BODY_EXEC_MAX},
        {"max_execs_timeout_ms", API_EXEC_LONG_TIMEOUT_MAX_MS},
        {"max_execs_kept", VMM_EXECS_MAX},
        {"max_execs_per_vm", VMM_EXECS_PER_VM},
        {"max_execs_running", VMM_EXECS_RUNNING_MAX},
        {"max_execs_output_bytes", VMM_EXEC_LOG_MAX},
        {"max_execs_total_output_bytes", VMM_EXEC_LOGS_MAX},
        {"max_stdin_waiting_bytes", VMM_EXEC_INPUT_MAX},
        {"max_stdin_body_bytes", API_BODY_STDIN_MAX},
        {"max_console_bytes", VMM_CONSOLE_TAIL - 1},
        {"max_streams", API_STREAMS_MAX},
        {"max_waits", API_WAITS_MAX},
        {"max_wait_s", API_WAIT_MAX_S},
        {"max_idempotency_keys", STORE_KEYS_MAX},
        {"max_idempotent_answer_bytes", STORE_ANSWER_MAX},
        {"max_idempotent_bytes", STORE_KEYS_BYTES_MAX},
        {"idempotency_keep_s", STORE_KEYS_KEEP_S},
    };
    cJSON *json = cJSON_CreateObject();
    bool failed = json == NULL;
    for (size_t i = 0; i < COUNT_OF(limits) && !failed; i++)
        failed = json_add_number(json, limits[i].name, limits[i].value) < 0;
    if (failed) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

/* Null: no limit. */
static int add_limit(cJSON *json, const char *name, uint32_t most)
{
    return most != 0 ? json_add_number(json, name, most) : json_add(json, name, cJSON_CreateNull());
}

/* What the caller may have at once, and what he has. Takes `json`. */
static cJSON *with_tenant(cJSON *json, const char *name, const struct store_quota *most,
                          const struct store_quota *used)
{
    cJSON *tenant = json != NULL ? cJSON_CreateObject() : NULL;
    bool failed = json_add_string(tenant, "name", name) < 0 ||
                  add_limit(tenant, "max_vms", most->vms) < 0 ||
                  add_limit(tenant, "max_vcpus", most->vcpus) < 0 ||
                  add_limit(tenant, "max_memory_mib", most->memory_mib) < 0 ||
                  add_limit(tenant, "max_execs", most->execs) < 0 ||
                  json_add_number(tenant, "vms", used->vms) < 0 ||
                  json_add_number(tenant, "vcpus", used->vcpus) < 0 ||
                  json_add_number(tenant, "memory_mib", used->memory_mib) < 0 ||
                  json_add_number(tenant, "execs", used->execs) < 0;
    if (!failed && json_add(json, "tenant", tenant) == 0)
        return json;
    if (failed)
        cJSON_Delete(tenant);
    cJSON_Delete(json);
    return NULL;
}

static cJSON *capabilities_json(const struct priv_host *host, bool cordoned)
{
    const uint32_t all = PRIV_GUARD_FIREWALL | PRIV_GUARD_CGROUP | PRIV_GUARD_SECCOMP;
    bool qemu = host->hypervisor == PRIV_QEMU;
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_string(json, "version", MOTTE_VERSION) < 0 ||
        json_add_string(json, "hypervisor", qemu ? "qemu" : "firecracker") < 0 ||
        json_add_bytes(json, "vmm_version", host->vmm_version,
                       strnlen(host->vmm_version, sizeof(host->vmm_version))) < 0 ||
        json_add_bool(json, "emulated", host->emulated != 0) < 0 ||
        json_add_string(json, "isolation", host->emulated ? "emulated" : "kvm") < 0 ||
        json_add(json, "guards", api_guards_json(all & ~host->without)) < 0 ||
        json_add(json, "without", api_guards_json(host->without)) < 0 ||
        json_add_number(json, "cgroup_version", host->cgroup_version) < 0 ||
        json_add(json, "firewall", firewall_json(host)) < 0 ||
        json_add_bool(json, "cordoned", cordoned) < 0 ||
        json_add(json, "limits", limits_json(host)) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

int api_capabilities(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct priv_host host;
    struct store_cordon cordon;
    struct store_quota used;
    const char *owner = request->caller->name;
    if (api_query_none(request->query, err) < 0 || store_cordon_get(api->store, &cordon, err) < 0 ||
        store_quota_used(api->store, owner, &used, err) < 0)
        return -1;
    used.execs = vmm_exec_running(api->vmm, owner);
    struct store_quota most = store_quota_of(api->store, owner);
    vmm_host(api->vmm, &host);
    return api_respond_json(
        response, 200, with_tenant(capabilities_json(&host, cordon.set), owner, &most, &used), err);
}

/* ---- health ---- */

static cJSON *status_json(const char *status)
{
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && json_add_string(json, "status", status) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

/* The process answers: no more. On the connection's own thread, so that full pools cannot hide it.
 */
int api_health(struct api *api, const struct api_request *request, struct api_response *response,
               struct error *err)
{
    (void)api;
    if (api_query_none(request->query, err) < 0)
        return -1;
    return api_respond_json(response, 200, status_json("ok"), err);
}

/* A spawn would be tried: recovery is over, nobody asked us to stop, the inventory answers, the host
 * is not cordoned. */
int api_ready(struct api *api, const struct api_request *request, struct api_response *response,
              struct error *err)
{
    struct store_totals totals;
    struct store_cordon cordon;
    if (api_query_none(request->query, err) < 0)
        return -1;
    if (!atomic_load(&api->ready))
        return error_set(err, ERR_SHUTTING_DOWN, 0, "the service is starting or stopping");
    if (store_totals(api->store, &totals, err) < 0 ||
        store_cordon_get(api->store, &cordon, err) < 0)
        return -1;
    if (cordon.set)
        return error_set(err, ERR_CORDONED, 0, "the host is cordoned: it takes no new VMs");
    return api_respond_json(response, 200, status_json("ready"), err);
}

/* ---- metrics and contract ---- */

int api_metrics(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    struct buf text cleanup(buf_release) = {.max = 1 << 20};
    if (api_query_none(request->query, err) < 0 ||
        api->metrics(api->metrics_context, &text, err) < 0)
        return -1;
    response->status = 200;
    response->content_type = "text/plain; version=0.0.4; charset=utf-8";
    response->body_len = text.len;
    response->body = TAKE_PTR(text.data);
    return 0;
}

int api_openapi(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    (void)api;
    if (api_query_none(request->query, err) < 0)
        return -1;
    response->status = 200;
    response->content_type = "application/yaml";
    response->body_static = api_openapi_text;
    response->body_len = strlen(api_openapi_text);
    return 0;
}
