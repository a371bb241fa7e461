/* The published snapshots, as they lie in their directory; and what must not lie there after a start.
 */
#include "priv/snapshot_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>

void priv_building_name(char out[static ID_INSTANCE_SIZE + 1], const char *instance)
{
    snprintf(out, ID_INSTANCE_SIZE + 1, ".%s", instance);
}

static int count_one(void *context, const char *snapshot, struct error *err)
{
    uint32_t *count = context;
    (void)snapshot;
    (void)err;
    ++*count;
    return 0;
}

int priv_snapshots_count(const struct priv_server *server, uint32_t *ret, struct error *err)
{
    return priv_each_name(server->snapshots, count_one, ret, err);
}

struct next {
    const char *after;
    char found[ID_INSTANCE_SIZE]; /* the least that is greater */
};

static int look_at(void *context, const char *snapshot, struct error *err)
{
    struct next *next = context;
    (void)err;
    if (strcmp(snapshot, next->after) > 0 &&
        (next->found[0] == '\0' || strcmp(snapshot, next->found) < 0))
        snprintf(next->found, sizeof(next->found), "%s", snapshot);
    return 0;
}

static void tell(const struct priv_server *server, const char *snapshot, struct priv_snapshot *ret,
                 struct error *err)
{
    struct priv_snapshot_meta meta;
    memcpy(ret->snapshot, snapshot, ID_INSTANCE_SIZE);
    if (priv_meta_read(server->snapshots, snapshot, &meta, NULL, err) < 0)
        return;
    memcpy(ret->instance, meta.instance, ID_INSTANCE_SIZE);
    ret->generation = meta.generation;
    ret->shape = meta.shape;
    memcpy(ret->image, meta.image, HASH_SIZE);
    memcpy(ret->digest, meta.digest, HASH_SIZE);
    ret->created_wall_ms = meta.created_wall_ms;
    for (size_t i = 0; i < PRIV_FILES; i++)
        ret->bytes += meta.files[i].allocated;
    (void)priv_meta_fits_host(server, &meta, err);
}

int priv_op_snapshots(struct priv_server *server, struct priv_instance_slot *slot,
                      const struct priv_request *request, struct priv_answer *answer,
                      struct error *err)
{
    (void)slot;
    struct next next = {.after = request->u.snapshots.after};
    for (;;) {
        struct error told = {0};
        struct priv_snapshot *out = &answer->reply.u.snapshots;
        next.found[0] = '\0';
        if (priv_each_name(server->snapshots, look_at, &next, err) < 0)
            return -1;
        if (next.found[0] == '\0')
            return 0;
        memset(out, 0, sizeof(*out));
        tell(server, next.found, out, &told);
        out->code = told.code;
        if (told.code == ERR_NONE || told.code == ERR_SNAPSHOT_MISMATCH ||
            told.code == ERR_SNAPSHOT_DAMAGED)
            return 0;
        if (told.code != ERR_SNAPSHOT_UNKNOWN) {
            *err = told;
            return -1;
        }
        memset(out, 0, sizeof(*out)); /* it went just now */
    }
}

/* Out of sight first, so that a LAUNCH sees all of it or nothing. */
int priv_op_forget_snapshot(struct priv_server *server, struct priv_instance_slot *slot,
                            const struct priv_request *request, struct priv_answer *answer,
                            struct error *err)
{
    char hidden[ID_INSTANCE_SIZE + 1];
    const char *snapshot = request->u.forget.snapshot;
    (void)slot;
    (void)answer;
    priv_building_name(hidden, snapshot);
    if (renameat(server->snapshots, snapshot, server->snapshots, hidden) < 0 && errno != ENOENT)
        return error_set(err, ERR_SYSTEM, errno, "removing snapshot %s", snapshot);
    if (fs_remove_tree(server->snapshots, hidden) < 0)
        return error_set(err, ERR_SYSTEM, errno, "removing snapshot %s", snapshot);
    priv_memory_prune(server, snapshot);
    return 0;
}

static int sweep(int dirfd, bool hidden_only, struct error *err)
{
    int copy = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (dir == NULL) {
        cleanup_close_func(&copy);
        return error_set(err, ERR_SYSTEM, errno, "reading a directory of snapshots");
    }
    const struct dirent *entry;
    while ((errno = 0, entry = readdir(dir)) != NULL) {
        bool self = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
        if (self || (hidden_only && entry->d_name[0] != '.'))
            continue;
        if (fs_remove_tree(dirfd, entry->d_name) < 0)
            break;
    }
    int error = errno;
    closedir(dir);
    return error == 0 ? 0 : error_set(err, ERR_SYSTEM, error, "removing unfinished snapshots");
}

int priv_snapshots_sweep(struct priv_server *server, struct error *err)
{
    if (sweep(server->staging, false, err) < 0)
        return -1;
    return sweep(server->snapshots, true, err);
}
