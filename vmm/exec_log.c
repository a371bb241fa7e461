/* The newest of what a command wrote, in pieces. */
#include "vmm/exec_log.h"

enum { PIECE_MIN = 512 /* room for the small writes that most programs make */ };

struct vmm_exec_chunk {
    struct vmm_exec_chunk *next;
    uint64_t at;
    enum wire_kind kind;
    size_t len, room;
    uint8_t data[];
};

static size_t memory_of(const struct vmm_exec_chunk *chunk)
{
    return sizeof(*chunk) + chunk->room;
}

static void drop_first(struct vmm_exec_log *log)
{
    struct vmm_exec_chunk *chunk = log->first;
    log->first = chunk->next;
    if (log->first == NULL)
        log->last = NULL;
    log->from = log->first != NULL ? log->first->at : log->to;
    log->memory -= memory_of(chunk);
    free(chunk);
}

void vmm_exec_log_clear(struct vmm_exec_log *log)
{
    while (log->first != NULL)
        drop_first(log);
}

void vmm_exec_log_trim(struct vmm_exec_log *log, size_t memory)
{
    while (log->memory > memory && log->first != log->last)
        drop_first(log);
}

static struct vmm_exec_chunk *add_chunk(struct vmm_exec_log *log, enum wire_kind kind, size_t len)
{
    size_t room = len < PIECE_MIN ? PIECE_MIN : len;
    struct vmm_exec_chunk *chunk = malloc(sizeof(*chunk) + room);
    if (chunk == NULL)
        return NULL;
    *chunk = (struct vmm_exec_chunk){.at = log->to, .kind = kind, .room = room};
    if (log->last != NULL)
        log->last->next = chunk;
    else
        log->first = chunk;
    log->last = chunk;
    log->memory += memory_of(chunk);
    return chunk;
}

int vmm_exec_log_append(struct vmm_exec_log *log, enum wire_kind kind, const uint8_t *data,
                        size_t len)
{
    struct vmm_exec_chunk *last = log->last;
    if (len == 0)
        return 0;
    if (last == NULL || last->kind != kind || last->room - last->len < len)
        last = add_chunk(log, kind, len);
    if (last == NULL) {
        log->to += len;
        vmm_exec_log_clear(log);
        log->from = log->to;
        return -1;
    }
    memcpy(last->data + last->len, data, len);
    last->len += len;
    log->to += len;
    return 0;
}

size_t vmm_exec_log_read(const struct vmm_exec_log *log, uint64_t at, enum wire_kind *ret_kind,
                         char *out, size_t size)
{
    const struct vmm_exec_chunk *chunk = log->first;
    while (chunk != NULL && chunk->at + chunk->len <= at)
        chunk = chunk->next;
    if (chunk == NULL)
        return 0;
    size_t skip = (size_t)(at - chunk->at), len = chunk->len - skip;
    len = len < size ? len : size;
    memcpy(out, chunk->data + skip, len);
    *ret_kind = chunk->kind;
    return len;
}
