/* VMs: which there are, and that they go. */
#include "cli/internal.h"

static void print_vm(struct cli_table *table, const cJSON *vm)
{
    const char *state = cli_text(vm, "state");
    char age[16], memory[16];
    cli_age(cli_text(vm, "created_at"), age);
    cli_size((uint64_t)cli_real(vm, "memory_mib") << 20, memory);
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(vm, "id"));
    cli_table_cell(table, cli_state_colour(state), "%s", state);
    cli_table_cell(table, CLI_PLAIN, "%s", cli_text(vm, "image"));
    cli_table_cell(table, CLI_PLAIN, "%.0f", cli_real(vm, "vcpus"));
    cli_table_cell(table, CLI_PLAIN, "%s", memory);
    cli_table_cell(table, CLI_FAINT, "%s", age);
}

static int print_table(const struct cli *cli, const cJSON *vms, struct error *err)
{
    static const char *const heads[] = {"ID", "STATE", "IMAGE", "VCPUS", "MEMORY", "AGE"};
    struct cli_table cleanup_table table = {0};
    cli_table_heads(&table, heads, COUNT_OF(heads));
    const cJSON *vm;
    cJSON_ArrayForEach(vm, vms) print_vm(&table, vm);
    return cli_table_finish(cli, &table, err);
}

/* The service takes one of each. */
static int check_once(const struct cli_call *call, const char *const *names, struct error *err)
{
    for (; *names != NULL; names++) {
        size_t count = 0;
        for (size_t i = 0; i < call->given_count; i++)
            count += strcmp(call->given[i].option->name, *names) == 0 ? 1 : 0;
        if (count > 1)
            return error_set(err, ERR_CONFIG, 0, "--%s is taken once", *names);
    }
    return 0;
}

int cli_ps(struct cli_call *call, struct error *err)
{
    static const char *const filters[] = {"label", "state", NULL};
    if (check_once(call, filters, err) != 0)
        return -1;
    cleanup_json cJSON *all = cli_list(call, "vms", filters, err);
    const cJSON *vms = cJSON_GetObjectItemCaseSensitive(all, "vms"), *vm;
    if (all == NULL)
        return -1;
    if (call->cli->json)
        return cli_print_json(all, err);
    if (cli_given(call, "quiet") == NULL)
        return print_table(call->cli, vms, err);
    cJSON_ArrayForEach(vm, vms) puts(cli_text(vm, "id"));
    return 0;
}

int cli_rm(struct cli_call *call, struct error *err)
{
    return cli_delete_all(call, "vms", err);
}
