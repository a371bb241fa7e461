/* The ends of a command that callers hold: its input, its output, its end. */
#include "vmm/execs.h"

/* ---- end ---- */

static int wait_end(struct vmm *vmm, struct vmm_exec *exec, struct vmm_exec_record *ret)
{
    while (exec->record.state == VMM_EXEC_RUNNING)
        pthread_cond_wait(&vmm->execs->changed, &vmm->execs->lock);
    *ret = exec->record;
    return 0;
}

int vmm_exec_wait(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec_record *ret,
                  struct error *err)
{
    int result = -1;
    pthread_mutex_lock(&vmm->execs->lock);
    struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    if (exec != NULL) {
        exec->refs++;
        exec->waiters++;
        result = wait_end(vmm, exec, ret);
        exec->waiters--;
        vmm_exec_unref(exec);
    }
    pthread_mutex_unlock(&vmm->execs->lock);
    return result;
}

int vmm_exec_kill(struct vmm *vmm, const struct vmm_exec_key *key, struct error *err)
{
    struct vmm_exec_record ignored;
    int result = -1;
    pthread_mutex_lock(&vmm->execs->lock);
    struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    if (exec != NULL) {
        exec->refs++;
        if (exec->record.state == VMM_EXEC_RUNNING) {
            exec->record.killed = exec->orders.kill = true;
            vmm_exec_rouse(exec);
        }
        result = wait_end(vmm, exec, &ignored);
        vmm_exec_unref(exec);
    }
    pthread_mutex_unlock(&vmm->execs->lock);
    return result;
}

/* ---- input ---- */

/* Nothing in it is new. */
static bool is_repeated(const struct vmm_exec_record *record, uint64_t end, bool eof)
{
    return end <= record->input_bytes &&
           (!eof || (!record->input_open && end == record->input_bytes));
}

static int check_feed(const struct vmm_exec *exec, uint64_t offset, uint64_t end, struct error *err)
{
    const struct vmm_exec_record *record = &exec->record;
    if (record->state != VMM_EXEC_RUNNING)
        return error_set(err, ERR_EXEC_ENDED, 0, "the command has ended; it takes no input");
    if (!record->input_open)
        return error_set(err, ERR_EXEC_INPUT, 0, "the command's input has ended, after %llu bytes",
                         (unsigned long long)record->input_bytes);
    if (offset > record->input_bytes)
        return error_set(err, ERR_EXEC_INPUT, 0,
                         "bytes are missing: the command has %llu, these begin at %llu",
                         (unsigned long long)record->input_bytes, (unsigned long long)offset);
    if (end < record->input_bytes)
        return error_set(err, ERR_EXEC_INPUT, 0,
                         "the input cannot end at %llu: the command has %llu bytes",
                         (unsigned long long)end, (unsigned long long)record->input_bytes);
    return 0;
}

/* Makes the room of what was read free again. */
static int append(struct vmm_exec *exec, const char *data, size_t len, struct error *err)
{
    struct buf *input = &exec->input;
    if (exec->input_at > 0) {
        memmove(input->data, input->data + exec->input_at, input->len - exec->input_at);
        input->len -= exec->input_at;
        exec->input_at = 0;
    }
    if (len > input->max - input->len)
        return error_set(err, ERR_BUSY, 0,
                         "the command has %zu bytes of input still to read; at most %zu may wait",
                         input->len, input->max);
    if (len > 0 && buf_append(input, data, len) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a command's input");
    return 0;
}

static int feed(struct vmm_exec *exec, uint64_t offset, const char *data, size_t len, bool eof,
                struct error *err)
{
    struct vmm_exec_record *record = &exec->record;
    uint64_t end = offset + len;
    if (is_repeated(record, end, eof))
        return 0;
    if (check_feed(exec, offset, end, err) < 0)
        return -1;
    size_t known = (size_t)(record->input_bytes - offset);
    if (append(exec, data + known, len - known, err) < 0)
        return -1;
    record->input_bytes = end;
    record->input_open = !eof;
    vmm_exec_rouse(exec);
    return 0;
}

int vmm_exec_feed(struct vmm *vmm, const struct vmm_exec_key *key, uint64_t offset,
                  const char *data, size_t len, bool eof, struct vmm_exec_record *ret,
                  struct error *err)
{
    pthread_mutex_lock(&vmm->execs->lock);
    struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    int result = exec != NULL ? feed(exec, offset, data, len, eof, err) : -1;
    if (exec != NULL)
        *ret = exec->record;
    pthread_mutex_unlock(&vmm->execs->lock);
    return result;
}

int vmm_exec_resize(struct vmm *vmm, const struct vmm_exec_key *key, struct vsock_size size,
                    struct error *err)
{
    int result = -1;
    pthread_mutex_lock(&vmm->execs->lock);
    struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    if (exec != NULL && !exec->record.pty) {
        error_set(err, ERR_EXEC_NO_TERMINAL, 0, "the command was begun without `pty`");
    } else if (exec != NULL && exec->record.state != VMM_EXEC_RUNNING) {
        error_set(err, ERR_EXEC_ENDED, 0, "the command has ended");
    } else if (exec != NULL) {
        exec->orders.resize = true;
        exec->orders.size = size;
        vmm_exec_rouse(exec);
        result = 0;
    }
    pthread_mutex_unlock(&vmm->execs->lock);
    return result;
}

/* ---- output ---- */

int vmm_exec_listen(struct vmm *vmm, const struct vmm_exec_key *key, struct vmm_exec **ret,
                    struct error *err)
{
    pthread_mutex_lock(&vmm->execs->lock);
    struct vmm_exec *exec = vmm_exec_find(vmm, key, err);
    if (exec != NULL) {
        exec->refs++;
        *ret = exec;
    }
    pthread_mutex_unlock(&vmm->execs->lock);
    return exec != NULL ? 0 : -1;
}

static enum vmm_exec_news read_news(struct vmm_exec *exec, uint64_t *at, char *out, size_t size,
                                    size_t *ret_len, struct waker *waker)
{
    enum wire_kind kind = WIRE_STDOUT;
    if (*at < exec->log.from) {
        *at = exec->log.from;
        return VMM_EXEC_GAP;
    }
    *ret_len = *at < exec->log.to ? vmm_exec_log_read(&exec->log, *at, &kind, out, size) : 0;
    *at += *ret_len;
    if (*ret_len > 0)
        return kind == WIRE_STDOUT ? VMM_EXEC_STDOUT : VMM_EXEC_STDERR;
    if (exec->record.state != VMM_EXEC_RUNNING)
        return VMM_EXEC_END;
    if (waker != NULL)
        waker_add(&exec->waiting, waker);
    return VMM_EXEC_NOTHING;
}

enum vmm_exec_news vmm_exec_read(struct vmm_exec *exec, uint64_t *at, char *out, size_t size,
                                 size_t *ret_len, struct vmm_exec_record *ret_record,
                                 struct waker *waker)
{
    pthread_mutex_lock(&exec->vmm->execs->lock);
    enum vmm_exec_news news = read_news(exec, at, out, size, ret_len, waker);
    *ret_record = exec->record;
    pthread_mutex_unlock(&exec->vmm->execs->lock);
    return news;
}

void vmm_exec_unlisten(struct vmm_exec *exec, struct waker *waker)
{
    struct vmm_execs *execs = exec->vmm->execs;
    pthread_mutex_lock(&execs->lock);
    if (waker != NULL)
        waker_remove(waker);
    vmm_exec_unref(exec);
    pthread_mutex_unlock(&execs->lock);
}
