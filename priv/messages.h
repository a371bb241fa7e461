/*
 * What the two halves say to each other over one SOCK_SEQPACKET: fixed structs, never a path, an
 * argv, a uid or a rule. The front asks, the root half answers each request exactly once, in any
 * order, by `id`. Descriptors travel with replies only (SCM_RIGHTS, at most PRIV_FDS_MAX).
 *
 * A request of another size, protocol or operation, with a descriptor, with a bad instance id, an
 * unused byte that is not zero, or in the wrong state is refused (ERR_PRIV_REFUSED) with no effect.
 *
 * An instance goes reserved → guarded → launched → dead; nothing goes back:
 *   RESERVE  takes an instance id, a uid and a firewall chain made
 *            ahead; waits for one when none is ready                → reserved
 *   GUARD    the chain read back, cgroup with limits                → guarded
 *   LAUNCH   namespaces, jail, seccomp filter, VMM                   → launched
 *   OPEN     descriptors of a launched VMM                             (launched)
 *   CHECK    every guard read back: the report's first wrong line        (launched)
 *   REPORT   one line of that report: what a guard looks like now        (launched)
 *   USAGE    cgroup figures                                              (guarded, launched)
 *   STAGE    fresh files, which the VMM is lent to write a snapshot to  (launched)
 *   CAPTURE  looked at, taken away where mounted; its disk copied       (launched)
 *   PUBLISH  copies of all of it become a snapshot                      (launched)
 *   UNSTAGE  whatever STAGE and CAPTURE left is taken back              (launched, dead)
 *   KILL     SIGKILL, wait until the cgroup is empty, remove all but the chain: that goes with the
 *            next commit, at most about a second later, and only then is the uid free. Any state,
 *            and unknown instances: success.                         → dead, then forgotten
 *
 * A snapshot is made in three steps, of a VMM that has opened its API (before that a Firecracker
 * may not be in its jail, and STAGE fails). The front pauses the VM before STAGE and lets the VMM
 * write before CAPTURE: a Firecracker into PRIV_PLACE_STATE and PRIV_PLACE_MEMORY; a QEMU, which
 * cannot be told a path, all of it into the descriptor that OPEN gives the front for
 * PRIV_SOCKET_STAGED. With CAPTURE's answer the VM may run again, PUBLISH needs it no more. STAGE
 * is refused while one is being made; CAPTURE without STAGE and PUBLISH without CAPTURE are
 * refused. A step that fails has taken everything back, as UNSTAGE, KILL and the next start do.
 * ERR_DISK_FULL: the state disk has no room; ERR_CAPACITY: max-snapshots. A Firecracker that
 * booted with track_dirty_pages may write a Diff snapshot, which is tiny and fast; so may one that
 * was loaded with enable_diff_snapshots, since its memory's file begins as what it was restored
 * from. Published snapshots outlive instances; SNAPSHOTS lists them, and FORGET_SNAPSHOT removes
 * one, which a VM that runs from it does not notice.
 *
 * LAUNCH with a snapshot's id makes a VMM that has the snapshot's files, read-only, at
 * PRIV_RESTORE_STATE and PRIV_RESTORE_MEMORY (QEMU: as PRIV_RESTORE_FD, and waits for it), and a
 * copy of its disk, for the front to load. It is refused, with no effect, unless image and shape
 * are the snapshot's, this host and VMM those it was made by (ERR_SNAPSHOT_MISMATCH), and every
 * file what was published (ERR_SNAPSHOT_DAMAGED). ERR_SNAPSHOT_UNKNOWN: there is none of that id.
 *
 * LAUNCH as a template, which boots: what is made of it is for many VMs, soon. To Firecracker that
 * is all the same: each VM maps the file that was published. A QEMU's memory is then a file
 * without a name, so that it has but its devices to write, and PUBLISH reads the memory there: it
 * has to stand still until that is answered. A VM that is launched from such a snapshot has all of
 * its memory at once: the root half reads it into another such file, once, seals that, and each VM
 * maps it and keeps its own changes to itself. `apart` in LAUNCH's answer: the memory is not in
 * what is loaded, or, of a template, in what it will write; QEMU has to be told (x-ignore-shared).
 * What is made of a VM that was restored is like any other. A template can not be kept by a root
 * half that did not launch it (STAGE: ERR_SNAPSHOT_MISMATCH).
 *
 * Before CHECK the front has the VMM pause once more what is loaded paused: loading waits for no
 * vCPU's thread to have its filter, pausing does.
 */
