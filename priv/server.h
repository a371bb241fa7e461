/*
 * priv's server side: the root half's work. Links netfilter, image, libseccomp, nettle; nothing
 * that parses HTTP, JSON or SQL (CI asserts it).
 */
#ifndef MOTTE_PRIV_SERVER_H
#define MOTTE_PRIV_SERVER_H

#include "priv/messages.h"

/* Of these members of struct priv_config new values may come while the server runs. */
struct priv_limits {
    uint32_t max_vms, max_vcpus, max_memory_mib, max_disk_mib, total_memory_mib, max_snapshots;
    uint32_t image_snapshots; /* may be there besides */
};

/* From motted's arguments and configuration; strings borrowed for the server's life. */
struct priv_config {
    const char *run_dir;                     /* /run/motte: records in priv/, mount point jail/ */
    const char *state_dir;                   /* /var/lib/motte: images/, kernels/, scratch/,
                                              * staging/, snapshots/ */
    const char *cgroup;                      /* name of the cgroup root: "motte" */
    const char *firecracker, *jailer, *qemu; /* absolute paths */
    enum priv_hypervisor hypervisor;         /* 0: none, enough for priv_server_purge() */
    bool emulated;
    uint32_t without; /* enum priv_guard bits */
    uint32_t uid_base, uid_count;
    uint32_t front_gid; /* may connect to VMM sockets */
    uint32_t max_vms, max_vcpus, max_memory_mib, max_disk_mib, total_memory_mib, max_snapshots;
    uint32_t image_snapshots;        /* may be there besides */
    uint32_t max_io_mib_s, max_iops; /* of a VM, reads and writes each; 0: no limit */
    /* How often the firewall's tables are looked at: their size, each chain. 0: 1 s, 60 s. */
    uint32_t firewall_probe_ms, firewall_check_ms;
    /* Told what happens without a request that could be answered: what the firewall's thread finds.
     * From any thread; must not block. NULL: nobody is told. */
    void (*tell)(enum log_level level, const char *text);
};

struct priv_server;

/* From any thread. VMs that are there stay, also beyond the new limits. */
void priv_server_limit(struct priv_server *server, const struct priv_limits *limits);

/* Opens directories and firewall, checks the uid range against passwd and subuid, measures the TSC
 * for QEMU, reads the records of instances that an earlier run left. Before capabilities are cut.
 */
int priv_server_open(const struct priv_config *config, struct priv_server **ret, struct error *err);
/* Answers requests on `channel` (borrowed) until it ends (0) or fails (-1). Blocks; starts its own
 * workers. May be called from a test with any peer. */
int priv_server_run(struct priv_server *server, int channel, struct error *err);
/* VMs run on; records stay. */
void priv_server_free(struct priv_server *server);

/* Kills and removes every instance, known by record, cgroup or chain, and the firewall's roots. For
 * `motted --purge` and tests. */
int priv_server_purge(struct priv_server *server, struct error *err);

/* Can this KVM run an unmodified 64-bit Linux? A real probe: long-mode ring 0 code, FPU set-up, and
 * its speed. Opens /dev/kvm. */
enum priv_kvm { PRIV_KVM_OK, PRIV_KVM_MISSING, PRIV_KVM_DENIED, PRIV_KVM_EMULATED };
enum priv_kvm priv_kvm_probe(char reason[static 160]);

#endif
