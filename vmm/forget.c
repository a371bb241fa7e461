/* Published snapshots that nobody can use any more. What the root half cannot take away at once is
 * tried again with each sweep; what is left at a stop is for the next start. */
#include "vmm/internal.h"

struct vmm_forgotten {
    struct vmm_forgotten *next;
    char snapshot[ID_INSTANCE_SIZE];
};

static void remember(struct vmm *vmm, struct vmm_forgotten *left)
{
    pthread_mutex_lock(&vmm->lock);
    left->next = vmm->forgotten;
    vmm->forgotten = left;
    pthread_mutex_unlock(&vmm->lock);
}

static struct vmm_forgotten *take_all(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    struct vmm_forgotten *all = vmm->forgotten;
    vmm->forgotten = NULL;
    pthread_mutex_unlock(&vmm->lock);
    return all;
}

/* Without memory for it, it is for the next start. */
static void note(struct vmm *vmm, const char *snapshot)
{
    struct vmm_forgotten *left = malloc(sizeof(*left));
    if (left == NULL)
        return;
    snprintf(left->snapshot, sizeof(left->snapshot), "%s", snapshot);
    remember(vmm, left);
}

int vmm_forget(struct vmm *vmm, const char *snapshot, struct error *err)
{
    if (priv_forget_snapshot(vmm->config.priv, snapshot, err) == 0)
        return 0;
    note(vmm, snapshot);
    return -1;
}

/* The row, if it is still there, is an ephemeral one's: the inventory did not take its end, or there
 * are still forks of it. */
static int drop(struct vmm *vmm, const char *snapshot)
{
    struct error ignored = {0};
    return store_ephemeral_remove(vmm->config.store, snapshot, &ignored) < 0
               ? -1
               : priv_forget_snapshot(vmm->config.priv, snapshot, &ignored);
}

void vmm_forget_ephemeral(struct vmm *vmm, const char *snapshot)
{
    if (drop(vmm, snapshot) < 0)
        note(vmm, snapshot);
}

void vmm_forget_again(struct vmm *vmm)
{
    struct vmm_forgotten *next;
    for (struct vmm_forgotten *left = take_all(vmm); left != NULL; left = next) {
        next = left->next;
        if (drop(vmm, left->snapshot) == 0)
            free(left);
        else
            remember(vmm, left);
    }
}

void vmm_forget_free(struct vmm *vmm)
{
    struct vmm_forgotten *next;
    for (struct vmm_forgotten *left = take_all(vmm); left != NULL; left = next) {
        next = left->next;
        free(left);
    }
}
