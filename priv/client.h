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
};
int priv_launch(struct priv_client *client, const char *instance,
                const uint8_t image[static HASH_SIZE], struct priv_launched *ret,
                struct error *err);
/* The descriptor (caller closes) or -1. */
int priv_open(struct priv_client *client, const char *instance, enum priv_socket what,
              uint32_t port, struct error *err);
int priv_check(struct priv_client *client, const char *instance, struct error *err);
/* ret->name is empty when there are no more lines. */
int priv_report(struct priv_client *client, const char *instance, uint32_t index,
                struct priv_line *ret, struct error *err);
int priv_usage(struct priv_client *client, const char *instance, struct priv_usage *ret,
               struct error *err);

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
