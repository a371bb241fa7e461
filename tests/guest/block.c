#include "block.h"

/* Whichever is over first; the turns count where there is no clock. */
enum { PATIENCE_MS = 1000, PATIENCE_TURNS = 100000000 };
enum { TYPE_READ = 0, TYPE_WRITE = 1 };

/* Once only: Firecracker does not let a driver reset an active device. */
bool block_open(const char *cmdline, unsigned n, struct block_disk *disk)
{
    if (disk->started) {
        return true;
    }
    if (!virtio_find(cmdline, VIRTIO_BLOCK, n, &disk->device)) {
        return false;
    }
    virtio_reset(&disk->device, 0);
    virtio_queue_init(&disk->device, &disk->queue, 0, 4);
    virtio_ready(&disk->device);
    disk->started = true;
    return true;
}

uint8_t block_transfer(struct block_disk *disk, bool write)
{
    struct virtio_desc *desc = disk->queue.desc;
    uint32_t head, len;
    disk->request.type = write ? TYPE_WRITE : TYPE_READ;
    disk->request.sector = 0;
    disk->status = BLOCK_SILENT;
    desc[0] =
        (struct virtio_desc){(uintptr_t)&disk->request, sizeof(disk->request), VIRTIO_NEXT, 1};
    desc[1] = (struct virtio_desc){(uintptr_t)disk->data, BLOCK_SECTOR,
                                   (uint16_t)(VIRTIO_NEXT | (write ? 0 : VIRTIO_WRITE)), 2};
    desc[2] = (struct virtio_desc){(uintptr_t)&disk->status, 1, VIRTIO_WRITE, 0};
    virtio_push(&disk->queue, 0);
    virtio_notify(&disk->device, &disk->queue);
    uint64_t deadline = guest_clock_ms() + PATIENCE_MS;
    for (uint32_t turn = 0; !virtio_pop(&disk->queue, &head, &len); turn++) {
        if (guest_clock_ms() > deadline || turn == PATIENCE_TURNS) {
            return BLOCK_SILENT;
        }
        __builtin_ia32_pause();
    }
    return disk->status;
}
