/* Strings come through identical or are refused: never cut, never mangled. */
#include "tests/unit/json/unicode.h"
#include "json/json.h"

#include <criterion/criterion.h>

/* A random string and one JSON spelling of it. */
struct sample {
    struct buf text, json;
    size_t places[64]; /* where in json a character begins */
    size_t count;
};

static void sample_make(struct sample *sample, struct random *random)
{
    *sample = (struct sample){.text.max = 1000, .json.max = 5000};
    buf_append(&sample->text, "", 0);
    buf_printf(&sample->json, "{\"k\":\"");
    sample->count = random_below(random, COUNT_OF(sample->places));
    for (size_t i = 0; i < sample->count; i++) {
        uint8_t bytes[4];
        uint32_t point = unicode_random(random);
        buf_append(&sample->text, bytes, unicode_encode(point, bytes));
        sample->places[i] = sample->json.len;
        unicode_spell(&sample->json, point, random);
    }
    buf_printf(&sample->json, "\"}");
}

static void sample_release(struct sample *sample)
{
    buf_release(&sample->text);
    buf_release(&sample->json);
}

static const char *value_of(const cJSON *json)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "k"));
}

Test(json, R06_R37_any_spelling_of_any_string_reads_as_that_string)
{
    struct random random = random_start();
    for (int round = 0; round < 20000; round++) {
        struct sample sample;
        sample_make(&sample, &random);
        cleanup_json cJSON *json = NULL;
        struct error err = {0};
        cr_assert_eq(json_parse(sample.json.data, sample.json.len, &json, &err), 0,
                     "%s: %s (seed %llu)", sample.json.data, err.msg,
                     (unsigned long long)random.seed);
        cr_assert_str_eq(value_of(json), sample.text.data, "%s (seed %llu)", sample.json.data,
                         (unsigned long long)random.seed);
        sample_release(&sample);
    }
}

Test(json, R06_R37_any_string_written_reads_back_identical)
{
    struct random random = random_start();
    for (int round = 0; round < 20000; round++) {
        struct sample sample;
        sample_make(&sample, &random);
        cleanup_json cJSON *out = cJSON_CreateObject(), *back = NULL;
        struct error err = {0};
        cr_assert_eq(json_add_string(out, "k", sample.text.data), 0);
        cr_assert_eq(json_add_string(out, sample.text.data, "as a name"), 0);
        cleanup_free char *text = json_print(out);
        bool twice = strcmp(sample.text.data, "k") == 0;
        cr_assert_eq(json_parse(text, strlen(text), &back, &err), twice ? -1 : 0,
                     "%s: %s (seed %llu)", text, err.msg, (unsigned long long)random.seed);
        if (!twice) {
            cr_assert_str_eq(value_of(back), sample.text.data, "seed %llu",
                             (unsigned long long)random.seed);
            cr_assert_str_eq(back->child->next->string, sample.text.data, "seed %llu",
                             (unsigned long long)random.seed);
        }
        sample_release(&sample);
    }
}

/* What no string may hold, as it stands between the quotes. */
static const struct {
    const char *bytes;
    size_t len;
} poison[] = {
#define P(text)                                                                                    \
    {                                                                                              \
        text, sizeof(text) - 1                                                                     \
    }
    P("\\u0000"),
    P("\0"),
    P("\x01"),
    P("\x1f"),
    P("\n"),
    P("\t"),
    P("\\ud800"),
    P("\\uDBFF"),
    P("\\udc00"),
    P("\\uDFFF"),
    P("\\ud800\\ud800"),
    P("\\ud800\\u0041"),
    P("\\udc00\\ud800"),
    P("\\ud800\\n"),
    P("\\ud83d\\x"),
    P("\\x41"),
    P("\\u12g"),
    P("\\u 123"),
    P("\\u+123"),
    P("\\U0041"),
    P("\\'"),
    P("\x80"),
    P("\xbf"),
    P("\xc0\x80"),
    P("\xc0\xaf"),
    P("\xc1\xbf"),
    P("\xe0\x80\x80"),
    P("\xe0\x9f\xbf"),
    P("\xed\xa0\x80"),
    P("\xed\xbf\xbf"),
    P("\xf0\x80\x80\x80"),
    P("\xf0\x8f\xbf\xbf"),
    P("\xf4\x90\x80\x80"),
    P("\xf5\x80\x80\x80"),
    P("\xf8\x88\x80\x80\x80"),
    P("\xfe"),
    P("\xff"),
    P("\xc3"),
    P("\xe2\x82"),
    P("\xf0\x9f\x98"),
    P("\xed\xa0\xbd\xed\xb8\x80"),
#undef P
};

