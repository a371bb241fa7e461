/*
 * R02: nobody is told of a state older than one that somebody was told of before. A writer prolongs
 * a VM's life; readers ask as the server does, first what is known, then the inventory, every other
 * one the inventory alone; each notes, before it asks, the latest end that anybody has seen, and
 * must not see an earlier one. A plain program, so that ThreadSanitizer can run it: exits 0, or says
 * what went wrong.
 */
#include "api/internal.h"
#include "tests/unit/store/fixture.h"

#include <pthread.h>
#include <sched.h>

enum { READERS = 4, WRITES = 3000, STEP_S = 10 };

struct shared {
    struct api api;
    atomic_int readers; /* that have begun */
    atomic_bool over;
    _Atomic int64_t seen_s;
    atomic_uint known, asked, wrong;
};

static void see(struct shared *shared, int64_t end_s)
{
    int64_t seen = atomic_load(&shared->seen_s);
    while (seen < end_s && !atomic_compare_exchange_weak(&shared->seen_s, &seen, end_s))
        continue;
}

static void *prolong(void *context)
{
    struct shared *shared = context;
    for (int i = 1; i <= WRITES && atomic_load(&shared->wrong) == 0; i++) {
        struct store_vm vm = {0};
        struct error err = {0};
        if (store_vm_keepalive(shared->api.store, "a", "vm", 3600 + i * STEP_S, clock_boot_ms(),
                               &vm, &err) < 0) {
            fprintf(stderr, "keeping alive: %s\n", err.msg);
            atomic_fetch_add(&shared->wrong, 1);
        }
        see(shared, vm.expires_wall_ms / 1000);
        sched_yield();
    }
    atomic_store(&shared->over, true);
    return NULL;
}

static int64_t end_of(const struct api_response *response)
{
    static const char name[] = "\"expires_at\":\"";
    struct tm tm = {0};
    char text[4096];
    snprintf(text, sizeof(text), "%.*s", (int)response->body_len, response->body);
    const char *at = strstr(text, name);
    if (at == NULL || strptime(at + strlen(name), "%Y-%m-%dT%H:%M:%S", &tm) == NULL)
        return -1;
    return timegm(&tm);
}

static void read_once(struct shared *shared, bool from_memory)
{
    static const struct caller caller = {.name = "a"};
    static const struct api_request request = {.caller = &caller, .id = "vm", .query = ""};
    struct error err = {0};
    struct api_response response cleanup(api_response_release) = {0};
    int64_t before = atomic_load(&shared->seen_s);
    bool known = from_memory && api_vm_known(&shared->api, &request, &response);
    if (!known && api_vm_get(&shared->api, &request, &response, &err) < 0)
        fprintf(stderr, "reading: %s\n", err.msg);
    atomic_fetch_add(known ? &shared->known : &shared->asked, 1);
    int64_t end = response.body != NULL ? end_of(&response) : -1;
    if (end < before) {
        fprintf(stderr, "%s: an end of %lld after one of %lld was told\n",
                known ? "known" : "asked", (long long)end, (long long)before);
        atomic_fetch_add(&shared->wrong, 1);
    }
    see(shared, end);
}

static void *read_all(void *context)
{
    struct shared *shared = context;
    bool from_memory = atomic_fetch_add(&shared->readers, 1) % 2 == 0;
    while (!atomic_load(&shared->over))
        read_once(shared, from_memory);
    return NULL;
}

static unsigned run(struct shared *shared)
{
    pthread_t threads[1 + READERS];
    for (int i = 0; i < 1 + READERS; i++)
        if (pthread_create(&threads[i], NULL, i == 0 ? prolong : read_all, shared) != 0)
            abort();
    for (int i = 0; i < 1 + READERS; i++)
        pthread_join(threads[i], NULL);
    printf("%u known, %u asked\n", atomic_load(&shared->known), atomic_load(&shared->asked));
    if (atomic_load(&shared->known) == 0 || atomic_load(&shared->asked) == 0) {
        fprintf(stderr, "one of the two ways was never gone\n");
        return 1;
    }
    return atomic_load(&shared->wrong);
}

int main(void)
{
    struct fixture f;
    struct error err = {0};
    if (fixture_open(&f, &err) < 0) {
        fprintf(stderr, "%s\n", err.msg);
        return 1;
    }
    struct shared shared = {0};
    shared.api.store = f.store;
    shared.api.known = api_known_new();
    struct store_vm vm = fixture_add(f.store, "a", "vm");
    vm.expires_boot_ms = clock_boot_ms() + 60000;
    vm.expires_wall_ms = clock_wall_ms() + 60000;
    unsigned wrong = store_vm_running(f.store, &vm, &err) < 0 || shared.api.known == NULL;
    wrong += wrong == 0 ? run(&shared) : 0;
    api_known_free(shared.api.known);
    fixture_release(&f);
    return wrong == 0 ? 0 : 1;
}
