/* GET /vms/{id}/ls: what is in a directory of a VM, page by page. */
#include "api/internal.h"

/* Text where it is UTF-8; else null, and the bytes in base64 beside it: they are not mended into the
 * name of something else. */
static int add_bytes(cJSON *json, const char *name, const char *base64_name, const char *bytes)
{
    char text[API_BASE64_SIZE(VSOCK_LINK_MAX) + 1];
    size_t len = strlen(bytes);
    if (json_is_utf8(bytes, len))
        return json_add_string(json, name, bytes);
    text[api_base64_encode(bytes, len, text)] = '\0';
    return json_add_string(json, name, NULL) < 0 ? -1 : json_add_string(json, base64_name, text);
}

/* As null what RFC 3339 has no year for. */
static int add_mtime(cJSON *json, int64_t wall_ms)
{
    static const int64_t year_10000_ms = INT64_C(253402300800000);
    return api_add_time(json, "mtime", wall_ms < year_10000_ms ? wall_ms : 0);
}

static cJSON *entry_json(const struct vsock_entry *entry)
{
    char mode[8];
    cJSON *json = cJSON_CreateObject();
    snprintf(mode, sizeof(mode), "%04o", entry->mode);
    if (json == NULL || add_bytes(json, "name", "name_base64", entry->name) < 0 ||
        json_add_string(json, "type", entry->type) < 0 ||
        json_add_number(json, "size", (double)entry->size) < 0 ||
        json_add_string(json, "mode", mode) < 0 || add_mtime(json, entry->mtime_ms) < 0 ||
        (entry->link && add_bytes(json, "target", "target_base64", entry->target) < 0)) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static int add_entry(void *context, const struct vsock_entry *entry, struct error *err)
{
    cJSON *json = entry_json(entry);
    if (json == NULL || !cJSON_AddItemToArray(context, json)) {
        cJSON_Delete(json);
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of files");
    }
    return 0;
}

/* The query again, which has been read without fault, with another cursor. */
static void set_link(const struct api_request *request, const char *next,
                     struct api_response *response)
{
    char kept[API_TARGET_MAX + 2] = "";
    size_t len = 0;
    for (const char *part = request->query; *part != '\0';) {
        size_t size = strcspn(part, "&");
        if (size > 0 && strncmp(part, "cursor=", strlen("cursor=")) != 0)
            len += (size_t)snprintf(kept + len, sizeof(kept) - len, "%.*s&", (int)size, part);
        part += size + (part[size] == '&');
    }
    int wanted = snprintf(response->link, sizeof(response->link),
                          "</vms/%s/ls?%scursor=%s>; rel=\"next\"", request->id, kept, next);
    if (wanted >= (int)sizeof(response->link)) /* it would be too long to ask for, too */
        response->link[0] = '\0';
}

int api_file_list(struct api *api, const struct api_request *request, struct api_response *response,
                  struct error *err)
{
    struct api_file_query query;
    struct store_vm vm;
    char next[VSOCK_NAME_HEX_SIZE];
    if (api_file_query_parse(request->query, API_FILE_LIMIT | API_FILE_CURSOR, &query, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    cleanup_json cJSON *json = cJSON_CreateObject();
    cJSON *entries = json != NULL ? cJSON_AddArrayToObject(json, "entries") : NULL;
    const struct vsock_lister lister = {add_entry, entries};
    const struct vmm_file_page page = {query.path, query.cursor, query.limit};
    if (entries == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of files");
    if (vmm_file_list(api->vmm, vm.owner, request->id, &page, &lister, next, err) < 0)
        return -1;
    if (json_add_string(json, "next_cursor", next[0] != '\0' ? next : NULL) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of files");
    if (next[0] != '\0')
        set_link(request, next, response);
    return api_respond_json(response, 200, TAKE_PTR(json), err);
}
