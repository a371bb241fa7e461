/* Snapshots of images: which one a spawn starts from, and which of them go. A spawn never fails for
 * want of one. */
#include "vmm/template.h"

#include <errno.h>

void vmm_image_snapshot_remove(struct vmm *vmm, const char *snapshot)
{
    struct error ignored = {0}; /* it is found again, and refused again */
    if (store_image_snapshot_remove(vmm->config.store, snapshot, &ignored) < 0)
        return;
    ignored = (struct error){0};
    (void)vmm_forget(vmm, snapshot, &ignored);
}

void vmm_image_snapshot_find(struct vmm *vmm, const struct vmm_spec *spec,
                             char ret[static ID_INSTANCE_SIZE])
{
    const struct vmm_observer *observer = &vmm->config.observer;
    const struct store_image_key key = vmm_image_key(vmm, spec);
    struct error ignored = {0};
    ret[0] = '\0';
    (void)store_image_snapshot_find(vmm->config.store, &key, ret, &ignored);
    if (ret[0] != '\0')
        return;
    observer->image_snapshot(observer->context, VMM_IMAGE_MISSING, NULL);
    vmm_template_ask(vmm, spec, false);
}

void vmm_image_snapshot_reject(struct vmm *vmm, const struct vmm_spec *spec, const char *snapshot,
                               enum vmm_image_event event, const struct error *why)
{
    const struct vmm_observer *observer = &vmm->config.observer;
    observer->image_snapshot(observer->context, event, why);
    vmm_image_snapshot_remove(vmm, snapshot);
    vmm_template_ask(vmm, spec, true);
}

void vmm_image_labels(const struct image_kernel *kernel, char out[static STORE_KEY_LABELS_MAX])
{
    struct {
        uint8_t vmlinux[HASH_SIZE], initrd[HASH_SIZE], scratch[HASH_SIZE];
        char boot_args[IMAGE_BOOT_ARGS_MAX];
    } all = {0};
    uint8_t digest[HASH_SIZE];
    char hex[2 * HASH_SIZE + 1];
    memcpy(all.vmlinux, kernel->vmlinux, HASH_SIZE);
    if (kernel->has_initrd)
        memcpy(all.initrd, kernel->initrd, HASH_SIZE);
    if (kernel->has_scratch)
        memcpy(all.scratch, kernel->scratch, HASH_SIZE);
    snprintf(all.boot_args, sizeof(all.boot_args), "%s", kernel->boot_args);
    hash_sha256(&all, sizeof(all), digest);
    hash_to_hex(digest, HASH_SIZE, hex);
    snprintf(out, STORE_KEY_LABELS_MAX, "{\"kernel\":\"%s\"}", hex);
}

/* Nobody can ask for its image, or for its image with this kernel, any more. */
static bool stale(const struct vmm *vmm, const struct store_snapshot *snapshot)
{
    struct image image;
    struct image_kernel kernel;
    char labels[STORE_KEY_LABELS_MAX];
    struct error err = {0};
    if (image_find_digest(vmm->config.state_dir, snapshot->image_digest, &image, &err) < 0)
        return err.code == ERR_IMAGE_UNKNOWN;
    if (image_kernel_load(vmm->config.state_dir, image.kernel, &kernel, &err) < 0)
        return err.sys == ENOENT;
    vmm_image_labels(&kernel, labels);
    return strcmp(labels, snapshot->labels) != 0;
}

void vmm_image_snapshots_trim(struct vmm *vmm, size_t keep)
{
    cleanup_free struct store_snapshot *all = NULL;
    size_t count = 0, kept = 0;
    struct error ignored = {0}; /* the next time is as good */
    if (store_image_snapshots(vmm->config.store, &all, &count, &ignored) < 0)
        return;
    for (size_t i = 0; i < count; i++) {
        if (kept < keep && !stale(vmm, &all[i]))
            kept++;
        else
            vmm_image_snapshot_remove(vmm, all[i].id);
    }
}

void vmm_image_snapshots_recover(struct vmm *vmm)
{
    vmm_image_snapshots_trim(vmm, vmm->config.image_snapshots);
}
