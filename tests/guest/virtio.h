/*
 * virtio over MMIO, version 2, split rings (virtio 1.1, sections 2.6 and 4.2). Devices are found on
 * the kernel command line, where Firecracker announces them as virtio_mmio.device=4K@ADDRESS:IRQ.
 */
#ifndef MOTTE_TESTS_GUEST_VIRTIO_H
#define MOTTE_TESTS_GUEST_VIRTIO_H

#include "guest.h"

enum { VIRTIO_BLOCK = 2, VIRTIO_VSOCK = 19, VIRTIO_QUEUE_MAX = 128 };
enum { VIRTIO_NEXT = 1, VIRTIO_WRITE = 2 }; /* flags of a descriptor */

struct virtio_device {
    volatile uint32_t *registers; /* in words */
    uint32_t irq;
};

struct virtio_desc {
    uint64_t address;
    uint32_t len;
    uint16_t flags, next;
};

struct virtio_queue {
    _Alignas(16) struct virtio_desc desc[VIRTIO_QUEUE_MAX];
    struct {
        uint16_t flags;
        volatile uint16_t index;
        uint16_t ring[VIRTIO_QUEUE_MAX];
    } avail;
    struct {
        _Alignas(4) uint16_t flags;
        volatile uint16_t index;
        struct {
            uint32_t id, len;
        } ring[VIRTIO_QUEUE_MAX];
    } used;
    uint16_t size, seen;
    uint16_t number; /* among the device's queues */
    bool kick;       /* something was pushed since the last notification */
};

/* The n-th device of a type; false when there is none. */
bool virtio_find(const char *cmdline, uint32_t type, unsigned n, struct virtio_device *ret);
/* From reset to FEATURES_OK; takes VERSION_1 and `features` (bits 0…31). Then the queues, then
 * virtio_ready(). */
void virtio_reset(const struct virtio_device *device, uint32_t features);
void virtio_queue_init(const struct virtio_device *device, struct virtio_queue *queue,
                       uint16_t number, uint16_t size);
void virtio_ready(const struct virtio_device *device);
uint64_t virtio_config(const struct virtio_device *device); /* the first 8 bytes */

/* Hands the chain that starts at `head` to the device, which hears of it at virtio_notify(). */
void virtio_push(struct virtio_queue *queue, uint16_t head);
void virtio_notify(const struct virtio_device *device, struct virtio_queue *queue);
/* The next chain that the device has done. */
bool virtio_pop(struct virtio_queue *queue, uint32_t *ret_head, uint32_t *ret_len);

#endif
