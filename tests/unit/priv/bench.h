/*
 * For tests of priv's server: a server of its own on real Firecracker, in a fresh network
 * namespace, with directories, cgroup and catalogue of its own; asked through the real client or
 * raw. Works outside Criterion: what cannot be is told on stderr and ends the process with 1.
 */
#ifndef MOTTE_TESTS_PRIV_BENCH_H
#define MOTTE_TESTS_PRIV_BENCH_H

#include "client_pair.h"
#include "priv/internal.h"

struct bench {
    char directory[64], run[80], state[80], cgroup[ID_NAME_MAX + 1];
    char firecracker[256], jailer[256];
    uint8_t image[HASH_SIZE];
    struct priv_config config;
    struct priv_server *server;
    pthread_t thread;
    int served; /* the server's end of the channel */
    int raw;    /* the test's end, or -1 when `client` has it */
    struct priv_client *client;
};

/* Namespace, directories, catalogue with the test guest as the only image. Change config after it.
 */
void bench_init(struct bench *bench);
/* Opens the server and serves: with the client, or (raw) with bench->raw. */
void bench_serve(struct bench *bench, bool raw);
/* Until the firewall's thread has made its chains; it opens descriptors for that. */
void bench_settle(const struct bench *bench);
/* How many descriptors the process has, and has it as many as then? The firewall's thread has some
 * more now and then: the first looks for a while and takes the least, the second waits. */
size_t bench_fds(void);
bool bench_fds_are(size_t before);
/* The front dies: the server ends, VMs run on. */
void bench_stop(struct bench *bench);
/* Stops if need be, purges and removes everything. */
void bench_close(struct bench *bench);

#define BENCH_SHAPE                                                                                \
    ((struct priv_shape){                                                                          \
        .vcpus = 1, .memory_mib = 128, .disk_mib = 0, .seccomp = PRIV_SECCOMP_MINIMAL})

struct bench_vm {
    char instance[ID_INSTANCE_SIZE];
    uint32_t uid;
    struct priv_launched launched; /* descriptors owned */
    int api, guest;                /* -1: not yet */
    double guard_ms, launch_ms, open_ms, start_ms, hello_ms, check_ms;
};
/* Each takes the VM one step on and ends the test if that fails. */
void bench_reserve(struct bench *bench, struct bench_vm *vm);
void bench_guard(struct bench *bench, struct bench_vm *vm, const struct priv_shape *shape);
void bench_launch(struct bench *bench, struct bench_vm *vm);
void bench_boot(struct bench *bench, struct bench_vm *vm); /* open API, configure, start, hello */
void bench_up(struct bench *bench, struct bench_vm *vm);   /* all of these and CHECK */
void bench_kill(struct bench *bench, struct bench_vm *vm, struct priv_killed *ret /* or NULL */);
void bench_die(const struct bench_vm *vm);  /* SIGKILL to the VMM, behind the server's back */
pid_t bench_pid(const struct bench_vm *vm); /* of the VMM, from its pidfd */

/* Connects to the socket behind an O_PATH descriptor. */
int bench_connect(int path_fd);
/* Status code of one call of the VMM's API. */
int bench_api(int api, const char *method, const char *path, const char *body);

/* What of the instance is on the host: empty when nothing. One word each: process, cgroup, chain,
 * record, scratch, mount. Waits for the commit that removes the chain of an instance that the server
 * has forgotten. */
void bench_traces(const struct bench *bench, const char *instance, char *out, size_t size);

/* First line of a file of the instance's cgroup, from whichever hierarchy has it. */
void bench_cgroup(const struct bench *bench, const char *instance, const char *file, char *out,
                  size_t size);

/* The calling process, which a test has forked, enters the instance's cgroup. -1 with errno. */
int bench_enter(const struct bench *bench, const char *instance);

struct priv_request bench_request(enum priv_op op, const char *instance);
/* Sends bytes raw and returns the answer. */
struct priv_reply bench_ask(struct bench *bench, const void *bytes, size_t len, const int *fds,
                            size_t fd_count);

#endif
