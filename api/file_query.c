/* The query of what is about the files of a VM: a path, and what else the route takes. */
#include "api/internal.h"

enum { MODE_DEFAULT = 0644, MODE_MAX = 07777 };

static int take_path(struct api_file_query *query, char *value, struct error *err)
{
    if (value[0] != '/')
        return error_set(err, ERR_QUERY, 0, "path: send an absolute path in the VM");
    if (!json_is_utf8(value, strlen(value)))
        return error_set(err, ERR_QUERY, 0, "path: use UTF-8");
    snprintf(query->path, sizeof(query->path), "%s", value);
    return 0;
}

static int take_mode(struct api_file_query *query, char *value, struct error *err)
{
    size_t len = strlen(value);
    unsigned long mode = strtoul(value, NULL, 8);
    if (len == 0 || len > 5 || strspn(value, "01234567") != len || mode > MODE_MAX)
        return error_set(err, ERR_QUERY, 0, "mode: use octal digits from 0 to 7777, such as 0644");
    query->mode = (uint32_t)mode;
    return 0;
}

static int take_bool(const char *name, const char *value, bool *ret, struct error *err)
{
    *ret = strcmp(value, "true") == 0;
    if (!*ret && strcmp(value, "false") != 0)
        return error_set(err, ERR_QUERY, 0, "%s: use true or false", name);
    return 0;
}

static int take_parents(struct api_file_query *query, char *value, struct error *err)
{
    return take_bool("parents", value, &query->parents, err);
}

static int take_recursive(struct api_file_query *query, char *value, struct error *err)
{
    return take_bool("recursive", value, &query->recursive, err);
}

static int take_digest(struct api_file_query *query, char *value, struct error *err)
{
    query->digest = strcmp(value, "sha-256") == 0;
    return query->digest ? 0 : error_set(err, ERR_QUERY, 0, "digest: use sha-256");
}

static int take_limit(struct api_file_query *query, char *value, struct error *err)
{
    uint64_t limit = 0;
    if (kv_number("limit", value, 1, VSOCK_LIST_MAX, &limit, err) < 0) {
        err->code = ERR_QUERY;
        return -1;
    }
    query->limit = (uint32_t)limit;
    return 0;
}

static int take_cursor(struct api_file_query *query, char *value, struct error *err)
{
    size_t len = strlen(value);
    uint8_t name[VSOCK_NAME_MAX];
    if (len == 0 || len >= sizeof(query->cursor) || hash_from_hex(value, name, len / 2) < 0)
        return error_set(err, ERR_QUERY, 0, "cursor: use the next_cursor of an earlier answer");
    memcpy(query->cursor, value, len + 1);
    return 0;
}

static const struct {
    enum api_file_parameter bit;
    const char *name;
    int (*take)(struct api_file_query *query, char *value, struct error *err);
} parameters[] = {
    {API_FILE_PATH, "path", take_path},          {API_FILE_MODE, "mode", take_mode},
    {API_FILE_PARENTS, "parents", take_parents}, {API_FILE_RECURSIVE, "recursive", take_recursive},
    {API_FILE_DIGEST, "digest", take_digest},    {API_FILE_LIMIT, "limit", take_limit},
    {API_FILE_CURSOR, "cursor", take_cursor},
};

static int refuse(const char *key, unsigned allowed, struct error *err)
{
    char names[80] = "";
    size_t len = 0;
    for (size_t i = 0; i < COUNT_OF(parameters); i++)
        if (allowed & parameters[i].bit)
            len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s", len > 0 ? ", " : "",
                                    parameters[i].name);
    return error_set(err, ERR_QUERY, 0, "this route takes no %s; it takes: %s", key, names);
}

static int take(struct api_file_query *query, const char *key, char *value, unsigned allowed,
                unsigned *seen, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        unsigned bit = parameters[i].bit;
        if (strcmp(key, parameters[i].name) != 0 || !(allowed & bit))
            continue;
        if (*seen & bit)
            return error_set(err, ERR_QUERY, 0, "%s: give it once", key);
        *seen |= bit;
        return parameters[i].take(query, value, err);
    }
    return refuse(key, allowed, err);
}

int api_file_query_parse(const char *text, unsigned allowed, struct api_file_query *ret,
                         struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    unsigned seen = 0;
    int more;
    *ret = (struct api_file_query){.mode = MODE_DEFAULT, .limit = API_PAGE_DEFAULT};
    while ((more = api_query_next(&text, key, value, err)) > 0)
        if (take(ret, key, value, allowed | API_FILE_PATH, &seen, err) < 0)
            return -1;
    if (more == 0 && ret->path[0] == '\0')
        return error_set(err, ERR_QUERY, 0, "path: send an absolute path in the VM");
    return more;
}