static void refused(const char *json, size_t len, const char *what, uint64_t seed)
{
    char *exact = malloc(len); /* no byte after it: a sanitizer sees any read past the end */
    memcpy(exact, json, len);
    cJSON *parsed = NULL;
    struct error err = {0};
    cr_assert_eq(json_parse(exact, len, &parsed, &err), -1, "%s: taken (seed %llu)", what,
                 (unsigned long long)seed);
    cr_assert_eq(err.code, ERR_JSON, "%s: %s", what, err.msg);
    cr_assert_null(parsed);
    free(exact);
}

Test(json, R06_R37_one_bad_piece_anywhere_in_a_string_refuses_the_text)
{
    struct random random = random_start();
    for (int round = 0; round < 20000; round++) {
        struct sample sample;
        sample_make(&sample, &random);
        size_t which = random_below(&random, COUNT_OF(poison));
        /* Before a character, or before the closing quote. */
        size_t place = random_below(&random, sample.count + 1);
        size_t at = place < sample.count ? sample.places[place] : sample.json.len - 2;
        char joined[6000];
        memcpy(joined, sample.json.data, at);
        memcpy(joined + at, poison[which].bytes, poison[which].len);
        memcpy(joined + at + poison[which].len, sample.json.data + at, sample.json.len - at);
        char what[64];
        snprintf(what, sizeof(what), "piece %zu at %zu", which, at);
        refused(joined, sample.json.len + poison[which].len, what, random.seed);
        sample_release(&sample);
    }
}

Test(json, R06_each_bad_piece_alone_is_refused_in_values_and_in_names)
{
    for (size_t i = 0; i < COUNT_OF(poison); i++) {
        struct buf value = {.max = 100}, name = {.max = 100};
        buf_append(&value, "[\"", 2);
        buf_append(&value, poison[i].bytes, poison[i].len);
        buf_append(&value, "\"]", 2);
        buf_append(&name, "{\"", 2);
        buf_append(&name, poison[i].bytes, poison[i].len);
        buf_append(&name, "\":1}", 4);
        char what[32];
        snprintf(what, sizeof(what), "piece %zu", i);
        refused(value.data, value.len, what, 0);
        refused(name.data, name.len, what, 0);
        buf_release(&value);
        buf_release(&name);
    }
}

Test(json, R06_R37_bytes_become_text_with_every_valid_character_kept)
{
    struct random random = random_start();
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t len = random_below(&random, sizeof(bytes)), at = 0;
        for (size_t i = 0; i < len; i++)
            bytes[i] = (uint8_t)random_below(&random, 256);
        for (uint64_t i = random_below(&random, 8); i > 0 && len >= 8; i--) {
            uint8_t piece[4]; /* among them surrogates and numbers past U+10FFFF */
            size_t n = unicode_encode((uint32_t)random_below(&random, 0x1fffff), piece);
            memcpy(bytes + random_below(&random, len - 4), piece, n);
        }
        struct buf expected = {.max = 1000};
        buf_append(&expected, "", 0);
        while (at < len) {
            size_t n = unicode_slow_char(bytes + at, len - at);
            buf_append(&expected, n == 0 ? (const void *)"\xef\xbf\xbd" : bytes + at,
                       n == 0 ? 3 : n);
            at += n == 0 ? 1 : n;
        }
        cleanup_json cJSON *object = cJSON_CreateObject(), *back = NULL;
        struct error err = {0};
        cr_assert_eq(json_add_bytes(object, "k", bytes, len), 0);
        cleanup_free char *text = json_print(object);
        cr_assert_eq(json_parse(text, strlen(text), &back, &err), 0, "%s (seed %llu)", err.msg,
                     (unsigned long long)random.seed);
        cr_assert_str_eq(value_of(back), expected.data, "seed %llu",
                         (unsigned long long)random.seed);
        buf_release(&expected);
    }
}
