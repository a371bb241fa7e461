/* A struct from an object by a table of fields: deny by default, every refusal names its field. */
#include "json/internal.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>

/* The largest whole number all of whose neighbours a double tells apart: 2^53 - 1. */
static const double whole_max = 9007199254740991.0;

static int refuse_type(const struct json_field *field, struct error *err)
{
    static const char *const kinds[] = {
        [JSON_STRING] = "a string",    [JSON_TEXT] = "a string",      [JSON_BOOL] = "true or false",
        [JSON_U32] = "a whole number", [JSON_I64] = "a whole number", [JSON_ARRAY] = "an array",
        [JSON_OBJECT] = "an object",   [JSON_ANY] = "a value",
    };
    return error_set(err, ERR_FIELD_TYPE, 0, "`%s` must be %s", field->name, kinds[field->type]);
}

static int refuse_range(const struct json_field *field, const char *what, struct error *err)
{
    return error_set(err, ERR_FIELD_RANGE, 0, "`%s` must %s from %" PRId64 " to %" PRId64,
                     field->name, what, field->min, field->max);
}

static bool within(const struct json_field *field, int64_t value)
{
    return value >= field->min && value <= field->max;
}

static int decode_string(const cJSON *value, const struct json_field *field, char **out,
                         struct error *err)
{
    if (!cJSON_IsString(value))
        return refuse_type(field, err);
    bool text = field->type == JSON_TEXT;
    size_t len = text ? json_characters(value->valuestring) : strlen(value->valuestring);
    if (!within(field, (int64_t)len))
        return refuse_range(field, text ? "have a length in characters" : "have a length in bytes",
                            err);
    char *copy = strdup(value->valuestring);
    if (copy == NULL)
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory while reading `%s`", field->name);
    *out = copy;
    return 0;
}

static int decode_whole(const cJSON *value, const struct json_field *field, int64_t *ret,
                        struct error *err)
{
    if (!cJSON_IsNumber(value))
        return refuse_type(field, err);
    double number = value->valuedouble;
    if (isnan(number) || fabs(number) > whole_max)
        return refuse_range(field, "be", err);
    if (number != trunc(number))
        return refuse_type(field, err);
    if (!within(field, (int64_t)number))
        return refuse_range(field, "be", err);
    *ret = (int64_t)number;
    return 0;
}

static int decode_u32(const cJSON *value, const struct json_field *field, uint32_t *out,
                      struct error *err)
{
    int64_t number = 0;
    if (decode_whole(value, field, &number, err) < 0)
        return -1;
    if (number < 0 || number > UINT32_MAX)
        return refuse_range(field, "be", err);
    *out = (uint32_t)number;
    return 0;
}

static int decode_tree(const cJSON *value, const struct json_field *field, const cJSON **out,
                       struct error *err)
{
    if (field->type == JSON_ARRAY ? !cJSON_IsArray(value) : !cJSON_IsObject(value))
        return refuse_type(field, err);
    if (!within(field, cJSON_GetArraySize(value)))
        return refuse_range(field, "have a count", err);
    *out = value;
    return 0;
}

static int decode_field(const cJSON *value, const struct json_field *field, void *out,
                        struct error *err)
{
    void *member = (char *)out + field->offset;
    switch (field->type) {
    case JSON_STRING:
    case JSON_TEXT:
        return decode_string(value, field, member, err);
    case JSON_BOOL:
        if (!cJSON_IsBool(value))
            return refuse_type(field, err);
        *(bool *)member = cJSON_IsTrue(value);
        return 0;
    case JSON_U32:
        return decode_u32(value, field, member, err);
    case JSON_I64:
        return decode_whole(value, field, member, err);
    case JSON_ARRAY:
    case JSON_OBJECT:
        return decode_tree(value, field, member, err);
    case JSON_ANY:
        *(const cJSON **)member = value;
        return 0;
    }
    return error_set(err, ERR_INTERNAL, 0, "`%s` has no known type", field->name);
}

static size_t find_field(const char *name, const struct json_field *fields, size_t count)
{
    size_t i = 0;
    while (i < count && strcmp(fields[i].name, name) != 0)
        i++;
    return i;
}

static int refuse_unknown(const char *name, const struct json_field *fields, size_t count,
                          struct error *err)
{
    char known[160] = "";
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(known);
        snprintf(known + len, sizeof(known) - len, "%s%s", i == 0 ? "" : ", ", fields[i].name);
    }
    return error_set(err, ERR_FIELD_UNKNOWN, 0, "`%.*s` is not a known field; these are: %s",
                     json_utf8_clip(name, 48), name, known);
}

int json_decode(const cJSON *object, const struct json_field *fields, size_t count, void *out,
                struct error *err)
{
    assert(count <= 64);
    if (!cJSON_IsObject(object))
        return error_set(err, ERR_FIELD_TYPE, 0, "expected a JSON object");
    uint64_t seen = 0;
    const cJSON *value = NULL;
    cJSON_ArrayForEach(value, object)
    {
        size_t i = find_field(value->string, fields, count);
        if (i == count)
            return refuse_unknown(value->string, fields, count, err);
        if (seen & UINT64_C(1) << i)
            return error_set(err, ERR_JSON, 0, "`%s` is given twice", fields[i].name);
        if (decode_field(value, &fields[i], out, err) < 0)
            return -1;
        seen |= UINT64_C(1) << i;
    }
    for (size_t i = 0; i < count; i++)
        if (fields[i].required && !(seen & UINT64_C(1) << i))
            return error_set(err, ERR_FIELD_MISSING, 0, "`%s` is missing", fields[i].name);
    return 0;
}
