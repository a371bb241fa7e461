/* `key = value` files: our configuration, image manifests. */
#include "base/base.h"

#include <ctype.h>
#include <errno.h>

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t len = strlen(text);
    while (len > 0 && isspace((unsigned char)text[len - 1]))
        text[--len] = '\0';
    return text;
}

int kv_parse(char *text, const char *where, kv_handler *handler, void *context, struct error *err)
{
    int number = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n")) != NULL;) {
        number++;
        char *key = trim(line);
        if (*key == '\0' || *key == '#')
            continue;
        char *equals = strchr(key, '=');
        if (equals == NULL)
            return error_set(err, ERR_CONFIG, 0, "%s:%d: expected `key = value`", where, number);
        *equals = '\0';
        if (handler(context, trim(key), trim(equals + 1), err) < 0)
            return error_wrap(err, "%s:%d", where, number);
    }
    return 0;
}

int kv_number(const char *key, const char *value, uint64_t min, uint64_t max, uint64_t *ret,
              struct error *err)
{
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (!isdigit((unsigned char)value[0]) || *end != '\0' || errno != 0 || number < min ||
        number > max)
        return error_set(err, ERR_CONFIG, 0, "%s: `%.40s` is not a number from %llu to %llu", key,
                         value, (unsigned long long)min, (unsigned long long)max);
    *ret = number;
    return 0;
}
