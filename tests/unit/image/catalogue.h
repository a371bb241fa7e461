/* A catalogue in a directory of its own, made without the code under test. */
#ifndef MOTTE_TEST_CATALOGUE_H
#define MOTTE_TEST_CATALOGUE_H

#include "image/image.h"

struct catalogue {
    char path[40];
    int fd;
};

void catalogue_init(struct catalogue *catalogue); /* skips the test unless run by root */
void catalogue_release(struct catalogue *catalogue);
/* Writes a file (mode 0444) and the directories above it. */
void catalogue_write(const struct catalogue *catalogue, const char *path, const char *text);
/* Writes images/NAME with a disk of these bytes and a true manifest. */
void catalogue_image(const struct catalogue *catalogue, const char *name, const char *disk);
void catalogue_digest(const char *text, uint8_t out[static HASH_SIZE]);

#endif
