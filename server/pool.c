/* Worker threads, and a bounded queue for when all of them work. Handlers block; these threads are
 * what they may block. A thread is started when it is first needed, and of those that wait the last
 * one to have worked is called first: so there are as many as were ever busy at once, and the memory
 * that each keeps for itself is not spread over two hundred.
 *
 * Where handlers may take as long as their caller likes, each owner has a share (base.h): of the
 * workers, and of the places in the queue. One who has his of the workers waits in the queue until one
 * of them is free for him again, and those of others go past. */
#include "server/internal.h"

#include <errno.h>
#include <time.h>

enum { STACK_SIZE = 256 * 1024 }; /* times two hundred threads */

struct worker {
    struct server_pool *pool;
    pthread_t thread;
    pthread_cond_t called;
    struct server_job *job; /* given to it */
    bool busy;
    uint64_t owner;       /* whose job it does */
    struct worker *below; /* in the stack of those that wait */
};

struct server_pool {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t done;
    struct server_job *first, **last; /* waiting: only when every worker works */
    unsigned queued, queue_max, running;
    bool shared; /* by owners */
    bool closed; /* takes no more */
    bool over;   /* runs no more */
    struct worker *idle;
    unsigned started, worker_max;
    struct worker workers[];
};

/* ---- shares, with the lock held ---- */

/* Whether the owner may have one worker more. */
static bool may_run(const struct server_pool *pool, uint64_t owner)
{
    unsigned own = 0;
    for (unsigned i = 0; pool->shared && i < pool->started; i++)
        own += pool->workers[i].busy && pool->workers[i].owner == owner;
    return !pool->shared || share_admits(own, pool->running, pool->worker_max);
}

static bool may_wait(const struct server_pool *pool, uint64_t owner)
{
    unsigned own = 0;
    for (const struct server_job *job = pool->first; pool->shared && job != NULL; job = job->next)
        own += job->owner == owner;
    return pool->shared ? share_admits(own, pool->queued, pool->queue_max)
                        : pool->queued < pool->queue_max;
}

/* Of those that wait the first that may run; NULL: none. */
static struct server_job *dequeue(struct server_pool *pool)
{
    struct server_job **at = &pool->first;
    while (*at != NULL && !may_run(pool, (*at)->owner))
        at = &(*at)->next;
    struct server_job *job = *at;
    if (job == NULL)
        return NULL;
    *at = job->next;
    if (pool->last == &job->next)
        pool->last = at;
    pool->queued--;
    return job;
}

static void put_first(struct server_pool *pool, struct server_job *job)
{
    job->next = pool->first;
    if (pool->first == NULL)
        pool->last = &job->next;
    pool->first = job;
    pool->queued++;
}

/* ---- workers ---- */

static void *work(void *context);

static void take(struct worker *worker, struct server_job *job)
{
    worker->job = job;
    worker->busy = true;
    worker->owner = job->owner;
    worker->pool->running++;
}

/* False when there are as many as there may be, or the kernel has none for us now. */
static bool start_worker(struct server_pool *pool, struct server_job *job)
{
    if (pool->started == pool->worker_max)
        return false;
    struct worker *worker = &pool->workers[pool->started];
    pthread_attr_t attributes;
    worker->pool = pool;
    take(worker, job);
    pthread_cond_init(&worker->called, NULL);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    int result = pthread_create(&worker->thread, &attributes, work, worker);
    pthread_attr_destroy(&attributes);
    if (result != 0) {
        pthread_cond_destroy(&worker->called);
        pool->running--;
        *worker = (struct worker){0};
        return false;
    }
    pool->started++;
    return true;
}

/* Who ended left room for one of his and for one of all: so more than one may be next. */
static void employ_others(struct server_pool *pool)
{
    struct server_job *job = NULL;
    while ((pool->idle != NULL || pool->started < pool->worker_max) &&
           (job = dequeue(pool)) != NULL) {
        struct worker *worker = pool->idle;
        if (worker == NULL && !start_worker(pool, job)) {
            put_first(pool, job);
            return;
        }
        if (worker != NULL) {
            pool->idle = worker->below;
            take(worker, job);
            pthread_cond_signal(&worker->called);
        }
    }
}

/* What the worker does next, or NULL when the pool is over. */
static struct server_job *next_job(struct worker *worker)
{
    struct server_pool *pool = worker->pool;
    pthread_mutex_lock(&pool->lock);
    pool->running--;
    worker->busy = false;
    struct server_job *job = pool->over ? NULL : dequeue(pool);
    if (job != NULL) {
        take(worker, job);
        employ_others(pool);
    } else {
        if (pool->running == 0)
            pthread_cond_broadcast(&pool->done);
        worker->below = pool->idle;
        pool->idle = worker;
        while (worker->job == NULL && !pool->over)
            pthread_cond_wait(&worker->called, &pool->lock);
    }
    job = TAKE_PTR(worker->job);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void *work(void *context)
{
    struct worker *worker = context;
    struct server_job *job = TAKE_PTR(worker->job);
    while (job != NULL) {
        job->run(job);
        job = next_job(worker);
    }
    return NULL;
}

int server_pool_open(struct server_pool_size size, struct server_pool **ret, struct error *err)
{
    struct server_pool *pool = calloc(1, sizeof(*pool) + size.threads * sizeof(pool->workers[0]));
    if (pool == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a worker pool");
    pool->last = &pool->first;
    pool->queue_max = size.queue;
    pool->worker_max = size.threads;
    pool->shared = size.shared;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->done, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *ret = pool;
    return 0;
}

/* One whose owner may have a worker, but there is none to be had while there are fewer than there may
 * be, would wait for a job that may take an hour. */
static bool enqueue(struct server_pool *pool, struct server_job *job, bool runs)
{
    if ((runs && pool->started < pool->worker_max) || !may_wait(pool, job->owner))
        return false;
    job->next = NULL;
    *pool->last = job;
    pool->last = &job->next;
    pool->queued++;
    return true;
}

bool server_pool_submit(struct server_pool *pool, struct server_job *job)
{
    pthread_mutex_lock(&pool->lock);
    bool taken = !pool->closed, runs = taken && may_run(pool, job->owner);
    struct worker *worker = runs ? pool->idle : NULL;
    if (worker != NULL) {
        pool->idle = worker->below;
        take(worker, job);
    } else if (!runs || !start_worker(pool, job)) {
        taken = taken && enqueue(pool, job, runs);
    }
    pthread_mutex_unlock(&pool->lock);
    if (worker != NULL) /* it wakes up and finds the lock free */
        pthread_cond_signal(&worker->called);
    return taken;
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
    while (pool->running > 0 && waited != ETIMEDOUT)
        waited = pthread_cond_timedwait(&pool->done, &pool->lock, &until);
    pool->over = true;
    unsigned running = pool->running;
    for (unsigned i = 0; i < pool->started; i++)
        pthread_cond_signal(&pool->workers[i].called);
    pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; running == 0 && i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    return running;
}

void server_pool_free(struct server_pool *pool)
{
    if (pool == NULL)
        return;
    for (unsigned i = 0; i < pool->started; i++)
        pthread_cond_destroy(&pool->workers[i].called);
    pthread_cond_destroy(&pool->done);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}
