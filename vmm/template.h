/* Snapshots of images and the templates they are made of: what their thread and spawns share. The structs
 * are guarded by the table's lock. */
#ifndef MOTTE_VMM_TEMPLATE_H
#define MOTTE_VMM_TEMPLATE_H

#include "vmm/internal.h"

/* For a snapshot of an image; what is remembered of it when it was fulfilled, or was not. */
struct vmm_wish {
    struct store_image_key key;
    struct vmm_spec *spec; /* owned; of the template to make. NULL: nobody waits for one */
    int64_t since_ms, failed_ms, not_before_ms;
    unsigned failures; /* in a row: to build it, or of what was built */
};

enum { VMM_WISHES_MAX = 32 };

struct vmm_templates {
    struct vmm_wish wishes[VMM_WISHES_MAX];
    struct vmm_wish *making;         /* or NULL, as the next four: of the template there is now */
    char instance[ID_INSTANCE_SIZE]; /* "": not known yet */
    bool unwanted, ended;            /* somebody needs its room; and is ending it */
    uint64_t turn;
    int64_t quiet_ms; /* none is begun before */
    bool stopping, started;
    pthread_cond_t wake;
    pthread_t thread;
};

/* ---- image_snapshot.c ---- */

/* Say of which kernel, its arguments and its scratch disk one is; the root half compares the first
 * alone. */
void vmm_image_labels(const struct image_kernel *kernel, char out[static STORE_KEY_LABELS_MAX]);
/* The one that a spawn of `spec` starts from; "": there is none, and one was asked for. */
void vmm_image_snapshot_find(struct vmm *vmm, const struct vmm_spec *spec,
                             char ret[static ID_INSTANCE_SIZE]);
/* It is of no use, REFUSED or FAILED: it goes, and another one is asked for. */
void vmm_image_snapshot_reject(struct vmm *vmm, const struct vmm_spec *spec, const char *snapshot,
                               enum vmm_image_event event, const struct error *why);
void vmm_image_snapshot_remove(struct vmm *vmm, const char *snapshot);
/* Removes those whose image or kernel is gone, and the least used beyond `keep`. */
void vmm_image_snapshots_trim(struct vmm *vmm, size_t keep);
/* At start, after what has no row was forgotten. */
void vmm_image_snapshots_recover(struct vmm *vmm);

/* ---- template.c ---- */

struct vmm_templates *vmm_templates_new(void); /* NULL: out of memory */
void vmm_templates_free(struct vmm_templates *templates);
int vmm_template_start(struct vmm *vmm, struct error *err);
void vmm_template_stop(struct vmm *vmm); /* ends the one that is made */
/* May a spawn of `spec` start from a snapshot of its image? */
bool vmm_template_serves(const struct vmm *vmm, const struct vmm_spec *spec);
struct store_image_key vmm_image_key(const struct vmm *vmm, const struct vmm_spec *spec);
/* A snapshot of its image is missing; `failed`: the last one was of no use, so there is time. */
void vmm_template_ask(struct vmm *vmm, const struct vmm_spec *spec, bool failed);
/* A caller's spawn needs room: ends the template, if there is one, and returns when nothing is left
 * of it. False: there is none. */
bool vmm_template_yield(struct vmm *vmm);

#endif
