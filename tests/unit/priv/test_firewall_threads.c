/* Instances come and go from many threads while another program flushes and edits the tables: no two
 * ever have one uid, and in the end no chain is left. A plain program for ThreadSanitizer. */
#include "bench.h"

#include <stdatomic.h>

enum { THREADS = 12, ROUNDS = 20, UIDS = 48 };

struct churn {
    struct bench *bench;
    atomic_int held[UIDS];
    atomic_int refused;
    atomic_bool done;
};

/* Out of sync is what the other program makes of it; nothing else may fail. */
static bool passed(struct churn *churn, int result, const struct error *err)
{
    if (result == 0)
        return true;
    if (err->code != ERR_FIREWALL_DRIFT)
        fprintf(stderr, "%s: %s\n", error_code_name(err->code), err->msg);
    CHECK(err->code == ERR_FIREWALL_DRIFT);
    atomic_fetch_add(&churn->refused, 1);
    return false;
}

static void *live(void *context)
{
    struct churn *churn = context;
    struct bench *bench = churn->bench;
    for (int i = 0; i < ROUNDS;) {
        struct error err = {0}, ignored = {0};
        char instance[ID_INSTANCE_SIZE], chain[PRIV_CHAIN_SIZE];
        uint32_t uid = 0;
        if (!passed(churn, priv_reserve(bench->client, instance, chain, &uid, &err), &err))
            continue;
        uid -= bench->config.uid_base;
        CHECK(uid < UIDS && atomic_exchange(&churn->held[uid], 1) == 0);
        if (passed(churn, priv_guard(bench->client, instance, &BENCH_SHAPE, &err), &err))
            i++;
        atomic_store(&churn->held[uid], 0);
        CHECK(priv_kill(bench->client, instance, NULL, &ignored) == 0);
    }
    return NULL;
}

static void *disturb(void *context)
{
    static const char *const commands[] = {"iptables-legacy -w 5 -t security -F",
                                           "ip6tables-legacy -w 5 -t security -R MOTTE_in 1 "
                                           "-j ACCEPT 2>/dev/null"};
    struct churn *churn = context;
    for (size_t i = 0; !atomic_load(&churn->done); i++) {
        CHECK(system(commands[i % COUNT_OF(commands)]) >= 0);
        struct priv_host host = {0};
        do {
            struct error err = {0};
            CHECK(priv_host(churn->bench->client, &host, &err) == 0);
        } while (!host.firewall_in_sync && !atomic_load(&churn->done));
    }
    return NULL;
}

int main(void)
{
    static struct churn churn;
    struct bench bench;
    pthread_t threads[THREADS], other;
    bench_init(&bench);
    churn.bench = &bench;
    bench.config.uid_count = UIDS;
    bench.config.firewall_probe_ms = 5;
    bench.config.firewall_check_ms = 20;
    bench_serve(&bench, false);
    CHECK(pthread_create(&other, NULL, disturb, &churn) == 0);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, live, &churn) == 0);
    for (size_t i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    atomic_store(&churn.done, true);
    CHECK(pthread_join(other, NULL) == 0);
    struct priv_host host;
    struct error err = {0};
    CHECK(priv_host(bench.client, &host, &err) == 0);
    CHECK(host.firewall_drifts > 0 && host.firewall_repairs > 0);
    printf("%d guarded, %d refused, %llu drifts, %llu repairs\n", THREADS * ROUNDS, churn.refused,
           (unsigned long long)host.firewall_drifts, (unsigned long long)host.firewall_repairs);
    bench_stop(&bench);
    CHECK(system("iptables-legacy -t security -S | grep -Eq 'MOTTE_[0-9a-f]{20}'") != 0);
    bench_close(&bench);
    return 0;
}
