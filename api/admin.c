/* /admin: what an operator does with a host before he takes it away. The store holds the state; who
 * admits VMs and who ends them (vmm/) look there. */
#include "api/internal.h"

#include <stddef.h>

static cJSON *drain_json(const struct store_cordon *cordon)
{
    char deadline[25];
    if (cordon->drain_boot_ms == 0)
        return cJSON_CreateNull();
    clock_format(cordon->drain_wall_ms, deadline);
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && json_add_string(json, "deadline", deadline) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static uint64_t alive(const struct store_totals *totals)
{
    uint64_t sum = 0;
    for (int state = STORE_CREATING; state < STORE_FAILED; state++)
        sum += totals->by_state[state];
    return sum;
}

static cJSON *cordon_json(const struct store_cordon *cordon, const struct store_totals *totals)
{
    char since[25];
    clock_format(cordon->since_wall_ms, since);
    cJSON *json = cJSON_CreateObject();
    if (json == NULL || json_add_bool(json, "cordoned", cordon->set) < 0 ||
        json_add_string(json, "by", cordon->set ? cordon->owner : NULL) < 0 ||
        json_add_string(json, "since", cordon->set ? since : NULL) < 0 ||
        json_add(json, "drain", drain_json(cordon)) < 0 ||
        json_add_number(json, "vms", (double)alive(totals)) < 0) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}

static int respond(struct api *api, struct api_response *response, unsigned status,
                   const struct store_cordon *cordon, struct error *err)
{
    struct store_totals totals;
    if (store_totals(api->store, &totals, err) < 0)
        return -1;
    return api_respond_json(response, status, cordon_json(cordon, &totals), err);
}

int api_cordon_get(struct api *api, const struct api_request *request,
                   struct api_response *response, struct error *err)
{
    struct store_cordon cordon;
    if (api_query_none(request->query, err) < 0 || store_cordon_get(api->store, &cordon, err) < 0)
        return -1;
    return respond(api, response, 200, &cordon, err);
}

int api_cordon_set(struct api *api, const struct api_request *request,
                   struct api_response *response, struct error *err)
{
    struct store_cordon cordon;
    if (api_query_none(request->query, err) < 0 ||
        store_cordon_set(api->store, request->caller->name, -1, &cordon, err) < 0)
        return -1;
    return respond(api, response, 200, &cordon, err);
}

int api_cordon_lift(struct api *api, const struct api_request *request,
                    struct api_response *response, struct error *err)
{
    if (api_query_none(request->query, err) < 0 || store_cordon_lift(api->store, err) < 0)
        return -1;
    response->status = 204;
    return 0;
}

struct drain {
    int64_t deadline_s;
};

int api_drain(struct api *api, const struct api_request *request, struct api_response *response,
              struct error *err)
{
    static const struct json_field fields[] = {
        {"deadline_s", JSON_I64, offsetof(struct drain, deadline_s), true, 0, API_DRAIN_MAX_S}};
    cleanup_json cJSON *body = NULL;
    struct drain drain = {0};
    struct store_cordon cordon;
    if (api_query_none(request->query, err) < 0 ||
        json_parse(request->body, request->body_len, &body, err) < 0 ||
        json_decode(body, fields, COUNT_OF(fields), &drain, err) < 0 ||
        store_cordon_set(api->store, request->caller->name, drain.deadline_s * 1000, &cordon, err) <
            0)
        return -1;
    return respond(api, response, 202, &cordon, err);
}
