/*
 * priv's client side: how the front asks the root half. Linked by the front only; holds no
 * privilege. Thread-safe: any thread may call, calls overlap. When the channel ends (the root half
 * died) every call fails with ERR_PRIV_LOST and priv_client_lost_fd() becomes readable: the front
 * must then end.
 */
#ifndef MOTTE_PRIV_CLIENT_H
#define MOTTE_PRIV_CLIENT_H

#include "priv/messages.h"

struct priv_client;

/* Takes fd. Starts one reader thread. */
int priv_client_new(int fd, struct priv_client **ret, struct error *err);
void priv_client_free(struct priv_client *client);
int priv_client_lost_fd(const struct priv_client *client); /* borrowed eventfd */

int priv_host(struct priv_client *client, struct priv_host *ret, struct error *err);
int priv_reserve(struct priv_client *client, char ret_instance[static ID_INSTANCE_SIZE],
                 char ret_chain[static PRIV_CHAIN_SIZE], uint32_t *ret_uid, struct error *err);
int priv_guard(struct priv_client *client, const char *instance, const struct priv_shape *shape,
               struct error *err);

struct priv_launched {
    int pidfd, console, hello, log; /* owned by the caller; hello and log are -1 with QEMU */
    uint8_t token[PRIV_TOKEN_SIZE];
    uint8_t snapshot_token[PRIV_TOKEN_SIZE]; /* restored: that of the guest's memory; else zero */
    uint32_t generation;                     /* 0: booted */
    bool apart; /* QEMU: its memory is not in the state, see messages.h */
};
int priv_launch(struct priv_client *client, const char *instance,
                const uint8_t image[static HASH_SIZE], struct priv_launched *ret,
                struct error *err);
/* As a template (messages.h): it boots for a snapshot from which many are to be launched. All else
 * about it is as ever, but that one that is `apart` stays paused until PUBLISH is answered. */
int priv_launch_template(struct priv_client *client, const char *instance,
                         const uint8_t image[static HASH_SIZE], struct priv_launched *ret,
                         struct error *err);
/* To be restored: the VMM has the snapshot's files where PRIV_RESTORE_* say. May take a while when files
 * are checked that were not yet checked since motted started. */
int priv_launch_snapshot(struct priv_client *client, const char *instance,
                         const uint8_t image[static HASH_SIZE], const char *snapshot,
                         struct priv_launched *ret, struct error *err);
/* The descriptor (caller closes) or -1. */
int priv_open(struct priv_client *client, const char *instance, enum priv_socket what,
              uint32_t port, struct error *err);
int priv_check(struct priv_client *client, const char *instance, struct error *err);
/* ret->name is empty when there are no more lines. */
int priv_report(struct priv_client *client, const char *instance, uint32_t index,
                struct priv_line *ret, struct error *err);
int priv_usage(struct priv_client *client, const char *instance, struct priv_usage *ret,
               struct error *err);

/* A snapshot, step by step: messages.h. The VM is paused from before STAGE until CAPTURE is answered.
 * UNSTAGE may be called at any time, also when there is nothing to take back. PUBLISH takes as long as
 * the disk needs; a KILL meanwhile ends it (ERR_CANCELLED). */
int priv_stage(struct priv_client *client, const char *instance, struct error *err);
int priv_capture(struct priv_client *client, const char *instance, struct error *err);
struct priv_published {
    char snapshot[ID_INSTANCE_SIZE];
    uint8_t digest[HASH_SIZE];
    uint64_t bytes;
};
int priv_publish(struct priv_client *client, const char *instance, struct priv_published *ret,
                 struct error *err);
int priv_unstage(struct priv_client *client, const char *instance, struct error *err);
/* The one that follows `after` (NULL: the first); ret->snapshot is empty when there are no more. */
int priv_snapshots(struct priv_client *client, const char *after, struct priv_snapshot *ret,
                   struct error *err);
/* Gone is success. */
int priv_forget_snapshot(struct priv_client *client, const char *snapshot, struct error *err);

struct priv_killed {
    bool was_running, has_status;
    int status;
    uint32_t oom_kills;
};
/* `ret` may be NULL. */
int priv_kill(struct priv_client *client, const char *instance, struct priv_killed *ret,
              struct error *err);
int priv_list(struct priv_client *client, uint32_t index, struct priv_instance *ret,
              struct error *err);
/* ret->instance is empty when there are no more. */
int priv_drops(struct priv_client *client, uint32_t index, struct priv_drops *ret,
               struct error *err);

#endif
