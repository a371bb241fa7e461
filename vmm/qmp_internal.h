/* A conversation with QEMU's monitor, between qmp.c and what has more to say there. */
#ifndef MOTTE_VMM_QMP_INTERNAL_H
#define MOTTE_VMM_QMP_INTERNAL_H

#include "vmm/internal.h"

enum { VMM_QMP_LINE_MAX = 131072 }; /* the registers of VMM_VCPUS_MAX processors */

/* What the last event told of a migration, which is how QEMU writes and reads snapshots. */
enum vmm_qmp_migration { VMM_QMP_QUIET, VMM_QMP_GOING, VMM_QMP_COMPLETED, VMM_QMP_FAILED };

struct qmp {
    int fd;
    int gone; /* readable: nobody wants an answer any more; or -1 */
    int64_t deadline_ms;
    enum vmm_qmp_migration migration;
    size_t len;
    char line[VMM_QMP_LINE_MAX];
};

/* Non-blocking. The descriptor or -1. */
int vmm_qmp_connect(int socket_fd /* O_PATH, borrowed */, struct error *err);
/* Greeting and capabilities done. NULL: see err. Freed with free(); `fd` is borrowed. */
struct qmp *vmm_qmp_open(int fd, int64_t deadline_ms, struct error *err);
/* The next line as JSON. */
int vmm_qmp_read(struct qmp *qmp, cJSON **ret, struct error *err);
/* `arguments`: JSON, or NULL. *ret (caller deletes; NULL: not wanted): what QEMU returned. */
int vmm_qmp_execute(struct qmp *qmp, const char *command, const char *arguments, cJSON **ret,
                    struct error *err);
/* It has a copy of the descriptor, by that name. */
int vmm_qmp_lend(struct qmp *qmp, int fd, const char *name, struct error *err);

/* qmp_snapshot.c: takes note of an event. */
void vmm_qmp_hear(struct qmp *qmp, const cJSON *line);

#endif
