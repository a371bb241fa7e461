/* Worker threads behind a bounded queue. Handlers block; these threads are what they may block. */
#include "server/internal.h"

#include <errno.h>
#include <time.h>

enum { STACK_SIZE = 256 * 1024 }; /* times two hundred threads */

struct server_pool {
    pthread_mutex_t lock; /* guards all below but `threads` */
    pthread_cond_t work, done;
    struct server_job *first, **last;
    unsigned queued, queue_max, running;
    bool closed; /* takes no more */
    bool over;   /* runs no more */
    unsigned thread_count;
    pthread_t threads[];
};

/* The next job, or NULL when the pool is over. */
static struct server_job *take(struct server_pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    while (pool->first == NULL && !pool->over)
        pthread_cond_wait(&pool->work, &pool->lock);
    struct server_job *job = pool->over ? NULL : pool->first;
    if (job != NULL) {
        pool->first = job->next;
        if (pool->first == NULL)
            pool->last = &pool->first;
        pool->queued--;
        pool->running++;
    }
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *work(void *context)
{
    struct server_pool *pool = context;
    struct server_job *job = NULL;
    while ((job = take(pool)) != NULL) {
        job->run(job);
        pthread_mutex_lock(&pool->lock);
        pool->running--;
        if (pool->running == 0 && pool->queued == 0)
            pthread_cond_broadcast(&pool->done);
        pthread_mutex_unlock(&pool->lock);
    }
    return NULL;
}

static int start_threads(struct server_pool *pool, unsigned count, struct error *err)
{
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    int result = 0;
    while (result == 0 && pool->thread_count < count) {
        result = pthread_create(&pool->threads[pool->thread_count], &attributes, work, pool);
        if (result == 0)
            pool->thread_count++;
    }
    pthread_attr_destroy(&attributes);
    return result == 0 ? 0 : error_set(err, ERR_SYSTEM, result, "cannot start a worker thread");
}

int server_pool_start(struct server_pool_size size, struct server_pool **ret, struct error *err)
{
    struct server_pool *pool = calloc(1, sizeof(*pool) + size.threads * sizeof(pool->threads[0]));
    if (pool == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a worker pool");
    pool->last = &pool->first;
    pool->queue_max = size.queue;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (start_threads(pool, size.threads, err) < 0) {
        server_pool_stop(pool, 0);
        return -1;
    }
    *ret = pool;
    return 0;
}

bool server_pool_submit(struct server_pool *pool, struct server_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool fits = !pool->closed && pool->queued < pool->queue_max;
    if (fits) {
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->queued++;
        pthread_cond_signal(&pool->work);
    }
    pthread_mutex_unlock(&pool->lock);
    return fits;
}

unsigned server_pool_stop(struct server_pool *pool, int64_t deadline_ms)
{
    if (pool == NULL)
        return 0;
    const struct timespec until = {.tv_sec = deadline_ms / 1000,
                                   .tv_nsec = deadline_ms % 1000 * 1000000};
    pthread_mutex_lock(&pool->lock);
    pool->closed = true;
    int waited = 0;
    while ((pool->running > 0 || pool->queued > 0) && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&pool->done, &pool->lock, &until);
    pool->over = true;
    unsigned running = pool->running;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    if (running > 0)
        return running;
    for (unsigned i = 0; i < pool->thread_count; i++)
        pthread_join(pool->threads[i], NULL);
    pthread_cond_destroy(&pool->work);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
    return 0;
}
