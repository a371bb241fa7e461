/* Lists with their pages, and what is deleted one by one. */
#include "cli/internal.h"

enum { PAGE = 500 };

static int list_path(const struct cli_call *call, const char *what, const char *const *filters,
                     const char *cursor, char **ret, struct error *err)
{
    struct buf path = {.max = 16384};
    int failed = buf_printf(&path, "/%s?limit=%d", what, PAGE);
    for (; *filters != NULL && failed == 0; filters++) {
        const char *value = cli_given(call, *filters);
        cleanup_free char *word = value != NULL ? cli_path("&%s=%s", *filters, value) : NULL;
        if (value != NULL)
            failed = word == NULL ? -1 : buf_append(&path, word, strlen(word));
    }
    if (failed == 0 && cursor != NULL)
        failed = buf_printf(&path, "&cursor=%s", cursor);
    *ret = path.data;
    return failed == 0 ? 0 : error_set(err, ERR_CONFIG, 0, "the label is too long");
}

/* Moves a page's entries to `all`; *ret_cursor is the next page's, or NULL. */
static int take_page(const cJSON *page, const char *what, cJSON *all, char **ret_cursor,
                     struct error *err)
{
    cJSON *entries = cJSON_GetObjectItemCaseSensitive(page, what);
    for (cJSON *entry; (entry = cJSON_DetachItemFromArray(entries, 0)) != NULL;)
        cJSON_AddItemToArray(all, entry);
    const char *next = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(page, "next_cursor"));
    free(*ret_cursor);
    *ret_cursor = next != NULL ? strdup(next) : NULL;
    return next == NULL || *ret_cursor != NULL
               ? 0
               : error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of %s", what);
}

cJSON *cli_list(const struct cli_call *call, const char *what, const char *const *filters,
                struct error *err)
{
    cleanup_json cJSON *all = cJSON_CreateObject();
    cJSON *entries = cJSON_AddArrayToObject(all, what);
    if (entries == NULL) {
        error_set(err, ERR_NO_MEMORY, 0, "out of memory for a list of %s", what);
        return NULL;
    }
    cleanup_free char *cursor = NULL;
    do {
        cleanup_free char *path = NULL;
        struct cli_answer cleanup_answer answer = {0};
        if (list_path(call, what, filters, cursor, &path, err) != 0 ||
            cli_get(call->cli, path, &answer, err) != 0 ||
            take_page(answer.json, what, entries, &cursor, err) != 0)
            return NULL;
    } while (cursor != NULL);
    return TAKE_PTR(all);
}

int cli_delete_all(const struct cli_call *call, const char *what, struct error *err)
{
    cJSON *problem = NULL; /* of the first that failed */
    for (size_t i = 0; i < call->count; i++) {
        struct error failure = {0};
        cleanup_free char *path = cli_path("/%s/%s", what, call->operands[i]);
        struct cli_request request = {.method = "DELETE", .path = path};
        int failed = path != NULL ? cli_http(call->cli, &request, NULL, &failure)
                                  : error_set(&failure, ERR_NO_MEMORY, 0, "out of memory");
        if (failed != 0 && err->code == ERR_NONE) {
            *err = failure;
            problem = TAKE_PTR(call->cli->problem);
        }
        if (failure.code == ERR_CANCELLED)
            break;
    }
    cJSON_Delete(call->cli->problem);
    call->cli->problem = problem;
    return err->code == ERR_NONE ? 0 : -1;
}

void cli_table_heads(struct cli_table *table, const char *const *heads, size_t count)
{
    table->columns = count;
    for (size_t i = 0; i < count; i++)
        cli_table_cell(table, CLI_BOLD, "%s", heads[i]);
}

int cli_table_finish(const struct cli *cli, const struct cli_table *table, struct error *err)
{
    if (table->failed)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a table");
    cli_table_print(cli, table, "\n");
    return 0;
}
