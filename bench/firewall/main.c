/*
 * bench_firewall: what the firewall costs with few and with many VMs, to whoever starts VMs and to
 * the host's own packets. Needs root; works in network namespaces of its own, with a lock file of
 * its own.
 *
 *   bench_firewall [N...]      numbers of VMs, rising (default 10 100 1000 5000)
 */
#include "bench/common/bench.h"
#include "netfilter/netfilter.h"
#include "packets.h"

#include <libiptc/libip6tc.h>
#include <libiptc/libiptc.h>
#include <time.h>

enum {
    UID_BASE = 1879048192,
    UID_COUNT = 65536,
    BATCH = 32,
    AHEAD = 64 /* as the root half makes them */,
    FILL = 500,
    REPEATS = 7
};

struct bench {
    struct netfilter *netfilter;
    struct netfilter_vm *vms; /* UID_COUNT of them */
    size_t count;             /* in place */
    struct packets_pair pairs[PACKETS_KINDS];
};

static void must(int result, const struct error *err)
{
    if (result == 0)
        return;
    fprintf(stderr, "bench_firewall: %s\n", err->msg);
    exit(1);
}

static double ms_since(double start_ns)
{
    return (bench_now_ns() - start_ns) / 1e6;
}

static struct netfilter_vm *make_vms(void)
{
    static const char digits[] = "abcdefghijklmnopqrstuvwxyz234567";
    struct netfilter_vm *vms = calloc(UID_COUNT, sizeof(*vms));
    if (vms == NULL)
        exit(1);
    for (uint32_t i = 0; i < UID_COUNT; i++) {
        vms[i].uid = UID_BASE + i;
        for (uint32_t at = ID_INSTANCE_LEN, rest = i; at-- > 0; rest /= 32)
            vms[i].instance[at] = digits[rest % 32];
    }
    return vms;
}

static void fill(struct bench *bench, size_t count)
{
    struct error err = {0};
    while (bench->count < count) {
        size_t some = count - bench->count < FILL ? count - bench->count : FILL;
        must(netfilter_change(bench->netfilter, bench->vms + bench->count, some, NULL, 0, &err),
             &err);
        bench->count += some;
    }
}

static double cpu_ms(void)
{
    struct timespec used; /* the kernel's work for us included */
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    return (double)used.tv_sec * 1e3 + (double)used.tv_nsec / 1e6;
}

/* Milliseconds of adding `some` VMs to those in place, and of removing them; and those of the
 * processor when adding, which say more where others want it too. */
struct change {
    double add, remove, add_cpu;
};

static struct change time_change(const struct bench *bench, size_t some)
{
    double add[REPEATS], gone[REPEATS], cpu[REPEATS];
    const struct netfilter_vm *vms = bench->vms + bench->count;
    struct error err = {0};
    for (int i = 0; i < REPEATS; i++) {
        double start = bench_now_ns(), cpu_before = cpu_ms();
        must(netfilter_change(bench->netfilter, vms, some, NULL, 0, &err), &err);
        add[i] = ms_since(start);
        cpu[i] = cpu_ms() - cpu_before;
        start = bench_now_ns();
        must(netfilter_change(bench->netfilter, NULL, 0, vms, some, &err), &err);
        gone[i] = ms_since(start);
    }
    return (struct change){.add = bench_median(add, REPEATS) / (double)some,
                           .remove = bench_median(gone, REPEATS) / (double)some,
                           .add_cpu = bench_median(cpu, REPEATS) / (double)some};
}

enum question { CHECK, SYNC, COUNTS, PROBE, QUESTIONS };

