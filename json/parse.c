/* Text to tree and back: our scan, cJSON's parser, then what only the tree can show. */
#include "json/internal.h"

#include <errno.h>
#include <math.h>

void json_cleanup(cJSON **json)
{
    int saved = errno;
    cJSON_Delete(*json);
    errno = saved;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Sorting keeps a hostile object with very many names from costing the square of them. */
static int refuse_duplicates(const cJSON *object, struct error *err)
{
    size_t count = 0;
    const cJSON *child = NULL;
    cJSON_ArrayForEach(child, object) count++;
    if (count < 2)
        return 0;
    cleanup_free const char **names = calloc(count, sizeof(*names));
    if (names == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading JSON");
    size_t at = 0;
    cJSON_ArrayForEach(child, object) names[at++] = child->string;
    qsort(names, count, sizeof(*names), by_text);
    for (size_t i = 1; i < count; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            return error_set(err, ERR_JSON, 0, "`%.*s` is given twice in one JSON object",
                             json_utf8_clip(names[i], 40), names[i]);
    return 0;
}

/* Recursion is bounded: json_scan has counted the depth. */
static int check_tree(const cJSON *value, struct error *err)
{
    if (cJSON_IsNumber(value) && !isfinite(value->valuedouble))
        return error_set(err, ERR_JSON, 0, "a number in the JSON text is out of range");
    if (cJSON_IsObject(value) && refuse_duplicates(value, err) < 0)
        return -1;
    const cJSON *child = NULL;
    cJSON_ArrayForEach(child, value) if (check_tree(child, err) < 0) return -1;
    return 0;
}

int json_parse(const char *text, size_t len, cJSON **ret, struct error *err)
{
    if (json_scan(text, len, err) < 0)
        return -1;
    cleanup_json cJSON *json = cJSON_ParseWithLengthOpts(text, len, NULL, false);
    if (json == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading JSON");
    if (check_tree(json, err) < 0)
        return -1;
    *ret = TAKE_PTR(json);
    return 0;
}

char *json_print(const cJSON *json)
{
    return cJSON_PrintUnformatted(json);
}
