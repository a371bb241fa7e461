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

int vmm_forget(struct vmm *vmm, const char *snapshot, struct error *err)
{
    if (priv_forget_snapshot(vmm->config.priv, snapshot, err) == 0)
        return 0;
    struct vmm_forgotten *left = malloc(sizeof(*left));
    if (left == NULL)
        return -1;
    snprintf(left->snapshot, sizeof(left->snapshot), "%s", snapshot);
    remember(vmm, left);
    return -1;
}

void vmm_forget_again(struct vmm *vmm)
{
    struct vmm_forgotten *next;
    for (struct vmm_forgotten *left = take_all(vmm); left != NULL; left = next) {
        struct error ignored = {0};
        next = left->next;
        if (priv_forget_snapshot(vmm->config.priv, left->snapshot, &ignored) == 0)
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
