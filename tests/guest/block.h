/* Sectors of virtio-blk devices (virtio 1.1, section 5.2), one request at a time, waiting. */
#ifndef MOTTE_TESTS_GUEST_BLOCK_H
#define MOTTE_TESTS_GUEST_BLOCK_H

#include "virtio.h"

enum { BLOCK_DISKS = 2, BLOCK_SECTOR = 512 };
enum { BLOCK_OK = 0, BLOCK_SILENT = 255 }; /* a status, besides the device's own */

struct block_disk {
    struct virtio_device device;
    bool started;
    struct virtio_queue queue;
    struct {
        uint32_t type, reserved;
        uint64_t sector;
    } request;
    uint8_t data[BLOCK_SECTOR];
    volatile uint8_t status;
};

/* Makes disk n ready; false when there is none. `disk` starts as zeroed memory. */
bool block_open(const char *cmdline, unsigned n, struct block_disk *disk);
/* Moves disk->data from or to sector 0; returns the status. */
uint8_t block_transfer(struct block_disk *disk, bool write);

#endif
