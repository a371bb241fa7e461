/* POST /vms/{id}/fork: as many VMs as were asked for that go on from where this one is, or none. */
#include "api/internal.h"

#include <stddef.h>

enum { FORKS_MAX = 16 };

struct wish {
    uint32_t count;
    int64_t ttl_s;
    const cJSON *labels;
};

static const struct json_field table[] = {
    {"count", JSON_U32, offsetof(struct wish, count), false, 1, FORKS_MAX},
    {"ttl_s", JSON_I64, offsetof(struct wish, ttl_s), false, 1, VMM_TTL_MAX_S},
    {"labels", JSON_OBJECT, offsetof(struct wish, labels), false, 0, VMM_LABELS_MAX},
};

/* The body of a POST /vms that restores. */
static int make_spec(struct api *api, const struct wish *wish,
                     const struct store_snapshot *snapshot, struct vmm_spec **ret,
                     struct error *err)
{
    cleanup_json cJSON *body = cJSON_CreateObject();
    cJSON *labels =
        wish->labels != NULL ? cJSON_Duplicate(wish->labels, true) : cJSON_CreateObject();
    if (json_add(body, "labels", labels) < 0 ||
        json_add_number(body, "ttl_s", (double)wish->ttl_s) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a fork");
    return vmm_spec_new_restored(body, snapshot, api->state_dir, ret, err);
}

/* Returns how many there are. */
static uint32_t make_forks(struct api *api, const struct wish *wish,
                           const struct store_snapshot *snapshot, struct store_vm *forks,
                           struct error *err)
{
    uint32_t made = 0;
    struct vmm_spec *spec = NULL;
    while (made < wish->count && make_spec(api, wish, snapshot, &spec, err) == 0 &&
           vmm_spawn(api->vmm, spec, snapshot->owner, &forks[made], err) == 0)
        made++;
    return made;
}

struct forks {
    struct store_vm *vms;
    uint32_t count;
};

static cJSON *vm_json(const void *vm)
{
    return api_vm_json(vm);
}

static cJSON *forks_json(const struct forks *forks)
{
    return api_list_json(
        &(struct api_list){"vms", forks->vms, forks->count, sizeof(*forks->vms), vm_json});
}

static int answer_forked(const void *made, struct store_answer *ret)
{
    return api_answer_json(ret, 201, forks_json(made));
}

/* All of them, or none: with their snapshot's end they are VMs like others. A restart before that ends
 * those that there are. */
static int fork_all(struct api *api, const struct api_request *request, const struct wish *wish,
                    const struct store_snapshot *snapshot, struct store_vm *vms, struct error *err)
{
    const struct forks forks = {vms, wish->count};
    const struct store_keep keep = api_keep(request, answer_forked, &forks);
    struct store_snapshot served = *snapshot;
    served.keep = &keep;
    uint32_t made = make_forks(api, wish, snapshot, vms, err);
    if (made == wish->count && vmm_fork_commit(api->vmm, &served, err) == 0)
        return 0;
    vmm_fork_undo(api->vmm, snapshot, vms, made);
    return -1;
}

int api_vm_fork(struct api *api, const struct api_request *request, struct api_response *response,
                struct error *err)
{
    cleanup_json cJSON *body = NULL;
    struct wish wish = {.count = 1, .ttl_s = VMM_TTL_DEFAULT_S};
    const struct vmm_snapshot_wish passing = {.labels = "{}", .kind = STORE_EPHEMERAL};
    struct store_vm vm;
    struct store_snapshot snapshot;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, table, COUNT_OF(table), &wish, err) < 0 ||
        api_vm_find(api, request->caller, request->id, &vm, err) < 0)
        return -1;
    cleanup_free struct store_vm *forks = calloc(wish.count, sizeof(*forks));
    if (forks == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for forks");
    if (vmm_snapshot(api->vmm, vm.owner, request->id, &passing, &snapshot, err) < 0)
        return -1;
    if (fork_all(api, request, &wish, &snapshot, forks, err) < 0)
        return -1;
    response->kept = true;
    return api_respond_json(response, 201, forks_json(&(struct forks){forks, wish.count}), err);
}
