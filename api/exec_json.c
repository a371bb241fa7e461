/* A command that is watched, as clients see it. */
#include "api/internal.h"

static int add_number_or_null(cJSON *json, const char *name, bool known, double value)
{
    return json_add(json, name, known ? cJSON_CreateNumber(value) : cJSON_CreateNull());
}

static int add_end(cJSON *json, const struct vmm_exec_record *record)
{
    bool exited = record->state == VMM_EXEC_EXITED, lost = record->state == VMM_EXEC_LOST;
    bool signalled = record->exit.signal != 0;
    return add_number_or_null(json, "exit_code", exited && !signalled, record->exit.code) < 0 ||
                   add_number_or_null(json, "signal", exited && signalled, record->exit.signal) <
                       0 ||
                   json_add_bool(json, "timed_out", record->exit.timed_out) < 0 ||
                   json_add_bool(json, "oom_killed", record->exit.oom_killed) < 0 ||
                   json_add_bool(json, "killed", record->killed) < 0 ||
                   json_add_string(json, "reason", lost ? record->reason : NULL) < 0 ||
                   json_add_string(json, "message", lost ? record->message : NULL) < 0 ||
                   api_add_time(json, "ended_at", record->ended_wall_ms) < 0 ||
                   add_number_or_null(json, "duration_ms", exited || lost,
                                      (double)record->duration_ms) < 0
               ? -1
               : 0;
}

static int add_facts(cJSON *json, const struct vmm_exec_record *record)
{
    static const char *const states[] = {
        [VMM_EXEC_RUNNING] = "running", [VMM_EXEC_EXITED] = "exited", [VMM_EXEC_LOST] = "lost"};
    return json_add_string(json, "id", record->id) < 0 ||
                   json_add_string(json, "vm_id", record->vm) < 0 ||
                   json_add_string(json, "state", states[record->state]) < 0 ||
                   api_add_time(json, "started_at", record->started_wall_ms) < 0 ||
                   json_add_bool(json, "pty", record->pty) < 0 ||
                   json_add_number(json, "output_bytes", (double)record->output_to) < 0 ||
                   json_add_number(json, "output_dropped_bytes", (double)record->output_from) < 0 ||
                   json_add_number(json, "stdin_bytes", (double)record->input_bytes) < 0 ||
                   json_add_bool(json, "stdin_open", record->input_open) < 0
               ? -1
               : 0;
}

/* What is kept, from its oldest byte on, up to what there is now. */
static int read_output(struct vmm_exec *exec, struct buf *out, struct buf *err_out)
{
    char piece[4096];
    uint64_t at = 0;
    struct vmm_exec_record record;
    for (;;) {
        size_t len = 0;
        enum vmm_exec_news news =
            vmm_exec_read(exec, &at, piece, sizeof(piece), &len, &record, NULL);
        if (news == VMM_EXEC_NOTHING || news == VMM_EXEC_END)
            return 0;
        struct buf *buf = news == VMM_EXEC_STDERR ? err_out : out;
        if (len > buf->max - buf->len) /* it is written faster than it is read here */
            return 0;
        if (len > 0 && buf_append(buf, piece, len) < 0)
            return -1;
    }
}

static int add_output(cJSON *json, struct api *api, const struct vmm_exec_key *key)
{
    struct error gone = {0};
    struct vmm_exec *exec = NULL;
    struct buf out cleanup(buf_release) = {.max = VMM_EXEC_LOG_MAX};
    struct buf err_out cleanup(buf_release) = {.max = VMM_EXEC_LOG_MAX};
    if (vmm_exec_listen(api->vmm, key, &exec, &gone) == 0) {
        int result = read_output(exec, &out, &err_out);
        vmm_exec_unlisten(exec, NULL);
        if (result < 0)
            return -1;
    }
    return json_add_bytes(json, "stdout", out.data != NULL ? out.data : "", out.len) < 0
               ? -1
               : json_add_bytes(json, "stderr", err_out.data != NULL ? err_out.data : "",
                                err_out.len);
}

cJSON *api_exec_json(struct api *api, const struct vmm_exec_key *key,
                     const struct vmm_exec_record *record, bool output)
{
    cJSON *json = cJSON_CreateObject();
    if (json != NULL && (add_facts(json, record) < 0 || add_end(json, record) < 0 ||
                         (output && add_output(json, api, key) < 0))) {
        cJSON_Delete(json);
        return NULL;
    }
    return json;
}
