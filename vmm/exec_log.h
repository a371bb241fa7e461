/* What a command wrote, as far as it is kept: the newest bytes of both its streams, in the order in
 * which they came, each at its place in all that it ever wrote. Not thread-safe. */
#ifndef MOTTE_VMM_EXEC_LOG_H
#define MOTTE_VMM_EXEC_LOG_H

#include "vmm/vmm.h"

struct vmm_exec_log { /* zero-initialise */
    struct vmm_exec_chunk *first, *last;
    uint64_t from, to; /* places: of the oldest byte that is kept, and of the next that comes */
    size_t memory;     /* that it takes */
};
/* On -1 (out of memory) the bytes are lost, and so is what was kept before them: there are no holes. */
int vmm_exec_log_append(struct vmm_exec_log *log, enum wire_kind kind, const uint8_t *data,
                        size_t len);
/* Forgets the oldest until it takes `memory` at most, but never the newest piece. */
void vmm_exec_log_trim(struct vmm_exec_log *log, size_t memory);
void vmm_exec_log_clear(struct vmm_exec_log *log);
/* Copies at most `size` bytes of one stream from the place `at` on, from ≤ at ≤ to. 0: that is all. */
size_t vmm_exec_log_read(const struct vmm_exec_log *log, uint64_t at, enum wire_kind *ret_kind,
                         char *out, size_t size);

#endif
