/*
 * The table of machines, by itself: what a VM wrote and what QEMU told of it, and those who wait for
 * it. A plain program, so that ThreadSanitizer can run it.
 */
#include "tests/unit/base/refuse.h"
#include "tests/unit/vmm/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define INSTANCE "abcdefghij234567abcd"

static struct vmm_machine *make(struct engine *engine)
{
    struct error err = {0};
    struct vmm_machine *machine = vmm_machine_new(engine->vmm, INSTANCE, &err);
    CHECK(machine != NULL);
    return machine;
}

static void drop(struct engine *engine, struct vmm_machine *machine)
{
    vmm_machine_remove(engine->vmm, machine);
    CHECK(vmm_machine_find(engine->vmm, INSTANCE) == NULL);
    vmm_machine_unref(engine->vmm, machine);
}

/* ---- what it says; without the monitor, which would read it first ---- */

static void events_are_not_among_the_last_words(struct engine *engine)
{
    char text[VMM_LOG_TAIL];
    struct vmm_machine *machine = make(engine);
    struct error err = {0};
    int console[2], events[2];
    CHECK(pipe2(console, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(events, O_CLOEXEC) == 0);
    machine->console = console[0];
    /* Were they not watched, they would be heard all the same when it ends. */
    refuse(REFUSE_EPOLL_CTL, (struct refusal){.times = 1, .sys = ENOSPC});
    CHECK(vmm_machine_listen(engine->vmm, machine, events[0], &err) < 0 && err.sys == ENOSPC);
    refuse_nothing();
    CHECK(write(events[1], "SHUTDOWN", 8) == 8 && write(console[1], "bye\0bye", 7) == 7);
    CHECK(vmm_machine_log(machine, text, sizeof(text)) == 8 && strcmp(text, "SHUTDOWN") == 0);
    CHECK(vmm_machine_tail(machine, text, sizeof(text)) == 7 && strcmp(text, "bye?bye") == 0);
    drop(engine, machine);
    close(console[1]);
    close(events[1]);
}

/* As QEMU's are in a VM that is up: the monitor hears them. */
static void events_are_heard_as_they_come(struct engine *engine)
{
    char text[VMM_LOG_TAIL] = "";
    struct vmm_machine *machine = make(engine);
    struct error err = {0};
    int events[2];
    CHECK(pipe2(events, O_CLOEXEC) == 0);
    CHECK(vmm_machine_listen(engine->vmm, machine, events[0], &err) == 0);
    CHECK(write(events[1], "RESET", 5) == 5);
    int64_t deadline = clock_mono_ms() + PATIENCE_MS;
    for (int unread = 1; unread > 0;)
        CHECK(clock_mono_ms() < deadline && ioctl(events[0], FIONREAD, &unread) == 0);
    vmm_machine_log(machine, text, sizeof(text));
    CHECK(strcmp(text, "RESET") == 0);
    drop(engine, machine);
    close(events[1]);
}

static void a_flood_is_read_in_portions(struct engine *engine)
{
    enum { FLOOD = 400000, PIPE = 1 << 20 };
    cleanup_free char *flood = malloc(FLOOD);
    struct vmm_machine *machine = make(engine);
    int console[2], left = 0;
    CHECK(flood != NULL && pipe2(console, O_CLOEXEC | O_NONBLOCK) == 0);
    CHECK(fcntl(console[1], F_SETPIPE_SZ, PIPE) >= FLOOD);
    memset(flood, 'x', FLOOD);
    CHECK(write(console[1], flood, FLOOD) == FLOOD);
    machine->console = console[0];
    vmm_machine_drain(machine);
    CHECK(ioctl(console[0], FIONREAD, &left) == 0 && left > 0 && left < FLOOD);
    CHECK(!machine->console_ended);
    vmm_machine_drain(machine);
    CHECK(ioctl(console[0], FIONREAD, &left) == 0 && left == 0);
    drop(engine, machine);
    close(console[1]);
}

/* ---- who waits for it ---- */

struct waiter {
    struct engine *engine;
    struct vmm_machine *machine;
    sem_t waits;
    pthread_t thread;
};

static void tell(void *context)
{
    struct waiter *waiter = context;
    sem_post(&waiter->waits);
}

static void *settle_main(void *context)
{
    struct waiter *waiter = context;
    refuse(REFUSE_PTHREAD_COND_WAIT, (struct refusal){.meanwhile = tell, .context = waiter});
    vmm_machine_settle(waiter->engine->vmm, waiter->machine);
    CHECK(waiter->machine->phase == VMM_UP);
    return NULL;
}

static void who_finds_one_that_is_not_up_yet_waits(struct engine *engine)
{
    const struct store_vm row = {.expires_boot_ms = INT64_MAX};
    struct waiter waiter = {.engine = engine, .machine = make(engine)};
    CHECK(sem_init(&waiter.waits, 0, 0) == 0);
    CHECK(pthread_create(&waiter.thread, NULL, settle_main, &waiter) == 0);
    while (sem_wait(&waiter.waits) < 0)
        CHECK(errno == EINTR);
    vmm_machine_up(engine->vmm, waiter.machine, &row, INT64_MAX);
    CHECK(pthread_join(waiter.thread, NULL) == 0);
    sem_destroy(&waiter.waits);
    drop(engine, waiter.machine);
}

/* A delete stops its spawn: it will never be up. */
static void nobody_waits_for_one_that_is_being_deleted(struct engine *engine)
{
    struct vmm_machine *machine = make(engine);
    CHECK(eventfd_write(machine->cancel, 1) == 0);
    vmm_machine_settle(engine->vmm, machine);
    CHECK(machine->phase == VMM_SPAWNING);
    drop(engine, machine);
}

int main(void)
{
    static engine_test *const tests[] = {
        events_are_not_among_the_last_words,
        events_are_heard_as_they_come,
        a_flood_is_read_in_portions,
        who_finds_one_that_is_not_up_yet_waits,
        nobody_waits_for_one_that_is_being_deleted,
    };
    return engine_run(tests, COUNT_OF(tests));
}
