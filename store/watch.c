/* Waiting for a VM to come to a state: whoever changes it wakes those that wait for it, nobody asks
 * again and again. */
#include "store/internal.h"

#include <errno.h>
#include <time.h>

struct store_watch {
    struct store_watch *next;
    const char *instance;
    pthread_cond_t changed;
    bool news;
};

static void begin(struct store *store, struct store_watch *watch)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&watch->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_mutex_lock(&store->watching);
    watch->next = store->watches;
    store->watches = watch;
    pthread_mutex_unlock(&store->watching);
}

static void end(struct store *store, struct store_watch *watch)
{
    pthread_mutex_lock(&store->watching);
    struct store_watch **at = &store->watches;
    while (*at != watch)
        at = &(*at)->next;
    *at = watch->next;
    pthread_mutex_unlock(&store->watching);
    pthread_cond_destroy(&watch->changed);
}

/* False: the time is up, or nobody shall wait any more. */
static bool wait_for_news(struct store *store, struct store_watch *watch, int64_t until_ms)
{
    const struct timespec until = {.tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000};
    int waited = 0;
    pthread_mutex_lock(&store->watching);
    while (!watch->news && !store->unwatched && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&watch->changed, &store->watching, &until);
    bool news = watch->news;
    watch->news = false;
    pthread_mutex_unlock(&store->watching);
    return news;
}

/* The watch is there before the row is read and `over` asked: what changes after that is not missed. */
int store_vm_wait(struct store *store, const char *instance, const struct store_wait *wait,
                  struct store_vm *ret, struct error *err)
{
    struct store_watch watch = {.instance = instance};
    int result = -1;
    begin(store, &watch);
    do {
        result = store_vm_by_instance(store, instance, ret, err);
    } while (result == 0 && ret->state != wait->state &&
             (wait->over == NULL || !wait->over(wait->context)) &&
             wait_for_news(store, &watch, wait->until_ms));
    end(store, &watch);
    return result;
}

void store_news(struct store *store, const char *instance)
{
    pthread_mutex_lock(&store->watching);
    for (struct store_watch *watch = store->watches; watch != NULL; watch = watch->next) {
        if (instance != NULL && strcmp(watch->instance, instance) != 0)
            continue;
        watch->news = instance != NULL;
        pthread_cond_signal(&watch->changed);
    }
    pthread_mutex_unlock(&store->watching);
}

void store_wait_again(struct store *store)
{
    pthread_mutex_lock(&store->watching);
    for (struct store_watch *watch = store->watches; watch != NULL; watch = watch->next) {
        watch->news = true;
        pthread_cond_signal(&watch->changed);
    }
    pthread_mutex_unlock(&store->watching);
}

void store_wait_no_more(struct store *store)
{
    pthread_mutex_lock(&store->watching);
    store->unwatched = true;
    pthread_mutex_unlock(&store->watching);
    store_news(store, NULL);
}
