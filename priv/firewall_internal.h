/* The firewall inside the root half, between its own files. What it is for: internal.h. */
#ifndef MOTTE_PRIV_FIREWALL_INTERNAL_H
#define MOTTE_PRIV_FIREWALL_INTERNAL_H

#include "priv/internal.h"

enum {
    PRIV_SPARES = 64,          /* chains made ahead, and so about as many in a commit */
    PRIV_RETRY_MS = 1000,      /* after a change that failed */
    PRIV_GATHER_MAX_MS = 1000, /* a retired chain waits for others at most so long */
    PRIV_COUNT_MS = 5000,
};

enum priv_chain_state {
    PRIV_CHAIN_WANTED,  /* the next commit makes it */
    PRIV_CHAIN_SPARE,   /* stands, and is nobody's */
    PRIV_CHAIN_TAKEN,   /* an instance's, of which there is no record */
    PRIV_CHAIN_HELD,    /* an instance's, which has a record */
    PRIV_CHAIN_RETIRED, /* the next commit removes it */
    PRIV_CHAIN_LEAVING, /* this commit does */
    PRIV_CHAIN_STATES,
};

struct priv_chain {
    struct netfilter_vm vm;
    enum priv_chain_state state;
    uint64_t counted; /* by the kernel when we last looked: a rebuilt chain starts at 0 */
    uint64_t dropped; /* in all its life */
};

struct priv_firewall {
    struct priv_server *server;  /* borrowed: uids and configuration */
    struct netfilter *netfilter; /* owned; changed by the thread only, or while there is none */
    pthread_t thread;
    bool running;

    pthread_mutex_t lock; /* all below; the server's may be taken inside, not the other way */
    pthread_cond_t work;  /* for the thread */
    pthread_cond_t made;  /* for those who wait for a chain */
    /* Only the thread adds and removes places, so that its indexes stay true without the lock. */
    struct priv_chain *chains; /* owned */
    size_t count, room;
    size_t in[PRIV_CHAIN_STATES];
    size_t waiting;
    uint64_t failures; /* changes that failed, and why the last one did */
    struct error failure;
    bool closing;  /* nobody waits for a chain any more */
    bool stopping; /* the thread ends */
    bool in_sync, suspect;
    int64_t retire_at, retry_at, probe_at, check_at, count_at;
    int64_t commit_ms; /* what the last one took */
    uint64_t repairs, drifts, dropped_gone;

    struct priv_reads { /* firewall_check.c */
        pthread_mutex_t lock;
        pthread_cond_t done;
        struct priv_read *next[PRIV_WORKERS]; /* who waits for the next read; borrowed */
        size_t count;
        bool reading;
    } reads;
};

/* ---- firewall_chains.c: the table of chains. Lock held. -------------------------------------- */

struct netfilter_vm priv_chain_vm(const struct priv_record *record);
struct priv_chain *priv_chain_find(struct priv_firewall *firewall, const char *instance);
int priv_chain_add(struct priv_firewall *firewall, const struct netfilter_vm *vm,
                   enum priv_chain_state state, struct error *err);
void priv_chain_set(struct priv_firewall *firewall, struct priv_chain *chain,
                    enum priv_chain_state state);
/* Forgets all chains in this state and gives their uids back. */
void priv_chain_forget_all(struct priv_firewall *firewall, enum priv_chain_state state);
/* Those in states whose bits (1 << state) are set, as one array: caller frees. *ret_at (may be
 * NULL): the place of each. */
int priv_chain_collect(struct priv_firewall *firewall, unsigned states, struct netfilter_vm **ret,
                       size_t **ret_at, size_t *ret_count, struct error *err);
/* How many more should be made now. */
size_t priv_chain_lacking(const struct priv_firewall *firewall);
/* Writes run_dir/priv/spares: the instances whose chains stand though they have no record. What
 * else stands without one is a leftover (motte-admin reads it). Before a chain is made, and before
 * a record goes. */
int priv_chain_publish(struct priv_firewall *firewall, struct error *err);

/* ---- firewall_thread.c ----------------------------------------------------------------------- */

void *priv_firewall_main(void *firewall);

/* ---- firewall_repair.c: called by the thread, or while there is none ------------------------- */

/* Looks at every chain, repairs what differs and removes what nobody knows. */
int priv_firewall_repair(struct priv_firewall *firewall, size_t *ret_repairs, struct error *err);
/* The same, counted: when the tables' size has changed or a guard stumbled on something; always. */
void priv_firewall_probe(struct priv_firewall *firewall);
void priv_firewall_look(struct priv_firewall *firewall);

#endif
