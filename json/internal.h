/* What the files of json/ share. */
#ifndef MOTTE_JSON_INTERNAL_H
#define MOTTE_JSON_INTERNAL_H

#include "json/json.h"

/* The length (1 to 4) of the well-formed UTF-8 character that `text` starts with, 0 if there is
 * none within `len` bytes. Overlong forms, surrogates and anything past U+10FFFF are none. */
size_t json_utf8_char(const uint8_t *text, size_t len);

/* Bytes of `text` that fit `max` without cutting a character: for messages that quote a caller. */
int json_utf8_clip(const char *text, int max);

/* Checks raw text against RFC 8259 with our limits, before cJSON sees it. 0 or -1 with ERR_JSON. */
int json_scan(const char *text, size_t len, struct error *err);

#endif
