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
 *   KILL     SIGKILL, wait until the cgroup is empty, remove all but the chain: that goes with the
 *            next commit, at most about a second later, and only then is the uid free. Any state,
 *            and unknown instances: success.                         → dead, then forgotten
 */
#ifndef MOTTE_PRIV_MESSAGES_H
#define MOTTE_PRIV_MESSAGES_H

#include "base/base.h"

enum {
    PRIV_PROTOCOL = 3,
    PRIV_TOKEN_SIZE = 16, /* = WIRE_TOKEN_SIZE; asserted where both are known */
    PRIV_FDS_MAX = 4,
    PRIV_CHAIN_SIZE = 32,
    PRIV_LINE_NAME_SIZE = 24,
    PRIV_LINE_DETAIL_SIZE = 144,
    PRIV_LINES_MAX = 32,
    PRIV_ROOT_CHANNEL_FD = 3, /* the front finds its end of the channel here, */
    PRIV_RELOAD_FD = 4,       /* and here that of the one for reloads */
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
    PRIV_KILL,
    PRIV_LIST,
    PRIV_DROPS,
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
};
/* OPEN's reply carries exactly one descriptor. */

/* What a VM is made of. Bounds: priv_host. */
struct priv_shape {
    uint32_t vcpus, memory_mib, disk_mib, seccomp; /* seccomp: enum priv_seccomp */
};

struct priv_request {
    uint32_t protocol, op;
    uint64_t id;
    char instance[ID_INSTANCE_SIZE]; /* all zero for HOST, RESERVE, LIST, DROPS */
    union {
        struct priv_shape guard;
        struct {
            uint8_t image[HASH_SIZE]; /* digest of a catalogue image */
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
};

struct priv_usage {
    uint64_t memory_bytes, cpu_us;
    uint32_t pids;
    uint32_t oom_kills;
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
        } launch; /* fds: [0] pidfd, [1] console (read end); Firecracker: [2] hello listener,
                     [3] log (read end): what the VMM says, where no guest can write */
        struct priv_usage usage;
        struct {
            uint32_t was_running; /* it still ran when KILL came */
            uint32_t has_status;  /* 0 for adopted VMMs: only the parent learns it */
            int32_t status;       /* as waitpid gives it */
            uint32_t oom_kills;
        } kill;
        struct priv_instance list;
        struct priv_drops drops;
        struct priv_line report;
        uint8_t bytes[192];
    } u;
};

/*
 * A reload goes the other way, on a SOCK_SEQPACKET of its own, one at a time: the root half tells
 * what is new, with a memfd of the tokens' text if there are any; the front takes all of it or
 * nothing, and answers.
 */
struct priv_reload {
    uint32_t protocol;
    uint32_t log_level; /* enum log_level */
    uint32_t boot_timeout_ms;
    uint32_t has_tokens;
    char default_image[ID_NAME_MAX + 1];
};

struct priv_reloaded {
    uint32_t protocol;
    uint32_t code; /* enum error_code; ERR_NONE: taken */
    char message[ERROR_MESSAGE_MAX];
};

#endif
