/*
 * The floors under a spawn (README.md says what each does and leaves out):
 *   bare      the jailer, Firecracker's API, the guest's hello
 *   guarded   the same inside everything Motte puts round it, made by plain system calls
 *   emulated  likewise a QEMU that is restored
 */
#ifndef BENCH_FLOOR_FLOOR_H
#define BENCH_FLOOR_FLOOR_H

#include "bench/common/bench.h"
#include "netfilter/netfilter.h"
#include "priv/seccomp.h"
#include "vsock/wire.h"

#include <sys/mount.h>

enum {
    FLOOR_CGROUPS_MAX = 4,
    FLOOR_SETTINGS_MAX = 8,
    FLOOR_PATH_MAX = 256,
    FLOOR_UIDS = 65536,
    FLOOR_SLOTS = 64, /* chains that stand ready, as many as the root half keeps */
    FLOOR_FILES = 2048,
    FLOOR_PIDS = 64,
    FLOOR_BINDS = 8,
    FLOOR_DATA = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC,
};

/* As a spawn's steps are called in GET /vms/{id}; `connect` comes after what is measured. */
enum floor_step {
    FLOOR_GUARD,
    FLOOR_LAUNCH,
    FLOOR_CONFIGURE,
    FLOOR_START,
    FLOOR_HELLO,
    FLOOR_CONNECT,
    FLOOR_STEPS
};

/* A limit of a VM's cgroup, and in which of the hierarchies this host has it. */
struct floor_setting {
    const char *file;
    size_t at;
    char text[64];
};

struct floor {
    bool guarded, emulated; /* emulated is guarded too */
    const char *vmm, *jailer;
    uint32_t memory_mib;
    uint32_t uid_base;
    uint64_t memory_max;       /* bytes, with what the VMM may have for itself */
    int kernel, disk;          /* files */
    char work[FLOOR_PATH_MAX]; /* a tmpfs that nobody else sees */

    /* guarded only */
    struct netfilter *netfilter;
    uint8_t *filter; /* the seccomp filter's file */
    size_t filter_len;
    struct priv_bpf program;        /* emulated: the filter itself */
    int cgroups[FLOOR_CGROUPS_MAX]; /* directories below which VMs get theirs */
    size_t cgroup_count;
    bool unified; /* version 2: a process is born in its cgroup */
    struct floor_setting settings[FLOOR_SETTINGS_MAX];
    size_t setting_count;
    int snapshots;                  /* the folder that Motte publishes them in */
    int state, memory;              /* of the one to restore; -1: boot */
    int initrd;                     /* emulated */
    uint8_t token[WIRE_TOKEN_SIZE]; /* emulated: opens sessions of the VM that it is of */
};

struct floor_vm {
    const struct floor *floor;
    struct netfilter_vm slot; /* instance id and uid; guarded: with a chain that stands ready */
    double us[FLOOR_STEPS];
    pid_t pid;
    int pidfd, root, hello; /* root: of the jail */
    int notify;             /* inotify on the jail */
    int console, log;       /* read ends; guarded only */
    int events;             /* QEMU's other monitor */
    struct bench_http api;
};

/* setup.c. false: see the head of main.c. */
bool floor_set_up(struct floor *floor, int argc, char **argv);
/* The files of a published snapshot, by its name; NULL: none. A QEMU's has its memory in its state,
 * and after its name comes a token. */
void floor_choose_snapshot(struct floor *floor, char *words);

/* launch.c: what is made by the parent, detached; the child moves it to its place. */
struct floor_jail {
    int base, sync[2], output, null;
    struct {
        int tree;
        const char *name;
    } binds[FLOOR_BINDS];
    size_t bind_count;
    uint64_t files;    /* that the VMM may have open */
    char *const *argv; /* the caller's */
};
void floor_jail_init(struct floor_jail *jail);
/* `file`, which stays the caller's, as `name` in vm->root. */
void floor_jail_bind(const struct floor_vm *vm, struct floor_jail *jail, int file, const char *name,
                     uint64_t flags);
/* Returns when the exec was done; closes the jail. */
void floor_jail_launch(struct floor_vm *vm, struct floor_jail *jail);

/* jail.c, qemu.c. prepare is not measured. */
void floor_bare_prepare(struct floor_vm *vm);
void floor_bare_launch(struct floor_vm *vm);
void floor_bare_remove(const struct floor_vm *vm);
void floor_guarded_launch(struct floor_vm *vm);
void floor_qemu_launch(struct floor_vm *vm);

/* A listening socket for the guest's hello in vm->root. */
void floor_make_hello(struct floor_vm *vm);
/* The jailer with the arguments that Motte gives it. Async-signal-safe after fork. */
struct floor_command {
    char uid[16], base[FLOOR_PATH_MAX];
    char *argv[24];
};
void floor_command_init(const struct floor_vm *vm, const char *base, struct floor_command *command);

/* cgroup.c */
void floor_cgroups_open(struct floor *floor, char *paths);
void floor_cgroup_make(const struct floor_vm *vm);
/* By the VM's process itself, with version 1; system calls only. -1 with errno. */
int floor_cgroup_enter(const struct floor_vm *vm);
void floor_cgroup_check(const struct floor_vm *vm);
void floor_cgroup_remove(const struct floor_vm *vm);

/* check.c: the guards of a started VM, each file of /proc read once. */
void floor_check(const struct floor_vm *vm);

/* api.c, hello.c: the same for both floors of Firecracker. */
void floor_configure(struct floor_vm *vm);
void floor_start(struct floor_vm *vm);
/* In the place of the two, from the snapshot that floor->state and floor->memory are. */
void floor_load(struct floor_vm *vm);
void floor_resume(struct floor_vm *vm);
/* qmp.c: in the place of these two. */
void floor_qemu_load(struct floor_vm *vm);
void floor_qemu_resume(struct floor_vm *vm);
/* A name below vm->root that the VMM makes. */
void floor_wait_for_node(struct floor_vm *vm, const char *name);
/* Tells the agent that comes from a snapshot who it is; it then says hello. */
void floor_restore(const struct floor_vm *vm);
void floor_qemu_restore(const struct floor_vm *vm); /* and takes its hello */
void floor_hello(struct floor_vm *vm);
void floor_connect(const struct floor_vm *vm);

#endif
