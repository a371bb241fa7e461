/*
 * motted: main of the root half. It prepares what needs root, starts the front (docs/handover.md)
 * as another program without privileges, cuts its own, and answers the front's requests
 * (priv/server.h) until the front ends.
 */
#ifndef MOTTE_MOTTED_INTERNAL_H
#define MOTTE_MOTTED_INTERNAL_H

#include "priv/server.h"

#include <pthread.h>

enum {
    MOTTED_TEXT_MAX = 256,
    MOTTED_LISTEN_MAX = 8,
    MOTTED_FILES_MAX = 65536,
    MOTTED_FD_MIN = 10, /* descriptors for the front lie above its channel */
};

enum motted_hypervisor { MOTTED_AUTO, MOTTED_FIRECRACKER, MOTTED_QEMU };

struct motted_config {
    char listen[MOTTED_LISTEN_MAX][MOTTED_TEXT_MAX];
    size_t listen_count;
    char pools[PRIV_POOLS_MAX][PRIV_POOL_SIZE]; /* the front reads what they say */
    size_t pool_count;
    char quotas[PRIV_QUOTAS_MAX][PRIV_QUOTA_SIZE]; /* likewise */
    size_t quota_count;
    char metrics_listen[MOTTED_TEXT_MAX], token_file[MOTTED_TEXT_MAX];
    char tls_certificate[MOTTED_TEXT_MAX], tls_key[MOTTED_TEXT_MAX];
    char state_dir[MOTTED_TEXT_MAX], run_dir[MOTTED_TEXT_MAX];
    char firecracker[MOTTED_TEXT_MAX], jailer[MOTTED_TEXT_MAX], qemu[MOTTED_TEXT_MAX];
    char front[MOTTED_TEXT_MAX], front_user[ID_NAME_MAX + 1];
    char default_image[ID_NAME_MAX + 1], cgroup[ID_NAME_MAX + 1];
    enum motted_hypervisor hypervisor;
    enum log_level log_level;
    enum log_format log_format;
    uint32_t without; /* enum priv_guard bits */
    bool dev, purge, help, version;
    uint64_t uid_base, uid_count, max_vms, max_vcpus, max_memory_mib, max_disk_mib, max_snapshots;
    uint64_t max_tenant_vms, max_tenant_vcpus, max_tenant_memory_mib, max_tenant_execs;
    uint64_t image_snapshots, max_io_mib_s, max_iops, boot_timeout_ms, answer_timeout_ms;
    double memory_overcommit;
};

/* config.c: defaults, then the file of --config, then the other arguments. */
int motted_config_read(struct motted_config *config, int argc, char *const *argv,
                       struct error *err);
/* options.c: one `key = value`. */
int motted_option(struct motted_config *config, const char *key, const char *value,
                  struct error *err);
bool motted_option_wants_value(const char *key);
/* The first option that differs and cannot change while motted runs; NULL: none. */
const char *motted_options_fixed(const struct motted_config *running,
                                 const struct motted_config *next);
/* Takes over all that can; `out`: the keys that differed. */
void motted_options_take(struct motted_config *running, const struct motted_config *next, char *out,
                         size_t size);
void motted_options_print(FILE *out);

/* reload.c: what a reload needs. Once watched, of the watching thread alone. */
struct motted_reloads {
    int argc;
    char *const *argv;
    struct motted_config *config; /* what runs now */
    struct priv_server *server;
    int channel; /* borrowed: our end of the one for reloads; -1 once it has ended */
    struct motted_config next;
    struct priv_limits limits;
    bool waiting;     /* for the front's answer about `next` */
    int64_t begun_us; /* the one that is under way, or was last */
    bool again;       /* SIGHUP came meanwhile */
};
/* SIGHUP. Refuses in the log, or asks the front. */
void motted_reload(struct motted_reloads *reloads);
/* Its channel can be read: takes over what the front took, or says in the log what it did not. */
void motted_reload_answered(struct motted_reloads *reloads);
int motted_limits(const struct motted_config *config, struct priv_limits *ret, struct error *err);

/* What only root may read and the front needs: owned memfds, or -1. */
struct motted_secrets {
    int tokens, tls;
};
#define MOTTED_SECRETS_INIT                                                                        \
    {                                                                                              \
        .tokens = -1, .tls = -1                                                                    \
    }
/* secrets.c: reads what the configuration names. Files with secrets must be root's alone. */
int motted_secrets_read(const struct motted_config *config, struct motted_secrets *ret,
                        struct error *err);
void motted_secrets_release(struct motted_secrets *secrets);

/* What is handed to the front. */
struct motted_front {
    uid_t uid;
    gid_t gid;
    char name[ID_NAME_MAX + 1];
    char path[MOTTED_TEXT_MAX];
    int listeners[MOTTED_LISTEN_MAX];     /* owned, as all here */
    const char *kinds[MOTTED_LISTEN_MAX]; /* "unix", "tcp", "tls" */
    size_t listener_count;
    int metrics; /* or -1 */
    struct motted_secrets secrets;
    pid_t pid;
    int pidfd, signals;
    int channel; /* borrowed: our end */
    struct motted_reloads *reloads;
    pthread_t watcher;
    bool watched;
    _Atomic bool asked; /* SIGTERM or SIGINT was passed on */
};
void motted_front_init(struct motted_front *front);
void motted_front_release(struct motted_front *front);

/* prepare.c: everything but sockets that is done once, as full root. */
int motted_find_front(const struct motted_config *config, struct motted_front *front,
                      struct error *err);
/* The program that lies beside or beneath this one: "motte-front", "motte-admin". */
int motted_find_program(const char *name, char out[static MOTTED_TEXT_MAX], struct error *err);
int motted_make_directories(const struct motted_config *config, const struct motted_front *front,
                            struct error *err);
/* Held as long as the process lives; the descriptor or -1. */
int motted_lock(const char *run_dir, struct error *err);
int motted_raise_limits(struct error *err);
void motted_load_modules(void);

/* listen.c */
/* TCP only with tokens, TLS only with a certificate and its key. */
int motted_listen_check(const struct motted_config *config, struct error *err);
int motted_listen_all(const struct motted_config *config, struct motted_front *front,
                      struct error *err);

/* confine.c: capabilities and the launcher's seccomp filter. Before any thread is made. */
int motted_confine(struct error *err);

/* front.c */
/* `channel`, `reload`: the front's ends. */
int motted_front_start(const struct motted_config *config, struct motted_front *front, int channel,
                       int reload, struct error *err);
/* A thread that passes SIGTERM and SIGINT on and reloads at SIGHUP (all must be blocked already),
 * and shuts our end of the channel down when the front has ended. */
int motted_front_watch(struct motted_front *front, int channel, struct motted_reloads *reloads,
                       struct error *err);
/* Waits for the front; its exit status, 128 + signal, or 1 if it ended well unasked. */
int motted_front_wait(struct motted_front *front);

#endif
