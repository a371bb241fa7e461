/* VMs that are told something, and VMs and snapshots that are made of one. */
#include "cli/internal.h"

struct verb {
    const char *name, *what; /* of the path; and for the progress line */
    const cJSON *body;       /* or NULL; borrowed */
};

/* An interrupt is heeded once it is known what became of it: *ret_signal is not 0 then. */
static int tell(const struct cli_call *call, const char *vm, const struct verb *verb,
                struct cli_answer *ret, int *ret_signal, struct error *err)
{
    cleanup_free char *path = cli_path("/vms/%s/", vm);
    cleanup_free char *whole = NULL;
    if (path == NULL || asprintf(&whole, "%s%s", path, verb->name) < 0)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a path");
    struct cli_progress progress;
    cli_progress_begin(&progress, call->cli, verb->what, false);
    const struct cli_making making = {
        .path = whole, .body = verb->body, .progress = &progress, .ret_signal = ret_signal};
    int failed = cli_make(call->cli, &making, ret, err);
    cli_progress_end(&progress);
    return failed;
}

static int interrupted(int signal, struct error *err)
{
    return signal == 0 ? 0 : error_set(err, ERR_CANCELLED, 0, "interrupted when it was done");
}

/* Each VM; it ends with the first that does not do it. */
static int tell_all(const struct cli_call *call, const struct verb *verb, struct error *err)
{
    for (size_t i = 0; i < call->count; i++) {
        struct cli_answer cleanup_answer answer = {0};
        int signal = 0;
        if (tell(call, call->operands[i], verb, &answer, &signal, err) != 0 ||
            (call->cli->json && cli_print_json(answer.json, err) != 0) ||
            interrupted(signal, err) != 0)
            return -1;
    }
    return 0;
}

int cli_pause(struct cli_call *call, struct error *err)
{
    return tell_all(call, &(struct verb){"pause", "pausing", NULL}, err);
}

int cli_resume(struct cli_call *call, struct error *err)
{
    return tell_all(call, &(struct verb){"resume", "resuming", NULL}, err);
}

/* {"ttl_s": ..., "labels": {...}, `count`: ...}, as far as they are given. */
static cJSON *body_of(const struct cli_call *call, struct error *err)
{
    static const struct {
        const char *option, *member;
        uint64_t most;
    } numbers[] = {{"ttl", "ttl_s", 2592000}, {"count", "count", 1024}};
    cleanup_json cJSON *body = cJSON_CreateObject();
    for (size_t i = 0; i < COUNT_OF(numbers) && body != NULL; i++) {
        uint64_t value = 0;
        if (cli_given(call, numbers[i].option) == NULL)
            continue;
        if (cli_given_number(call, numbers[i].option, 0, numbers[i].most, &value, err) != 0)
            return NULL;
        if (json_add_number(body, numbers[i].member, (double)value) != 0)
            cJSON_Delete(TAKE_PTR(body));
    }
    if (body == NULL)
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for a request");
    else if (cli_given_pairs(call, "label", body, "labels", err) == 0)
        return TAKE_PTR(body);
    return NULL;
}

int cli_keepalive(struct cli_call *call, struct error *err)
{
    cleanup_json cJSON *body = body_of(call, err);
    if (body == NULL)
        return -1;
    return tell_all(call, &(struct verb){"keepalive", "prolonging", body}, err);
}

/* Makes something of the operand's VM and prints the ids of what was made: of `list`, or its own. */
static int make_of(const struct cli_call *call, struct verb *verb, const char *list,
                   struct error *err)
{
    cleanup_json cJSON *body = body_of(call, err);
    struct cli_answer cleanup_answer answer = {0};
    int signal = 0;
    verb->body = body;
    if (body == NULL || tell(call, call->operands[0], verb, &answer, &signal, err) != 0)
        return -1;
    const cJSON *made = cJSON_GetObjectItemCaseSensitive(answer.json, list), *one;
    if (call->cli->json) {
        if (cli_print_json(answer.json, err) != 0)
            return -1;
    } else if (made == NULL) {
        puts(cli_text(answer.json, "id"));
    } else {
        cJSON_ArrayForEach(one, made) puts(cli_text(one, "id"));
    }
    return interrupted(signal, err);
}

int cli_snapshot(struct cli_call *call, struct error *err)
{
    return make_of(call, &(struct verb){"snapshots", "taking a snapshot", NULL}, "", err);
}

int cli_fork(struct cli_call *call, struct error *err)
{
    return make_of(call, &(struct verb){"fork", "forking", NULL}, "vms", err);
}

/* ---- snapshots --------------------------------------------------------------------------------- */

static void print_snapshot(struct cli_table *table, const cJSON *snapshot)
{
    char age[16], memory[16], size[16];
    cli_age(cli_text(snapshot, "created_at"), age);
    cli_size((uint64_t)cli_real(snapshot, "memory_mib") << 20, memory);
    cli_size((uint64_t)cli_real(snapshot, "bytes"), size);
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(snapshot, "id"));
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(snapshot, "vm"));
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(snapshot, "image"));
    cli_table_cell(table, CLI_PLAIN, "%s", memory);
    cli_table_cell(table, CLI_PLAIN, "%s", size);
    cli_table_cell(table, CLI_FAINT, "%s", age);
}

int cli_snapshots(struct cli_call *call, struct error *err)
{
    static const char *const filters[] = {"label", NULL};
    static const char *const heads[] = {"ID", "OF", "IMAGE", "MEMORY", "SIZE", "AGE"};
    cleanup_json cJSON *all = cli_list(call, "snapshots", filters, err);
    const cJSON *list = cJSON_GetObjectItemCaseSensitive(all, "snapshots"), *one;
    if (all == NULL)
        return -1;
    if (call->cli->json)
        return cli_print_json(all, err);
    if (cli_given(call, "quiet") != NULL) {
        cJSON_ArrayForEach(one, list) puts(cli_text(one, "id"));
        return 0;
    }
    struct cli_table cleanup_table table = {0};
    cli_table_heads(&table, heads, COUNT_OF(heads));
    cJSON_ArrayForEach(one, list) print_snapshot(&table, one);
    return cli_table_finish(call->cli, &table, err);
}

int cli_snapshot_rm(struct cli_call *call, struct error *err)
{
    return cli_delete_all(call, "snapshots", err);
}
