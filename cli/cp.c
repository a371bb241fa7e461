/* Copies: which side is which. */
#include "cli/cp.h"

char *cli_copy_path(const struct cli_copy *copy, const char *what, const char *name,
                    const char *query, struct error *err)
{
    cleanup_free char *whole = NULL, *path = NULL;
    char *out = NULL;
    if (asprintf(&whole, "%s%s", copy->there, name != NULL ? name : "") >= 0)
        path = cli_path("/vms/%s/%s?path=%s", copy->vm, what, whole);
    if (path != NULL && asprintf(&out, "%s%s", path, query) >= 0)
        return out;
    error_set(err, ERR_CONFIG, 0, "the path is too long");
    return NULL;
}

char *cli_copy_name(const char *path, struct error *err)
{
    size_t end = strlen(path), begin;
    while (end > 0 && path[end - 1] == '/')
        end--;
    for (begin = end; begin > 0 && path[begin - 1] != '/';)
        begin--;
    char *name = strndup(path + begin, end - begin);
    if (name != NULL && name[0] != '\0' && strcmp(name, ".") != 0 && strcmp(name, "..") != 0)
        return name;
    error_set(err, ERR_CONFIG, 0,
              "\"%.100s\" has no name to copy it by: say the target's whole name", path);
    free(name);
    return NULL;
}

int cli_copy_digest(const uint8_t hash[static HASH_SIZE], char out[static CLI_DIGEST_SIZE],
                    struct error *err)
{
    cleanup_free char *text = cli_to_base64(hash, HASH_SIZE);
    if (text == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for a digest");
    snprintf(out, CLI_DIGEST_SIZE, "sha-256=:%s:", text);
    return 0;
}

/* VM:PATH: *ret_path is behind the colon, or NULL: a path of this host. */
static char *vm_of(const char *operand, const char **ret_path)
{
    const char *colon = strchr(operand, ':');
    *ret_path = NULL;
    if (colon == NULL || !id_vm_valid(operand, (size_t)(colon - operand)))
        return NULL;
    *ret_path = colon + 1;
    return strndup(operand, (size_t)(colon - operand));
}

int cli_cp(struct cli_call *call, struct error *err)
{
    const char *paths[2];
    cleanup_free char *from = vm_of(call->operands[0], &paths[0]);
    cleanup_free char *to = vm_of(call->operands[1], &paths[1]);
    if ((from == NULL) == (to == NULL))
        return error_set(err, ERR_CONFIG, 0, "one of source and target is VM:PATH, and one is not");
    const char *here = call->operands[from == NULL ? 0 : 1];
    struct cli_copy copy = {.cli = call->cli,
                            .vm = from != NULL ? from : to,
                            .there = paths[from != NULL ? 0 : 1],
                            .here = strcmp(here, "-") != 0 ? here : NULL,
                            .recursive = cli_given(call, "recursive") != NULL,
                            .parents = cli_given(call, "parents") != NULL};
    cli_progress_begin(&copy.progress, call->cli, "copying", true);
    int failed = from != NULL ? cli_copy_receive(&copy, err) : cli_copy_send(&copy, err);
    cli_progress_end(&copy.progress);
    return failed;
}
