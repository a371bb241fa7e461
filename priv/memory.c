/* See internal.h. */
#include "priv/snapshot_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>

struct priv_memory {
    struct priv_memory *next; /* the one that was asked for last comes first */
    char snapshot[ID_INSTANCE_SIZE];
    int fd;
};

_Static_assert(PRIV_MEMORY_SEALS == (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE),
               "all that there are");

int priv_memory_make(uint64_t size, struct error *err)
{
    cleanup_close int fd = memfd_create(PRIV_MEMORY_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return error_set(err, ERR_LAUNCH, errno, "making a file for the VM's memory");
    return TAKE_FD(fd);
}

static int load(struct priv_server *server, const struct priv_instance_slot *slot,
                const struct priv_restore *restore, struct error *err)
{
    const struct priv_copying copying = {server, slot};
    const uint64_t size = (uint64_t)slot->record.shape.memory_mib << 20;
    cleanup_close int fd = memfd_create(PRIV_MEMORY_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return error_set(err, ERR_LAUNCH, errno, "making a file for the snapshot's memory");
    if (priv_copy_pages(restore->files[PRIV_FILE_MEMORY], fd, size, false, &copying, err) < 0)
        return -1;
    if (fcntl(fd, F_ADD_SEALS, PRIV_MEMORY_SEALS) < 0)
        return error_set(err, ERR_LAUNCH, errno, "sealing the snapshot's memory");
    return TAKE_FD(fd);
}

/* Puts it first. */
static struct priv_memory *find(struct priv_server *server, const char *snapshot)
{
    for (struct priv_memory **at = &server->memories; *at != NULL; at = &(*at)->next) {
        struct priv_memory *found = *at;
        if (strcmp(found->snapshot, snapshot) != 0)
            continue;
        *at = found->next;
        found->next = server->memories;
        server->memories = found;
        return found;
    }
    return NULL;
}

static struct priv_memory *find_or_load(struct priv_server *server,
                                        const struct priv_instance_slot *slot,
                                        const struct priv_restore *restore, struct error *err)
{
    struct priv_memory *memory = find(server, restore->meta.snapshot);
    if (memory != NULL)
        return memory;
    memory = calloc(1, sizeof(*memory));
    if (memory == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for a snapshot");
        return NULL;
    }
    memory->fd = load(server, slot, restore, err);
    if (memory->fd < 0) {
        free(memory);
        return NULL;
    }
    memcpy(memory->snapshot, restore->meta.snapshot, sizeof(memory->snapshot));
    memory->next = server->memories;
    server->memories = memory;
    return memory;
}

int priv_memory_of(struct priv_server *server, const struct priv_instance_slot *slot,
                   const struct priv_restore *restore, struct error *err)
{
    pthread_mutex_lock(&server->memories_lock); /* who wants the same waits for it to be read */
    const struct priv_memory *memory = find_or_load(server, slot, restore, err);
    int fd = memory == NULL ? -1 : fcntl(memory->fd, F_DUPFD_CLOEXEC, 3);
    if (memory != NULL && fd < 0)
        error_set(err, ERR_LAUNCH, errno, "copying a descriptor");
    pthread_mutex_unlock(&server->memories_lock);
    priv_memory_prune(server, NULL);
    return fd;
}

static bool is_used(struct priv_server *server, const char *snapshot)
{
    bool used = false;
    pthread_mutex_lock(&server->lock);
    for (size_t i = 0; i < server->slot_count && !used; i++)
        used = strcmp(server->slots[i]->record.snapshot, snapshot) == 0;
    pthread_mutex_unlock(&server->lock);
    return used;
}

static void let_go(struct priv_memory **at)
{
    struct priv_memory *memory = *at;
    *at = memory->next;
    close(memory->fd);
    free(memory);
}

/* Who only tidies up does not wait while one is read: its reader does so when it has it. */
void priv_memory_prune(struct priv_server *server, const char *snapshot)
{
    if (snapshot != NULL)
        pthread_mutex_lock(&server->memories_lock);
    else if (pthread_mutex_trylock(&server->memories_lock) != 0)
        return;
    for (struct priv_memory **at = &server->memories; *at != NULL;) {
        bool forgotten = snapshot != NULL && strcmp((*at)->snapshot, snapshot) == 0;
        bool last = *at == server->memories;
        if (forgotten || (!last && !is_used(server, (*at)->snapshot)))
            let_go(at);
        else
            at = &(*at)->next;
    }
    pthread_mutex_unlock(&server->memories_lock);
}

void priv_memories_free(struct priv_server *server)
{
    while (server->memories != NULL)
        let_go(&server->memories);
}
