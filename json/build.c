/* Additions to an object that fail as one kind of failure: out of memory. */
#include "json/internal.h"

#include <math.h>

int json_add(cJSON *object, const char *name, cJSON *value)
{
    if (value != NULL && cJSON_AddItemToObject(object, name, value))
        return 0;
    cJSON_Delete(value);
    return -1;
}

int json_add_string(cJSON *object, const char *name, const char *value)
{
    if (value == NULL)
        return json_add(object, name, cJSON_CreateNull());
    return json_add_bytes(object, name, value, strlen(value));
}

int json_add_number(cJSON *object, const char *name, double value)
{
    /* cJSON prints 15 digits and takes a nearby result for the same: wrong from 10^15 on. */
    if (fabs(value) >= 1e15 && fabs(value) <= 9007199254740992.0 && value == trunc(value)) {
        char digits[32];
        snprintf(digits, sizeof(digits), "%.0f", value);
        return json_add(object, name, cJSON_CreateRaw(digits));
    }
    return json_add(object, name, cJSON_CreateNumber(value));
}

int json_add_bool(cJSON *object, const char *name, bool value)
{
    return json_add(object, name, cJSON_CreateBool(value));
}

int json_add_bytes(cJSON *object, const char *name, const void *data, size_t len)
{
    static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */
    enum { WIDTH = sizeof(replacement) - 1 };
    const uint8_t *from = data;
    if (len > SIZE_MAX / WIDTH - 1)
        return -1;
    cleanup_free char *text = malloc(WIDTH * len + 1);
    if (text == NULL)
        return -1;
    size_t at = 0;
    for (size_t i = 0; i < len;) {
        size_t n = from[i] == 0 ? 0 : json_utf8_char(from + i, len - i);
        memcpy(text + at, n == 0 ? (const uint8_t *)replacement : from + i, n == 0 ? WIDTH : n);
        at += n == 0 ? WIDTH : n;
        i += n == 0 ? 1 : n;
    }
    text[at] = '\0';
    return json_add(object, name, cJSON_CreateString(text));
}
