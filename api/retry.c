/*
 * Requests with an Idempotency-Key. The first with a key is worked on; the next get its answer, and
 * have no effect. What is made and its answer are one transaction of the inventory, so that this holds
 * whenever the service is killed. A request that did nothing leaves its key free.
 */
#include "api/internal.h"

/* ---- what is kept ---- */

struct store_keep api_keep(const struct api_request *request,
                           int (*answer)(const void *made, struct store_answer *ret),
                           const void *made)
{
    return (struct store_keep){
        .key = request->key, .answer = request->keyed ? answer : NULL, .made = made};
}

void api_respond_answer(struct api_response *response, struct store_answer *answer)
{
    response->status = answer->status;
    response->content_type = answer->status < 400 ? "application/json" : "application/problem+json";
    _Static_assert(sizeof(response->location) == sizeof(answer->location), "one Location");
    memcpy(response->location, answer->location, sizeof(response->location));
    response->body_len = answer->len;
    response->body = TAKE_PTR(answer->body);
}

int api_answer_json(struct store_answer *ret, unsigned status, cJSON *json)
{
    char *text = json != NULL ? json_print(json) : NULL;
    cJSON_Delete(json);
    if (text == NULL)
        return -1;
    ret->status = status;
    ret->body = text;
    ret->len = strlen(text);
    return 0;
}

/* ---- which request it is ---- */

/* The route, its ids, the query and the body, each where no other could be taken for it; and whether
 * an administrator asked, who may do to other tenants' VMs what their own tokens may not hear of. */
static int digest(const struct api_route *route, const struct api_request *request,
                  uint8_t out[static HASH_SIZE], struct error *err)
{
    uint8_t body[HASH_SIZE];
    char hex[HASH_HEX_SIZE];
    cleanup_free char *text = NULL;
    hash_sha256(request->body != NULL ? request->body : "", request->body_len, body);
    hash_to_hex(body, HASH_SIZE, hex);
    int len = asprintf(&text, "%s\n%s\n%s\n%s\n%s\n%s\n%d", route->method, route->path, request->id,
                       request->exec, request->query != NULL ? request->query : "", hex,
                       request->caller->admin);
    if (len < 0) {
        text = NULL;
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a key");
    }
    hash_sha256(text, (size_t)len, out);
    return 0;
}

/* ---- the first ---- */

/* An error after which nothing is otherwise than before. Of a command only what refuses it counts as
 * that; what fails later may have begun it. */
static bool had_no_effect(const struct api_route *route, const struct api_response *response)
{
    if (response->status < 400 || (route->retry == API_ONCE && response->code == ERR_VM_GONE))
        return false; /* it may have ended under the command */
    return route->retry != API_ONCE || response->status < 500 || response->status == 503;
}

static void settle(struct api *api, const struct api_route *route, const struct store_key *key,
                   const struct api_response *response)
{
    if (response->kept)
        return;
    struct error ignored = {0};
    bool stream = response->stream.read != NULL; /* too long to keep, whatever its length */
    struct store_answer answer = {.status = response->status,
                                  .body = response->body,
                                  .len = response->body != NULL ? response->body_len : 0};
    if (stream)
        answer.len = STORE_ANSWER_MAX + 1;
    memcpy(answer.location, response->location, sizeof(answer.location));
    if (had_no_effect(route, response)) {
        (void)store_key_release(api->store, key,
                                &ignored); /* else it is taken until the next start */
    } else if (store_key_answer(api->store, key, &answer, response->making, &ignored) < 0) {
        /* Its twins are to hear that it was done, and not for ever that it is worked on. */
        answer = (struct store_answer){.len = STORE_ANSWER_MAX + 1};
        (void)store_key_answer(api->store, key, &answer, response->making, &ignored);
    }
}

static void work(struct api *api, const struct api_route *route, const struct api_request *request,
                 struct api_response *ret)
{
    struct error err = {0};
    if (route->handler(api, request, ret, &err) < 0)
        api_problem(&err, request->request_id, NULL, ret);
    settle(api, route, &request->key, ret);
}

/* ---- the next ---- */

static void refuse(enum store_key_state state, struct error *err)
{
    if (state == STORE_KEY_UNDERWAY)
        error_set(err, ERR_KEY_BUSY, 0,
                  "the first request with this Idempotency-Key is still being worked on");
    else if (state == STORE_KEY_LOST)
        error_set(
            err, ERR_KEY_LOST, 0,
            "the first request with this Idempotency-Key may have done what it asked for; its "
            "answer was too long to keep, or the service ended before it had one");
    else
        error_set(err, ERR_KEY_REUSED, 0,
                  "the first request with this Idempotency-Key had another path, query or body");
}

void api_dispatch_keyed(struct api *api, const struct api_route *route,
                        const struct api_request *request, struct api_response *ret)
{
    struct api_request first = *request;
    struct store_answer answer cleanup(store_answer_release) = {0};
    enum store_key_state state = STORE_KEY_NEW;
    struct error err = {0};
    memcpy(first.key.owner, request->caller->name, sizeof(first.key.owner));
    first.key.once = route->retry == API_ONCE;
    if (digest(route, request, first.key.request, &err) == 0 &&
        store_key_begin(api->store, &first.key, &state, &answer, &err) == 0) {
        if (state == STORE_KEY_NEW) {
            work(api, route, &first, ret);
            return;
        }
        if (state == STORE_KEY_ANSWERED) {
            api_respond_answer(ret, &answer);
            ret->replayed = true;
            return;
        }
        refuse(state, &err);
    }
    api_problem(&err, request->request_id, NULL, ret);
}
