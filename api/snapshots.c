/* /snapshots, and POST /vms/{id}/snapshots. Decode, authorise, call, encode. */
#include "api/internal.h"

#include <stddef.h>

/* ---- read ---- */

static int find(struct api *api, const struct caller *caller, const char *id,
                struct store_snapshot *ret, struct error *err)
{
    const char *owner = caller->admin ? NULL : caller->name;
    return store_snapshot_get(api->store, owner, id, ret, err);
}

static int add_shape(cJSON *json, const struct store_snapshot *snapshot)
{
    return json_add_number(json, "vcpus", snapshot->vcpus) < 0 ||
                   json_add_number(json, "memory_mib", snapshot->memory_mib) < 0 ||
                   json_add_number(json, "disk_mib", snapshot->disk_mib) < 0 ||
                   json_add_string(json, "seccomp", snapshot->seccomp) < 0
               ? -1
               : 0;
}

static cJSON *snapshot_json(const struct store_snapshot *snapshot)
{
    cleanup_json cJSON *json = cJSON_CreateObject(), *labels = NULL;
    struct error err = {0};
    char digest[sizeof("sha256:") - 1 + HASH_HEX_SIZE] = "sha256:";
    hash_to_hex(snapshot->image_digest, HASH_SIZE, digest + strlen("sha256:"));
    if (json_parse(snapshot->labels, strlen(snapshot->labels), &labels, &err) < 0 ||
        json_add_string(json, "id", snapshot->id) < 0 ||
        json_add_string(json, "owner", snapshot->owner) < 0 ||
        json_add_string(json, "vm", snapshot->vm) < 0 ||
        json_add_string(json, "instance", snapshot->instance) < 0 ||
        json_add_string(json, "image", snapshot->image) < 0 ||
        json_add_string(json, "image_digest", digest) < 0 || add_shape(json, snapshot) < 0 ||
        json_add_string(json, "hypervisor", snapshot->hypervisor) < 0 ||
        json_add_number(json, "bytes", (double)snapshot->bytes) < 0 ||
        api_add_time(json, "created_at", snapshot->created_wall_ms) < 0 ||
        json_add(json, "labels", TAKE_PTR(labels)) < 0)
        return NULL;
    return TAKE_PTR(json);
}

int api_snapshot_get(struct api *api, const struct api_request *request,
                     struct api_response *response, struct error *err)
{
    struct store_snapshot snapshot;
    if (api_query_none(request->query, err) < 0 ||
        find(api, request->caller, request->id, &snapshot, err) < 0)
        return -1;
    return api_respond_json(response, 200, snapshot_json(&snapshot), err);
}

static cJSON *item_json(const void *snapshot)
{
    return snapshot_json(snapshot);
}

int api_snapshot_list(struct api *api, const struct api_request *request,
                      struct api_response *response, struct error *err)
{
    struct api_list_query query;
    if (api_snapshot_query_parse(request->query, &query, err) < 0)
        return -1;
    const struct store_filter filter = {
        .owner = request->caller->admin ? NULL : request->caller->name,
        .label_key = query.label_key,
        .label_value = query.label_value,
        .after = query.cursor[0] ? query.cursor : NULL,
        .limit = query.limit,
    };
    cleanup_free struct store_snapshot *page = NULL;
    size_t count = 0;
    bool more = false;
    if (store_snapshot_list(api->store, &filter, &page, &count, &more, err) < 0)
        return -1;
    const char *next = more && count > 0 ? page[count - 1].id : NULL;
    const struct api_list list = {"snapshots", page, count, sizeof(*page), item_json};
    if (api_respond_json(response, 200, api_page_json(&list, next), err) < 0)
        return -1;
    if (next != NULL)
        snprintf(response->link, sizeof(response->link), "</snapshots?%scursor=%s>; rel=\"next\"",
                 query.kept, next);
    return 0;
}

/* ---- make, remove ---- */

struct wish {
    const cJSON *labels;
};

static const struct json_field wish_table[] = {
    {"labels", JSON_OBJECT, offsetof(struct wish, labels), false, 0, VMM_LABELS_MAX},
};

static int answer_created(const void *made, struct store_answer *ret)
{
    const struct store_snapshot *snapshot = made;
    snprintf(ret->location, sizeof(ret->location), "/snapshots/%s", snapshot->id);
    return api_answer_json(ret, 201, snapshot_json(snapshot));
}

int api_snapshot_create(struct api *api, const struct api_request *request,
                        struct api_response *response, struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct wish wish = {0};
    char labels[STORE_LABELS_MAX];
    struct store_vm vm;
    struct store_snapshot snapshot;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, wish_table, COUNT_OF(wish_table), &wish, err) < 0 ||
        vmm_labels(wish.labels, labels, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    const struct store_keep keep = api_keep(request, answer_created, NULL);
    const struct vmm_snapshot_wish asked = {.labels = labels, .keep = &keep};
    struct store_answer answer cleanup(store_answer_release) = {0};
    if (vmm_snapshot(api->vmm, vm.owner, request->id, &asked, &snapshot, err) < 0)
        return -1;
    if (answer_created(&snapshot, &answer) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while writing the answer");
    api_respond_answer(response, &answer);
    response->kept = true;
    return 0;
}

int api_snapshot_delete(struct api *api, const struct api_request *request,
                        struct api_response *response, struct error *err)
{
    struct store_snapshot snapshot;
    if (api_query_none(request->query, err) < 0 ||
        find(api, request->caller, request->id, &snapshot, err) < 0 ||
        vmm_snapshot_delete(api->vmm, snapshot.owner, request->id, err) < 0)
        return -1;
    response->status = 204;
    return 0;
}