static double time_question(const struct bench *bench, enum question question)
{
    static uint64_t packets[UID_COUNT];
    double samples[REPEATS];
    size_t repairs = 0;
    struct error err = {0};
    for (int i = 0; i < REPEATS; i++) {
        double start = bench_now_ns();
        switch (question) {
        case CHECK:
            must(netfilter_check(bench->netfilter, &bench->vms[bench->count / 2], &err), &err);
            break;
        case SYNC:
            must(netfilter_sync(bench->netfilter, bench->vms, bench->count, &repairs, &err), &err);
            break;
        case COUNTS:
            must(netfilter_counts(bench->netfilter, bench->vms, bench->count, packets, &err), &err);
            break;
        case PROBE:
        case QUESTIONS:
            must(netfilter_probe(bench->netfilter, &err), &err);
            break;
        }
        samples[i] = ms_since(start);
    }
    return bench_median(samples, REPEATS);
}

static void measure(struct bench *bench, size_t count)
{
    double questions[QUESTIONS];
    fill(bench, count);
    struct change one = time_change(bench, 1), batch = time_change(bench, BATCH),
                  ahead = time_change(bench, AHEAD);
    for (enum question i = 0; i < QUESTIONS; i++)
        questions[i] = time_question(bench, i);
    struct packets_trips trips = packets_round_trips(bench->pairs);
    double refused = packets_refused(bench->vms[count / 2].uid);
    printf("%6zu %8.2f %8.2f %8.3f %8.3f %8.3f %8.3f %8.3f %8.2f %8.2f %8.2f %8.1f %7.0f %7.0f "
           "%7.0f %7.0f %7.0f\n",
           count, one.add, one.add_cpu, batch.add, batch.add_cpu, ahead.add, ahead.add_cpu,
           ahead.remove, questions[CHECK], questions[SYNC], questions[COUNTS],
           questions[PROBE] * 1e3, trips.ns[PACKETS_PLAIN], trips.noise_ns, trips.ns[PACKETS_EMPTY],
           trips.ns[PACKETS_RULED], refused);
    fflush(stdout);
}

/* Reading a table is what makes the kernel hang it into a namespace. */
static void load_empty_tables(void)
{
    struct xtc_handle *v4 = iptc_init("security"), *v6 = ip6tc_init("security");
    if (v4 == NULL || v6 == NULL)
        exit(1);
    iptc_free(v4);
    ip6tc_free(v6);
}

int main(int argc, char **argv)
{
    static const char *const usual[] = {"10", "100", "1000", "5000"};
    struct bench bench = {.vms = make_vms()};
    char lock[] = "/tmp/motte-bench-firewall.XXXXXX";
    struct error err = {0};
    bench_own_network();
    bench.pairs[PACKETS_PLAIN] = packets_pair_make();
    bench_own_network();
    load_empty_tables();
    bench.pairs[PACKETS_EMPTY] = packets_pair_make();
    bench_own_network();
    bench.pairs[PACKETS_RULED] = packets_pair_make();
    cleanup_close int fd = mkstemp(lock);
    if (fd < 0)
        return 1;
    struct netfilter_config config = {
        .uid_base = UID_BASE, .uid_count = UID_COUNT, .lock_path = lock};
    int opened = netfilter_open(&config, &bench.netfilter, &err);
    must(opened, &err);
    puts("Medians; IPv4 and IPv6 together. Changes, a VM: ms, alone and in batches of 32 and 64; "
         "cpu: of "
         "the processor alone.\n"
         "check, sync, counts: ms. probe: us. A UDP round trip over loopback: without the table "
         "(plain; noise: the\n"
         "middle half of its samples), with an empty one, with these rules; and a send that is "
         "refused: ns.");
    printf("%6s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %7s %7s %7s %7s %7s\n", "VMs", "add 1",
           "cpu", "add 32", "cpu", "add 64", "cpu", "rm 64", "check", "sync", "counts", "probe",
           "plain", "noise", "empty", "ruled", "refused");
    size_t numbers = argc > 1 ? (size_t)argc - 1 : COUNT_OF(usual);
    for (size_t i = 0; i < numbers; i++) {
        size_t count = strtoul(argc > 1 ? argv[i + 1] : usual[i], NULL, 10);
        if (count < bench.count || count > UID_COUNT - AHEAD)
            exit(2);
        measure(&bench, count);
    }
    unlink(lock);
    netfilter_free(bench.netfilter);
    free(bench.vms);
    return 0;
}