#ifndef MOTTE_PRIV_MESSAGES_H
#define MOTTE_PRIV_MESSAGES_H

#include "base/base.h"

enum {
    PRIV_PROTOCOL = 6,
    PRIV_TOKEN_SIZE = 16, /* = WIRE_TOKEN_SIZE; asserted where both are known */
    PRIV_FDS_MAX = 4,
    PRIV_CHAIN_SIZE = 32,
    PRIV_LINE_NAME_SIZE = 24,
    PRIV_LINE_DETAIL_SIZE = 144,
    PRIV_LINES_MAX = 32,
    PRIV_ROOT_CHANNEL_FD = 3, /* the front finds its end of the channel here, */
    PRIV_RELOAD_FD = 4,       /* and here that of the one for reloads */
    PRIV_RESTORE_FD = 3,      /* of a QEMU that was launched from a snapshot */
    PRIV_MEMORY_FD = 4,       /* of a QEMU whose memory is a file of the root half's */
};

enum priv_op {
    PRIV_HOST = 1,
    PRIV_RESERVE,
    PRIV_GUARD,
    PRIV_LAUNCH,
    PRIV_OPEN,
    PRIV_CHECK,
    PRIV_REPORT,
    PRIV_USAGE,
    PRIV_STAGE,
    PRIV_CAPTURE,
    PRIV_PUBLISH,
    PRIV_UNSTAGE,
    PRIV_KILL,
    PRIV_LIST,
    PRIV_DROPS,
    PRIV_SNAPSHOTS,
    PRIV_FORGET_SNAPSHOT,
    PRIV_OP_END,
};

enum priv_hypervisor { PRIV_FIRECRACKER = 1, PRIV_QEMU = 2 };
enum priv_seccomp { PRIV_SECCOMP_MINIMAL = 1, PRIV_SECCOMP_BASIC, PRIV_SECCOMP_PERMISSIVE };

/* Bits of guards; in `without` a set bit says that the operator started without it. */
enum priv_guard { PRIV_GUARD_FIREWALL = 1, PRIV_GUARD_CGROUP = 2, PRIV_GUARD_SECCOMP = 4 };

enum priv_state { PRIV_RESERVED = 1, PRIV_GUARDED, PRIV_LAUNCHED, PRIV_DEAD };

/* Sockets of a launched VMM, opened O_PATH beneath its jail after checks (type, owner); group and
 * mode are set so that the front may connect. OPEN waits up to 5 s for the socket to appear (not
 * after adoption), or ends when the VMM does (ERR_VMM_EXITED, with what it last wrote). */
enum priv_socket {
    PRIV_SOCKET_API = 1, /* Firecracker's API or QEMU's QMP */
    PRIV_SOCKET_VSOCK,   /* Firecracker only */
    PRIV_SOCKET_PORT,    /* QEMU's serial port number `port` */
    PRIV_SOCKET_CONSOLE, /* not a socket: read end of the console pipe, after adoption */
    PRIV_SOCKET_PIDFD,   /* not a socket: a pidfd of the VMM, after adoption */
    PRIV_SOCKET_LOG, /* not a socket: read end of the VMM's own log, after adoption; Firecracker */
    PRIV_SOCKET_EVENTS, /* a second QMP, for events alone; QEMU only */
    PRIV_SOCKET_STAGED, /* not a socket: the staged file, to be written; only while staged, QEMU only */
};
/* OPEN's reply carries exactly one descriptor. */

/* Where a Firecracker writes a snapshot while that is staged: else nobody can open what is there. */
#define PRIV_PLACE_STATE "/snapshot.state"
#define PRIV_PLACE_MEMORY "/snapshot.memory"
/* Where it finds, read-only, the one that it was launched from; a QEMU has the state alone, opened for
 * it as descriptor PRIV_RESTORE_FD. */
