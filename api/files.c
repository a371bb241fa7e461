/* /vms/{id}/files?path=…: one file of a VM. */
#include "api/internal.h"

/* ---- PUT ---- */

static int respond_put(const struct api_file_query *query, const struct api_body *body,
                       struct api_response *response, struct error *err)
{
    char hex[HASH_HEX_SIZE], mode[8];
    cJSON *json = cJSON_CreateObject();
    hash_to_hex(body->digest, HASH_SIZE, hex);
    snprintf(mode, sizeof(mode), "%04o", query->mode);
    if (json != NULL &&
        (json_add_string(json, "path", query->path) < 0 ||
         json_add_number(json, "size", (double)body->size) < 0 ||
         json_add_string(json, "mode", mode) < 0 || json_add_string(json, "sha256", hex) < 0)) {
        cJSON_Delete(json);
        json = NULL;
    }
    return api_respond_json(response, 200, json, err);
}

int api_file_put(struct api *api, const struct api_request *request, struct api_response *response,
                 struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    struct api_body body cleanup(api_body_release) = {.request = request, .hash = hash_new()};
    if (body.hash == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a file's digest");
    if (api_file_query_parse(request->query, API_FILE_MODE | API_FILE_PARENTS, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    const struct vsock_file_put file = {query.path, query.mode, query.parents};
    const struct vsock_source source = {api_body_read, &body};
    if (vmm_file_put(api->vmm, vm.owner, request->id, &file, &source, err) < 0)
        return -1;
    return respond_put(&query, &body, response, err);
}

/* ---- GET ---- */

static int respond_no_part(const struct api_request *request, struct vmm_file *file /* taken */,
                           int64_t size, struct api_response *response)
{
    struct error err = {0};
    vmm_file_close(file);
    error_set(&err, ERR_RANGE, 0, "the file has %lld bytes, and none in that range",
              (long long)size);
    api_problem(&err, request->request_id, NULL, response);
    snprintf(response->content_range, sizeof(response->content_range), "bytes */%lld",
             (long long)size);
    return 0;
}

enum { DIGEST_MS = 600000 };

struct reading {
    struct hash *hash; /* owned */
    int64_t deadline_ms;
};

static void reading_release(struct reading *reading)
{
    hash_free(reading->hash);
}

/* Nobody can go away from what is not sent: so it has an end in time. */
static int add_bytes(void *context, const void *data, size_t len, struct error *err)
{
    struct reading *reading = context;
    hash_add(reading->hash, data, len);
    return clock_mono_ms() < reading->deadline_ms
               ? 0
               : error_set(err, ERR_GUEST_TIMEOUT, 0,
                           "the file could not be read for its digest in ten minutes");
}

/* Reads all of it once, and opens it again. A digest stands before the bytes, for clients that read no
 * trailers; if the file becomes another meanwhile, its bytes do not fit the digest. */
static int read_digest(struct api *api, const char *owner, const struct api_request *request,
                       const char *path, struct vsock_file_info *info, struct vmm_file **file,
                       uint8_t digest[static HASH_SIZE], struct error *err)
{
    struct reading reading cleanup(reading_release) = {hash_new(), clock_mono_ms() + DIGEST_MS};
    const struct vsock_sink sink = {add_bytes, &reading};
    if (reading.hash == NULL || info->size > API_FILE_MAX) {
        vmm_file_close(TAKE_PTR(*file));
        return reading.hash == NULL
                   ? error_set(err, ERR_NO_MEMORY, 0, "out of memory for a file's digest")
                   : error_set(err, ERR_QUERY, 0, "digest: the file has more than %d bytes",
                               API_FILE_MAX);
    }
    if (vmm_file_read(TAKE_PTR(*file), 0, info->size, &sink, err) < 0)
        return -1;
    hash_end(reading.hash, digest);
    return vmm_file_open(api->vmm, owner, request->id, path, info, file, err);
}

int api_file_get(struct api *api, const struct api_request *request, struct api_response *response,
                 struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    struct vsock_file_info info;
    struct vmm_file *file = NULL;
    uint8_t digest[HASH_SIZE];
    if (api_file_query_parse(request->query, API_FILE_DIGEST, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_file_open(api->vmm, vm.owner, request->id, query.path, &info, &file, err) < 0 ||
        (query.digest &&
         read_digest(api, vm.owner, request, query.path, &info, &file, digest, err) < 0))
        return -1;
    int64_t offset = 0, length = info.size;
    enum api_range range = api_range_parse(request->range, info.size, &offset, &length);
    if (range == API_RANGE_NONE)
        return respond_no_part(request, file, info.size, response);
    if (api_download_begin(file, offset, length, response, err) < 0)
        return -1;
    if (query.digest)
        api_digest_print(digest, response->digest);
    if (range == API_RANGE_PART) {
        response->status = 206;
        snprintf(response->content_range, sizeof(response->content_range), "bytes %lld-%lld/%lld",
                 (long long)offset, (long long)(offset + length - 1), (long long)info.size);
    }
    return 0;
}

/* ---- DELETE ---- */

int api_file_delete(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    if (api_file_query_parse(request->query, API_FILE_RECURSIVE, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0 ||
        vmm_file_remove(api->vmm, vm.owner, request->id, query.path, query.recursive, err) < 0)
        return -1;
    response->status = 204;
    return 0;
}
