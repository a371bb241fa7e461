/* Random text and its JSON spellings, made without the code under test. */
#ifndef MOTTE_TEST_UNICODE_H
#define MOTTE_TEST_UNICODE_H

#include "base/base.h"
#include "tests/unit/base/random.h"

/* UTF-8 of any number up to 0x1fffff, surrogates and too large ones included; returns 1 to 4. */
size_t unicode_encode(uint32_t point, uint8_t out[static 4]);
/* A code point JSON strings can hold: no U+0000, no surrogate; ASCII, controls and edges often. */
uint32_t unicode_random(struct random *random);
/* Appends one spelling of a code point inside a JSON string, chosen at random: raw, short escape,
 * \u escape or surrogate pair, in either case of hex. */
void unicode_spell(struct buf *out, uint32_t point, struct random *random);
/* Whether bytes are well-formed UTF-8 without NUL: decodes naively, encodes again, compares. */
size_t unicode_slow_char(const uint8_t *bytes, size_t len);

#endif