#define PRIV_RESTORE_STATE "/restore.state"
#define PRIV_RESTORE_MEMORY "/restore.memory"

/* What a VM is made of. Bounds: priv_host. */
struct priv_shape {
    uint32_t vcpus, memory_mib, disk_mib, seccomp; /* seccomp: enum priv_seccomp */
};

struct priv_request {
    uint32_t protocol, op;
    uint64_t id;
    uint64_t
        trace; /* the client's request that it is for, as X-Request-Id has it; 0: for none. It goes
                       into log lines and nowhere else: any number is as good as another */
    char instance[ID_INSTANCE_SIZE]; /* all zero for HOST, RESERVE and what comes after KILL */
    union {
        struct priv_shape guard;
        struct {
            uint8_t image[HASH_SIZE];        /* digest of a catalogue image */
            char snapshot[ID_INSTANCE_SIZE]; /* to restore; all zero: boots */
            uint8_t as_template;             /* 1 or 0 */
        } launch;
        struct {
            uint32_t what, port; /* enum priv_socket */
        } open;
        struct {
            uint32_t index; /* 0, 1, 2 … until the reply's instance is empty */
        } list, drops;
        struct {
            uint32_t index; /* 0, 1, 2 … until the reply's name is empty; the order is fixed */
        } report;
        struct {
            char
                after[ID_INSTANCE_SIZE]; /* all zero, then the last answer's, until that is empty */
        } snapshots;
        struct {
            char snapshot[ID_INSTANCE_SIZE];
        } forget;
        uint8_t bytes[64];
    } u;
};

struct priv_host {
    uint32_t hypervisor;               /* enum priv_hypervisor: the one this host uses */
    uint32_t emulated;                 /* 1: no security border */
    uint32_t without;                  /* enum priv_guard bits */
    uint32_t cgroup_version;           /* 1, 2; 0 without */
    uint32_t firewall_v4, firewall_v6; /* enum netfilter_state */
    uint32_t max_vms, max_vcpus, max_memory_mib, max_disk_mib; /* per VM but for max_vms */
    uint32_t total_memory_mib; /* for all VMs together: host memory × overcommit */
    uint32_t live;             /* instances the root half knows */
    uint64_t rss_bytes;        /* of the root half, for metrics */
    uint32_t fds;
    uint32_t firewall_in_sync; /* 0: its rules were changed and are not repaired, no VM starts */
    uint64_t firewall_repairs; /* places that were repaired */
    uint64_t firewall_drifts;  /* how often another program was found to have changed a table */
    uint64_t firewall_dropped; /* packets of VMs, also of those that are gone */
    uint32_t firewall_spares;  /* chains that wait for a VM */
    uint32_t max_snapshots;
    char vmm_version[32];
};

struct priv_drops {                  /* DROPS: an instance whose chain has dropped packets */
    char instance[ID_INSTANCE_SIZE]; /* empty: no more */
    uint64_t packets;                /* as of some seconds ago at most */
};

struct priv_instance {               /* LIST */
    char instance[ID_INSTANCE_SIZE]; /* empty: no more */
    uint32_t state;                  /* enum priv_state */
    uint32_t uid;
    uint32_t alive; /* its VMM runs and is the one that was launched */
    uint32_t hypervisor;
    struct priv_shape shape;
    uint8_t token[PRIV_TOKEN_SIZE];
    char snapshot[ID_INSTANCE_SIZE]; /* what it was restored from; empty: it booted */
    uint32_t generation;             /* how many restores lie between a boot and it */
};

struct priv_snapshot {               /* SNAPSHOTS: by id, ascending */
    char snapshot[ID_INSTANCE_SIZE]; /* empty: no more */
    uint32_t
        code; /* enum error_code: what LAUNCH from it would say of this host; ERR_NONE: it fits.
                      ERR_SNAPSHOT_DAMAGED: nothing else is known of it */
    uint32_t generation;             /* of the VM it was made of */
    char instance[ID_INSTANCE_SIZE]; /* that VM */
    struct priv_shape shape;
    uint8_t image[HASH_SIZE];
    uint8_t digest[HASH_SIZE]; /* of everything in it, as PUBLISH told it */
    uint64_t bytes;            /* allocated on the disk when it was made */
    int64_t created_wall_ms;
};

