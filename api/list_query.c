/* The query of a list: ?label=k=v&state=running&limit=50&cursor=… */
#include "api/internal.h"

static int take_limit(struct api_list_query *query, char *value, struct error *err)
{
    uint64_t limit = 0;
    if (kv_number("limit", value, 1, STORE_PAGE_MAX, &limit, err) < 0) {
        err->code = ERR_QUERY;
        return -1;
    }
    query->limit = (uint32_t)limit;
    return 0;
}

int api_take_state(const char *value, enum store_state *ret, struct error *err)
{
    if (store_state_parse(value, ret) < 0)
        return error_set(err, ERR_QUERY, 0,
                         "state: use creating, running, paused, deleting, failed, exited or lost");
    return 0;
}

static int take_state(struct api_list_query *query, char *value, struct error *err)
{
    return api_take_state(value, &query->state, err);
}

static int take_label(struct api_list_query *query, char *value, struct error *err)
{
    memcpy(query->label, value, strlen(value) + 1);
    char *equals = strchr(query->label, '=');
    query->label_key = query->label;
    if (equals != NULL) {
        *equals = '\0';
        query->label_value = equals + 1;
    }
    if (query->label[0] == '\0')
        return error_set(err, ERR_QUERY, 0, "label: use label=key or label=key=value");
    return 0;
}

static int take_cursor(struct api_list_query *query, char *value, struct error *err)
{
    if (!id_instance_valid(value))
        return error_set(err, ERR_QUERY, 0, "cursor: use the next_cursor of an earlier answer");
    snprintf(query->cursor, sizeof(query->cursor), "%s", value);
    return 0;
}

static const struct {
    const char *name;
    int (*take)(struct api_list_query *query, char *value, struct error *err);
} parameters[] = {
    {"limit", take_limit},
    {"state", take_state},
    {"label", take_label},
    {"cursor", take_cursor},
};

enum { STATELESS = 1 << 0 | 1 << 2 | 1 << 3, ALL = STATELESS | 1 << 1 }; /* bits by place */

static int take(struct api_list_query *query, const char *key, char *value, unsigned allowed,
                unsigned *seen, struct error *err)
{
    for (size_t i = 0; i < COUNT_OF(parameters); i++) {
        if (strcmp(key, parameters[i].name) != 0 || !(allowed & 1U << i))
            continue;
        if (*seen & 1U << i)
            return error_set(err, ERR_QUERY, 0, "%s: give it once", parameters[i].name);
        *seen |= 1U << i;
        return parameters[i].take(query, value, err);
    }
    return error_set(err, ERR_QUERY, 0,
                     allowed == ALL ? "this list takes label, state, limit and cursor only"
                                    : "this list takes label, limit and cursor only");
}

static int parse(const char *query, unsigned allowed, struct api_list_query *ret, struct error *err)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    unsigned seen = 0;
    size_t kept = 0;
    *ret = (struct api_list_query){.limit = API_PAGE_DEFAULT};
    const char *cursor = query != NULL ? query : "";
    for (;;) {
        const char *from = cursor + strspn(cursor, "&");
        int more = api_query_next(&cursor, key, value, err);
        if (more <= 0)
            return more;
        if (take(ret, key, value, allowed, &seen, err) < 0)
            return -1;
        if (strcmp(key, "cursor") == 0)
            continue;
        size_t len = (size_t)(cursor - from);
        memcpy(ret->kept + kept, from, len); /* a part of `query`, which is no longer than `kept` */
        kept += len;
        ret->kept[kept++] = '&';
        ret->kept[kept] = '\0';
    }
}

int api_list_query_parse(const char *query, struct api_list_query *ret, struct error *err)
{
    return parse(query, ALL, ret, err);
}

int api_snapshot_query_parse(const char *query, struct api_list_query *ret, struct error *err)
{
    return parse(query, STATELESS, ret, err);
}
