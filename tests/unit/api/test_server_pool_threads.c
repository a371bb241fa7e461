/* Whose turn it is in a pool that owners share. A plain program, so that ThreadSanitizer can run it. */
#include "server/internal.h"
#include "tests/unit/base/check.h"

#include <semaphore.h>
#include <time.h>

enum { PATIENCE_S = 20, WORKERS = 6, JOBS_MAX = 16 };

struct job {
    struct server_job job; /* first, as it is handed on */
    sem_t begun, may_end;
};

struct work {
    struct server_pool *pool;
    struct job jobs[JOBS_MAX];
    unsigned count;
};

static void run(struct server_job *job)
{
    struct job *at = (struct job *)(void *)job;
    sem_post(&at->begun);
    while (sem_wait(&at->may_end) < 0)
        ;
}

static struct job *submit(struct work *work, uint64_t owner)
{
    struct job *job = &work->jobs[work->count++];
    job->job = (struct server_job){.owner = owner, .run = run};
    CHECK(sem_init(&job->begun, 0, 0) == 0 && sem_init(&job->may_end, 0, 0) == 0);
    CHECK(server_pool_submit(work->pool, &job->job));
    return job;
}

static bool begins(struct job *job)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until); /* sem_timedwait() has no other */
    until.tv_sec += PATIENCE_S;
    return sem_timedwait(&job->begun, &until) == 0;
}

static bool waits(struct job *job)
{
    return sem_trywait(&job->begun) < 0;
}

static void finish(struct work *work)
{
    for (unsigned i = 0; i < work->count; i++)
        sem_post(&work->jobs[i].may_end);
    CHECK(server_pool_stop(work->pool, clock_mono_ms() + PATIENCE_S * 1000) == 0);
    server_pool_free(work->pool);
    for (unsigned i = 0; i < work->count; i++) {
        sem_destroy(&work->jobs[i].begun);
        sem_destroy(&work->jobs[i].may_end);
    }
}

/* One's end lets his own go on, and another's who came before. */
static void all_begin_that_may(void)
{
    enum { ONE, OTHER };
    struct work work = {0};
    struct error err = {0};
    const struct server_pool_size size = {.threads = WORKERS, .queue = JOBS_MAX, .shared = true};
    CHECK(server_pool_open(size, &work.pool, &err) == 0);
    struct job *first = submit(&work, ONE),
               *others[] = {submit(&work, ONE), submit(&work, OTHER), submit(&work, OTHER)};
    CHECK(begins(first));
    for (size_t i = 0; i < COUNT_OF(others); i++)
        CHECK(begins(others[i]));
    struct job *his = submit(&work, OTHER), *mine = submit(&work, ONE);
    CHECK(waits(his) && waits(mine));
    sem_post(&first->may_end);
    CHECK(begins(his));
    CHECK(begins(mine));
    finish(&work);
}

int main(void)
{
    all_begin_that_may();
    return 0;
}
