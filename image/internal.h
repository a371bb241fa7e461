/* What the files of image/ share. */
#ifndef MOTTE_IMAGE_INTERNAL_H
#define MOTTE_IMAGE_INTERNAL_H

#include "image/image.h"

#include <sys/stat.h>

/* ---- entry.c: directories and files that only root could have written ---- */

/* Opens BASE/NAME ("images" or "kernels") beneath the state directory. ENOENT is passed by
 * `err->sys`. Returns the descriptor or -1. */
int image_entry_open(int state, const char *base, const char *name, struct error *err);
/* Opens a file of an entry for reading: regular, root's, not writable by anybody else; no link. */
int image_entry_file(int entry, const char *file, struct stat *ret, struct error *err);

/* ---- manifest.c ---- */

/* Both read ENTRY/manifest; the name is already there. 0 or -1 with ERR_CONFIG. */
int image_manifest_image(int entry, struct image *ret, struct error *err);
int image_manifest_kernel(int entry, struct image_kernel *ret, struct error *err);

/* ---- verified.c ---- */

bool image_verified_has(struct image_verified *verified, const struct stat *st,
                        const uint8_t digest[static HASH_SIZE]);
/* Whether a later write must show in ctime. To be asked before the file is hashed. */
bool image_verified_settled(const struct stat *st);
void image_verified_add(struct image_verified *verified, const struct stat *st,
                        const uint8_t digest[static HASH_SIZE]);

#endif
