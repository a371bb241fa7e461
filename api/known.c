/*
 * What GET /vms/{id} answered lately, to answer it again without the inventory, which may block.
 *
 * An answer is kept with the inventory's moment, asked for before the row was read, and is given
 * again only while that moment stands: no change has begun to be committed since, so the row is
 * what it was, and nobody can have been told of a newer one.
 */
#include "api/internal.h"

#include <pthread.h>

enum {
    SLOTS = 1024, /* a power of two; each has one answer, of whichever came last */
    ANSWER_MAX = 4096,
};

struct answer {
    uint64_t moment; /* 0: none */
    struct caller caller;
    char id[ID_VM_MAX + 1];
    int64_t expires_boot_ms, expires_wall_ms, told_wall_ms;
    char *text; /* owned */
    size_t len;
};

struct api_known {
    pthread_mutex_t lock; /* held to look and to copy, never while anything is waited for */
    struct answer answers[SLOTS];
};

struct api_known *api_known_new(void)
{
    struct api_known *known = calloc(1, sizeof(*known));
    if (known != NULL)
        pthread_mutex_init(&known->lock, NULL);
    return known;
}

void api_known_free(struct api_known *known)
{
    if (known == NULL)
        return;
    for (size_t i = 0; i < SLOTS; i++)
        free(known->answers[i].text);
    pthread_mutex_destroy(&known->lock);
    free(known);
}

static uint64_t mix(uint64_t hash, const char *text)
{
    for (; *text != '\0'; text++) /* FNV-1a */
        hash = (hash ^ (uint8_t)*text) * 0x100000001b3;
    return (hash ^ 0xff) * 0x100000001b3;
}

static struct answer *slot(struct api_known *known, const struct caller *caller, const char *id)
{
    uint64_t hash = mix(mix(0xcbf29ce484222325, caller->name), id);
    return &known->answers[(hash ^ hash >> 32) & (SLOTS - 1)];
}

/* The slot is shared; the answer is one caller's alone. */
static bool is_for(const struct answer *answer, const struct caller *caller, const char *id)
{
    return answer->caller.admin == caller->admin &&
           strcmp(answer->caller.name, caller->name) == 0 && strcmp(answer->id, id) == 0;
}

/* The clock may have been set since, and the VM's end be told otherwise. */
static bool is_true(const struct answer *answer, uint64_t moment)
{
    return moment != 0 && answer->moment == moment &&
           answer->told_wall_ms ==
               api_expires_wall_ms(answer->expires_boot_ms, answer->expires_wall_ms);
}

void api_known_keep(struct api_known *known, uint64_t moment, const struct api_request *request,
                    const struct store_vm *vm, const struct api_response *response)
{
    if (known == NULL || moment == 0 || response->body_len > ANSWER_MAX)
        return;
    struct answer fresh = {.moment = moment,
                           .caller = *request->caller,
                           .expires_boot_ms = vm->expires_boot_ms,
                           .expires_wall_ms = vm->expires_wall_ms,
                           .told_wall_ms = api_vm_expires_wall_ms(vm),
                           .text = malloc(response->body_len),
                           .len = response->body_len};
    if (fresh.text == NULL)
        return;
    memcpy(fresh.text, response->body, fresh.len);
    snprintf(fresh.id, sizeof(fresh.id), "%s", request->id);
    pthread_mutex_lock(&known->lock);
    struct answer *place = slot(known, request->caller, request->id);
    char *old = place->text;
    *place = fresh;
    pthread_mutex_unlock(&known->lock);
    free(old);
}

bool api_vm_known(struct api *api, const struct api_request *request, struct api_response *response)
{
    struct api_known *known = api->known;
    /* Whoever has the lock may have been put to sleep with it: not waited for either. */
    if (known == NULL || request->query[0] != '\0' || pthread_mutex_trylock(&known->lock) != 0)
        return false;
    const struct answer *answer = slot(known, request->caller, request->id);
    bool good =
        is_for(answer, request->caller, request->id) && is_true(answer, store_moment(api->store));
    char *copy = good ? malloc(answer->len) : NULL;
    if (copy != NULL) {
        memcpy(copy, answer->text, answer->len);
        *response = (struct api_response){.status = 200,
                                          .content_type = "application/json",
                                          .body = copy,
                                          .body_len = answer->len};
    }
    pthread_mutex_unlock(&known->lock);
    return copy != NULL;
}
