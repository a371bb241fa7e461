#include "virtio.h"

/* Registers, in words. */
enum {
    MAGIC = 0,
    VERSION = 1,
    DEVICE = 2,
    DRIVER_FEATURES = 8,
    DRIVER_FEATURES_SELECT = 9,
    QUEUE_SELECT = 12,
    QUEUE_SIZE = 14,
    QUEUE_READY = 17,
    QUEUE_NOTIFY = 20,
    STATUS = 28,
    QUEUE_DESC = 32,
    QUEUE_AVAIL = 36,
    QUEUE_USED = 40,
    CONFIG = 64,
};

enum { ACKNOWLEDGE = 1, DRIVER = 2, DRIVER_OK = 4, FEATURES_OK = 8 };

bool virtio_find(const char *cmdline, uint32_t type, unsigned n, struct virtio_device *ret)
{
    while ((cmdline = guest_find(cmdline, "virtio_mmio.device=4K@"))) {
        volatile uint32_t *registers = (volatile uint32_t *)(uintptr_t)guest_number(&cmdline);
        if (registers[MAGIC] != 0x74726976 || registers[VERSION] != 2 ||
            registers[DEVICE] != type || *cmdline != ':' || n--) {
            continue;
        }
        cmdline++;
        *ret = (struct virtio_device){registers, (uint32_t)guest_number(&cmdline)};
        return true;
    }
    return false;
}

void virtio_reset(const struct virtio_device *device, uint32_t features)
{
    volatile uint32_t *registers = device->registers;
    registers[STATUS] = 0;
    registers[STATUS] = ACKNOWLEDGE;
    registers[STATUS] = ACKNOWLEDGE | DRIVER;
    registers[DRIVER_FEATURES_SELECT] = 0;
    registers[DRIVER_FEATURES] = features;
    registers[DRIVER_FEATURES_SELECT] = 1;
    registers[DRIVER_FEATURES] = 1; /* VIRTIO_F_VERSION_1 */
    registers[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK;
}

/* The guest lies below 4 GiB: the upper halves of the addresses stay 0. */
void virtio_queue_init(const struct virtio_device *device, struct virtio_queue *queue,
                       uint16_t number, uint16_t size)
{
    volatile uint32_t *registers = device->registers;
    queue->number = number;
    queue->size = size;
    registers[QUEUE_SELECT] = number;
    registers[QUEUE_SIZE] = size;
    registers[QUEUE_DESC] = (uint32_t)(uintptr_t)queue->desc;
    registers[QUEUE_AVAIL] = (uint32_t)(uintptr_t)&queue->avail;
    registers[QUEUE_USED] = (uint32_t)(uintptr_t)&queue->used;
    registers[QUEUE_READY] = 1;
}

void virtio_ready(const struct virtio_device *device)
{
    device->registers[STATUS] = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;
}

uint64_t virtio_config(const struct virtio_device *device)
{
    return device->registers[CONFIG] | (uint64_t)device->registers[CONFIG + 1] << 32;
}

void virtio_push(struct virtio_queue *queue, uint16_t head)
{
    queue->avail.ring[queue->avail.index % queue->size] = head;
    guest_barrier();
    queue->avail.index++;
    queue->kick = true;
}

void virtio_notify(const struct virtio_device *device, struct virtio_queue *queue)
{
    if (queue->kick) {
        queue->kick = false;
        device->registers[QUEUE_NOTIFY] = queue->number;
    }
}

bool virtio_pop(struct virtio_queue *queue, uint32_t *ret_head, uint32_t *ret_len)
{
    if (queue->seen == queue->used.index) {
        return false;
    }
    guest_barrier();
    *ret_head = queue->used.ring[queue->seen % queue->size].id;
    *ret_len = queue->used.ring[queue->seen % queue->size].len;
    queue->seen++;
    return true;
}
