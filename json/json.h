/*
 * json: JSON in and out through cJSON only, with what cJSON leaves open closed: depth and size
 * caps, duplicate keys, U+0000, invalid UTF-8, lone surrogates, trailing bytes, numbers out of
 * range. Field tables make a decoder of a struct: unknown fields, wrong types and ranges get an
 * error that names the field.
 */
#ifndef MOTTE_JSON_H
#define MOTTE_JSON_H

#include "base/base.h"
#include <cjson/cJSON.h>

enum { JSON_DEPTH_MAX = 16 };

#define cleanup_json cleanup(json_cleanup)
void json_cleanup(cJSON **json);

/* Parses exactly one JSON text of `len` bytes. Refuses (ERR_JSON): invalid UTF-8, U+0000 or a lone
 * surrogate in any string (raw or escaped), duplicate keys, depth over JSON_DEPTH_MAX, anything
 * after the text. Caller frees. */
int json_parse(const char *text, size_t len, cJSON **ret, struct error *err);

/* Could it stand in a JSON string as it is? */
bool json_is_utf8(const char *text, size_t len);
/* How many characters (code points) UTF-8 has: what JSON Schema counts in minLength and maxLength. */
size_t json_characters(const char *utf8);

/* Unformatted text, malloc'ed, NUL-terminated; NULL when out of memory. */
char *json_print(const cJSON *json);

/* ---- decode by field table ---- */

enum json_type {
    JSON_STRING, /* char *: malloc'ed copy; NULL stays when absent */
    JSON_TEXT,   /* the same, its length in characters, as JSON Schema has it */
    JSON_BOOL,   /* bool */
    JSON_U32,    /* uint32_t, whole number within [min, max] */
    JSON_I64,    /* int64_t, whole number within [min, max] and ±(2^53 - 1) */
    JSON_ARRAY,  /* const cJSON *: borrowed from the input */
    JSON_OBJECT, /* const cJSON *: borrowed from the input */
    JSON_ANY,    /* const cJSON *: borrowed from the input */
};

struct json_field {
    const char *name;
    enum json_type type;
    size_t offset; /* offsetof the member in the decoded struct */
    bool required;
    int64_t min, max; /* numbers: the value; strings: the length; arrays, objects: count */
};

/* Decodes an object into `out` (already holding defaults). Errors: ERR_FIELD_UNKNOWN,
 * ERR_FIELD_TYPE, ERR_FIELD_RANGE, ERR_FIELD_MISSING, each naming the field. On error, strings
 * already decoded stay in `out`: free them as after success. */
int json_decode(const cJSON *object, const struct json_field *fields, size_t count, void *out,
                struct error *err);

/* ---- build: thin wrappers that turn "out of memory" into one check at the end ---- */

/* Each returns 0 or -1 (out of memory). A failed add leaves the object valid. Strings that are not
 * UTF-8 (a message cut in the middle of a character) are mended as by json_add_bytes. */
int json_add_string(cJSON *object, const char *name, const char *value /* NULL: JSON null */);
int json_add_number(cJSON *object, const char *name, double value);
int json_add_bool(cJSON *object, const char *name, bool value);
/* Bytes that may not be UTF-8 (command output): invalid sequences and NUL become U+FFFD. */
int json_add_bytes(cJSON *object, const char *name, const void *data, size_t len);
/* Takes `value` in any case (frees it on failure). */
int json_add(cJSON *object, const char *name, cJSON *value);

#endif
