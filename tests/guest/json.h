/*
 * A JSON scanner over text that stays where it is: checks everything it passes, keeps nothing. Each
 * function moves the cursor behind what it read and returns false, with the cursor anywhere, when
 * the text is not that.
 */
#ifndef MOTTE_TESTS_GUEST_JSON_H
#define MOTTE_TESTS_GUEST_JSON_H

#include "guest.h"

struct json {
    const char *at, *end;
};

enum json_step { JSON_ELEMENT, JSON_END, JSON_BAD };

bool json_skip(struct json *json); /* any value, at most 16 levels deep */
/* Decoded into `to` with a NUL behind (the text may hold NULs too: *ret_len tells). `to` may be
 * NULL. */
bool json_string(struct json *json, char *to, size_t size, size_t *ret_len);
bool json_unsigned(struct json *json, uint64_t *ret); /* a whole number below 2^53 */
bool json_bool(struct json *json, bool *ret);
/* Enters an array or object: '[' or '{'. */
bool json_enter(struct json *json, char open);
/* Moves to the next element, or behind the end: ']' or '}'. `first` starts as true. */
enum json_step json_next(struct json *json, char close, bool *first);
/* The key of an object's member, up to its value. */
bool json_key(struct json *json, char *to, size_t size);
bool json_done(struct json *json); /* nothing but white space is left */

#endif
