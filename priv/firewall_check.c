/* Reading chains back. A read costs what the table's size costs, whatever is looked for in it, so that
 * workers who ask while one reads wait and share the next read, which begins after they asked. */
#include "priv/firewall_internal.h"

struct priv_read {
    struct netfilter_vm vm;
    struct error found;
    bool done;
};

/* Reads for all who wait. Lock held, but not while it reads. */
static void read_for_all(const struct netfilter *netfilter, struct priv_reads *reads)
{
    struct priv_read *asked[PRIV_WORKERS];
    struct netfilter_vm vms[PRIV_WORKERS];
    struct error found[PRIV_WORKERS];
    size_t count = reads->count;
    for (size_t i = 0; i < count; i++) {
        asked[i] = reads->next[i];
        vms[i] = asked[i]->vm;
    }
    reads->count = 0;
    reads->reading = true;
    pthread_mutex_unlock(&reads->lock);
    netfilter_check_each(netfilter, vms, count, found);
    pthread_mutex_lock(&reads->lock);
    for (size_t i = 0; i < count; i++) {
        asked[i]->found = found[i];
        asked[i]->done = true;
    }
    reads->reading = false;
    pthread_cond_broadcast(&reads->done);
}

/* Only workers call this, so that there is room for all. */
int priv_firewall_check(struct priv_firewall *firewall, const struct priv_record *record,
                        struct error *err)
{
    struct priv_reads *reads = &firewall->reads;
    struct priv_read own = {.vm = priv_chain_vm(record)};
    pthread_mutex_lock(&reads->lock);
    reads->next[reads->count++] = &own;
    while (!own.done) {
        if (reads->reading)
            pthread_cond_wait(&reads->done, &reads->lock);
        else
            read_for_all(firewall->netfilter, reads);
    }
    pthread_mutex_unlock(&reads->lock);
    if (own.found.code == ERR_NONE)
        return 0;
    *err = own.found;
    return -1;
}
