/* Firecracker's HTTP API: libcurl on its Unix socket, reached through /proc/self/fd so that neither
 * the jail's path nor the 107-byte limit of sun_path matters. */
#include "vmm/internal.h"

#include <curl/curl.h>
#include <sys/socket.h>

enum { REPLY_MAX = 64 * 1024 };

struct vmm_firecracker_api {
    CURL *curl;
    struct curl_slist *headers;
    struct buf reply;
};

static size_t on_reply(char *data, size_t size, size_t count, void *context)
{
    return buf_append(context, data, size * count) < 0 ? 0 : size * count;
}

/* The library's own sockets are inherited by programs that are started. */
static curl_socket_t on_open(void *context, curlsocktype purpose, struct curl_sockaddr *address)
{
    (void)context, (void)purpose;
    return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* Options are copied, for which there may be no memory: without its path the library would go to a
 * TCP port instead. */
static CURLcode set_up(struct vmm_firecracker_api *api, int socket)
{
    CURL *curl = api->curl;
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", socket);
    CURLcode code = curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, path);
    if (code == CURLE_OK)
        code = curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(curl, CURLOPT_HTTPHEADER, api->headers);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_reply);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &api->reply);
    curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)VMM_API_TIMEOUT_MS);
    return code;
}

struct vmm_firecracker_api *vmm_firecracker_api_new(int socket, struct error *err)
{
    struct vmm_firecracker_api *api = calloc(1, sizeof(*api));
    if (api != NULL) {
        api->reply.max = REPLY_MAX;
        api->curl = curl_easy_init();
        api->headers = curl_slist_append(NULL, "Content-Type: application/json");
    }
    if (api == NULL || api->curl == NULL || api->headers == NULL) {
        vmm_firecracker_api_free(api);
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for Firecracker's API");
        return NULL;
    }
    if (set_up(api, socket) != CURLE_OK) {
        vmm_firecracker_api_free(api);
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for Firecracker's API");
        return NULL;
    }
    return api;
}

void vmm_firecracker_api_free(struct vmm_firecracker_api *api)
{
    if (api == NULL)
        return;
    curl_easy_cleanup(api->curl);
    curl_slist_free_all(api->headers);
    buf_release(&api->reply);
    free(api);
}

int vmm_firecracker_fault(const char *request, long status, const char *reply, size_t len,
                          struct error *err)
{
    struct error ignored = {0};
    cleanup_json cJSON *json = NULL;
    const char *fault = NULL;
    if (len > 0 && json_parse(reply, len, &json, &ignored) == 0)
        fault = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "fault_message"));
    return error_set(err, ERR_HYPERVISOR, 0, "Firecracker answered %ld to %s: %.160s", status,
                     request, fault != NULL ? fault : "no reason given");
}

/* `verb` and the URL are set; an answer other than 200 or 204 is an error. */
static int perform(struct vmm_firecracker_api *api, const char *verb, const char *path,
                   struct error *err)
{
    char url[64], request[72];
    snprintf(url, sizeof(url), "http://localhost%s", path);
    snprintf(request, sizeof(request), "%s %s", verb, path);
    api->reply.len = 0;
    CURLcode code = curl_easy_setopt(api->curl, CURLOPT_URL, url);
    if (code == CURLE_OK)
        code = curl_easy_setopt(api->curl, CURLOPT_CUSTOMREQUEST, verb);
    if (code == CURLE_OK) /* else it has the last ones */
        code = curl_easy_perform(api->curl);
    if (code == CURLE_OUT_OF_MEMORY)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for Firecracker's API");
    if (code != CURLE_OK)
        return error_set(err,
                         code == CURLE_OPERATION_TIMEDOUT ? ERR_HYPERVISOR_TIMEOUT : ERR_HYPERVISOR,
                         0, "Firecracker did not answer %s: %s", request, curl_easy_strerror(code));
    long status = 0;
    curl_easy_getinfo(api->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status == 204 || status == 200)
        return 0;
    return vmm_firecracker_fault(request, status, api->reply.data, api->reply.len, err);
}

/* Takes body. */
static int request(struct vmm_firecracker_api *api, const char *verb, const char *path, cJSON *body,
                   struct error *err)
{
    cleanup_json cJSON *owned = body;
    cleanup_free char *text = owned == NULL ? NULL : json_print(owned);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for Firecracker's API");
    curl_easy_setopt(api->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(text));
    curl_easy_setopt(api->curl, CURLOPT_POSTFIELDS, text);
    return perform(api, verb, path, err);
}

int vmm_firecracker_api_put(struct vmm_firecracker_api *api, const char *path, cJSON *body,
                            struct error *err)
{
    return request(api, "PUT", path, body, err);
}

int vmm_firecracker_api_ask(int socket, const char *verb, const char *path, cJSON *body,
                            int timeout_ms, struct error *err)
{
    cleanup_json cJSON *owned = body;
    struct vmm_firecracker_api *api = vmm_firecracker_api_new(socket, err);
    if (api == NULL)
        return -1;
    curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    int result = request(api, verb, path, TAKE_PTR(owned), err);
    vmm_firecracker_api_free(api);
    return result;
}

/* Is it who we think, and does its guest run? */
static int read_info(const struct buf *reply, const char *instance, bool *ret_paused,
                     struct error *err)
{
    cleanup_json cJSON *json = NULL;
    if (json_parse(reply->data != NULL ? reply->data : "", reply->len, &json, err) < 0)
        return -1;
    const char *id = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "id"));
    if (id == NULL || strcmp(id, instance) != 0)
        return error_set(err, ERR_HYPERVISOR, 0, "Firecracker says that it is another instance");
    const char *state = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "state"));
    *ret_paused = state != NULL && strcmp(state, "Paused") == 0;
    return 0;
}

int vmm_firecracker_api_alive(int socket, const char *instance, int timeout_ms, bool *ret_paused,
                              struct error *err)
{
    struct vmm_firecracker_api *api = vmm_firecracker_api_new(socket, err);
    if (api == NULL)
        return -1;
    curl_easy_setopt(api->curl, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    int result = perform(api, "GET", "/", err);
    if (result == 0)
        result = read_info(&api->reply, instance, ret_paused, err);
    vmm_firecracker_api_free(api);
    return result;
}