struct priv_usage {
    uint64_t memory_bytes, cpu_us;
    uint64_t disk_bytes;              /* of the state disk, that its scratch disk takes */
    uint64_t read_bytes, wrote_bytes; /* by its cgroup, of disks */
    uint32_t pids;
    uint32_t oom_kills;
    uint32_t has_io; /* 0: this host's cgroups do not count those */
    uint32_t reserved;
};

/* What REPORT says of one guard. Whatever could not be read is wrong, not ok. */
enum priv_line_state {
    PRIV_LINE_OK = 1,
    PRIV_LINE_WRONG,          /* there, but not as it was made */
    PRIV_LINE_ABSENT,         /* not there at all */
    PRIV_LINE_NOT_APPLICABLE, /* the operator started without it, or the host has nothing to guard
                               */
};

struct priv_line {
    char name[PRIV_LINE_NAME_SIZE]; /* "cgroup_memory"; empty: no more */
    uint32_t state;                 /* enum priv_line_state */
    uint32_t has_value;
    int64_t value;                      /* its meaning: openapi.yaml, IsolationLine */
    char detail[PRIV_LINE_DETAIL_SIZE]; /* why it is not ok; else empty */
};

struct priv_reply {
    uint32_t protocol, op;
    uint64_t id;
    uint32_t code; /* enum error_code; ERR_NONE: done */
    int32_t sys;
    char message[ERROR_MESSAGE_MAX];
    union {
        struct priv_host host;
        struct {
            char instance[ID_INSTANCE_SIZE];
            char chain[PRIV_CHAIN_SIZE]; /* its firewall chain, for the record */
            uint32_t uid;
        } reserve;
        struct {
            uint8_t token[PRIV_TOKEN_SIZE];
            uint8_t snapshot_token[PRIV_TOKEN_SIZE]; /* restored: what the guest's memory holds */
            uint32_t generation;
            uint32_t apart; /* QEMU only */
        } launch; /* fds: [0] pidfd, [1] console (read end); Firecracker: [2] hello listener,
                     [3] log (read end): what the VMM says, where no guest can write */
        struct priv_usage usage;
        struct {
            char snapshot[ID_INSTANCE_SIZE];
            uint8_t digest[HASH_SIZE]; /* of everything in it */
            uint64_t bytes;            /* allocated on the disk */
        } publish;
        struct {
            uint32_t was_running; /* it still ran when KILL came */
            uint32_t has_status;  /* 0 for adopted VMMs: only the parent learns it */
            int32_t status;       /* as waitpid gives it */
            uint32_t oom_kills;
        } kill;
        struct priv_instance list;
        struct priv_drops drops;
        struct priv_snapshot snapshots;
        struct priv_line report;
        uint8_t bytes[192];
    } u;
};

/*
 * A reload goes the other way, on a SOCK_SEQPACKET of its own, one at a time: the root half tells
 * what is new, with a memfd of the tokens' text and one of the certificate's, if there are any; the front
 * takes all of it or nothing, and answers.
 */
enum { PRIV_POOLS_MAX = 16, PRIV_POOL_SIZE = 160, PRIV_QUOTAS_MAX = 64, PRIV_QUOTA_SIZE = 160 };
struct priv_reload {
    uint32_t protocol;
    uint32_t log_level; /* enum log_level */
    uint32_t boot_timeout_ms;
    uint32_t has_tokens, has_tls;
    uint32_t tenant_vms, tenant_vcpus, tenant_memory_mib, tenant_execs; /* 0: no limit */
    char default_image[ID_NAME_MAX + 1];
    char pools[PRIV_POOLS_MAX][PRIV_POOL_SIZE];    /* as the front's --pool; the last ones are "" */
    char quotas[PRIV_QUOTAS_MAX][PRIV_QUOTA_SIZE]; /* likewise, as --quota */
};

struct priv_reloaded {
    uint32_t protocol;
    uint32_t code; /* enum error_code; ERR_NONE: taken */
    char message[ERROR_MESSAGE_MAX];
};

#endif
