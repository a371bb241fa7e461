/* The request target: what is refused, and that nothing else gets through (R10). */
#include "api/internal.h"

#include <criterion/criterion.h>

static enum error_code parse(const char *raw, struct api_target *target)
{
    struct error err = {0};
    return api_target_parse(raw, target, &err) == 0 ? ERR_NONE : err.code;
}

Test(api_target, splits_path_and_query)
{
    struct api_target target;
    cr_assert_eq(parse("/vms?label=a=b&limit=5", &target), ERR_NONE);
    cr_assert_str_eq(target.path, "/vms");
    cr_assert_str_eq(target.query, "label=a=b&limit=5");
    cr_assert_eq(parse("/vms/a", &target), ERR_NONE);
    cr_assert_str_eq(target.query, "");
    cr_assert_eq(parse("/", &target), ERR_NONE);
}

Test(api_target, R10_refuses_what_two_readers_could_read_differently)
{
    static const char *const bad[] = {
        "",          "vms",         "http://h/vms", "*",
        "//",        "/vms//a",     "//vms",        "/./vms",
        "/vms/.",    "/vms/..",     "/../vms",      "/vms/../../etc/passwd",
        "/vms/%61",  "/vms/%2e%2e", "/vms/%00",     "/vms/a%2Fb",
        "/vms/a\\b", "/vms/a b",    "/vms/\x01",    "/vms/\xc3\xa9",
        "/vms/a#b",  "/vms/\"",     "/vms/<a>",     "/vms?a=\xff",
        "/vms?a= b",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        struct api_target target;
        cr_assert_eq(parse(bad[i], &target), ERR_BAD_REQUEST, "`%s`", bad[i]);
    }
}

Test(api_target, takes_exactly_its_maximum)
{
    char raw[API_TARGET_MAX + 2];
    struct api_target target;
    memset(raw, 'a', sizeof(raw));
    raw[0] = '/';
    raw[API_TARGET_MAX + 1] = '\0';
    cr_assert_eq(parse(raw, &target), ERR_TARGET_TOO_LONG);
    raw[API_TARGET_MAX] = '\0';
    cr_assert_eq(parse(raw, &target), ERR_NONE);
    cr_assert_eq(strlen(target.path), API_TARGET_MAX);
}

/* Told another way than the code does: split at '/', look at each segment. */
static bool path_is_plain(const char *path)
{
    char copy[64];
    snprintf(copy, sizeof(copy), "%s", path);
    if (copy[0] != '/' || strchr(copy, '%') != NULL)
        return false;
    for (const char *at = copy; *at != '\0'; at++)
        if (*at <= ' ' || *at > '~' || strchr("\"<>\\^`{|}#[]", *at) != NULL)
            return false;
    char *rest = copy + 1, *segment = NULL;
    while ((segment = strsep(&rest, "/")) != NULL)
        if (strcmp(segment, ".") == 0 || strcmp(segment, "..") == 0 ||
            (segment[0] == '\0' && rest != NULL))
            return false;
    return true;
}

Test(api_target, R37_random_targets_pass_only_when_plain)
{
    static const char alphabet[] = "//..a%2eB_-\\?&#\x01\xff ~";
    unsigned seed = (unsigned)clock_mono_us();
    cr_log_info("seed %u", seed);
    for (int round = 0; round < 200000; round++) {
        char raw[24], path[24];
        size_t len = (size_t)rand_r(&seed) % (sizeof(raw) - 1);
        for (size_t i = 0; i < len; i++)
            raw[i] = alphabet[(size_t)rand_r(&seed) % (sizeof(alphabet) - 1)];
        if (len > 0 && rand_r(&seed) % 4 != 0)
            raw[0] = '/';
        raw[len] = '\0';
        snprintf(path, sizeof(path), "%.*s", (int)strcspn(raw, "?"), raw);
        struct api_target target;
        bool passed = parse(raw, &target) == ERR_NONE;
        if (strchr(raw, '?') == NULL)
            cr_assert_eq(passed, path_is_plain(path), "`%s` seed %u", raw, seed);
        if (passed) {
            cr_assert(path_is_plain(target.path), "`%s` seed %u", raw, seed);
            cr_assert_str_eq(target.path, path);
        }
    }
}

/* ---- query ---- */

Test(api_query, decodes_as_forms_do)
{
    char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
    struct error err = {0};
    const char *cursor = "label=a%3Db+c&&x&y=%E2%82%AC";
    cr_assert_eq(api_query_next(&cursor, key, value, &err), 1);
    cr_assert_str_eq(key, "label");
    cr_assert_str_eq(value, "a=b c");
    cr_assert_eq(api_query_next(&cursor, key, value, &err), 1);
    cr_assert_str_eq(key, "x");
    cr_assert_str_eq(value, "");
    cr_assert_eq(api_query_next(&cursor, key, value, &err), 1);
    cr_assert_str_eq(value, "\xe2\x82\xac");
    cr_assert_eq(api_query_next(&cursor, key, value, &err), 0);
}

Test(api_query, refuses_bad_escapes_nul_and_what_does_not_fit)
{
    char long_key[64], long_value[API_QUERY_VALUE_SIZE + 10];
    memset(long_key, 'k', sizeof(long_key));
    long_key[sizeof(long_key) - 1] = '\0';
    memset(long_value, 'v', sizeof(long_value));
    memcpy(long_value, "a=", 2);
    long_value[sizeof(long_value) - 1] = '\0';
    const char *const bad[] = {"a=%",   "a=%4",  "a=%zz",  "a=%00",
                               "%0g=1", "a=%-1", long_key, long_value};
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        char key[API_QUERY_KEY_SIZE], value[API_QUERY_VALUE_SIZE];
        struct error err = {0};
        const char *cursor = bad[i];
        cr_assert_eq(api_query_next(&cursor, key, value, &err), -1, "%s", bad[i]);
        cr_assert_eq(err.code, ERR_QUERY);
    }
}

/* ---- the list's query ---- */

static enum error_code list(const char *text, struct api_list_query *query)
{
    struct error err = {0};
    return api_list_query_parse(text, query, &err) == 0 ? ERR_NONE : err.code;
}

Test(api_list_query, takes_each_parameter_once_and_nothing_else)
{
    struct api_list_query query;
    cr_assert_eq(list("", &query), ERR_NONE);
    cr_assert_eq(query.limit, API_PAGE_DEFAULT);
    cr_assert_null(query.label_key);
    cr_assert_eq(list("label=run%3D4=2&state=running&limit=7&cursor=abcdefghij234567abcd", &query),
                 ERR_NONE);
    cr_assert_str_eq(query.label_key, "run");
    cr_assert_str_eq(query.label_value, "4=2");
    cr_assert_eq(query.state, STORE_RUNNING);
    cr_assert_eq(query.limit, 7);
    cr_assert_str_eq(query.cursor, "abcdefghij234567abcd");
    cr_assert_eq(list("label=run", &query), ERR_NONE);
    cr_assert_null(query.label_value);
    static const char *const bad[] = {"limit=0",
                                      "limit=501",
                                      "limit=-1",
                                      "limit=1x",
                                      "limit=",
                                      "state=",
                                      "state=Running",
                                      "state=gone",
                                      "label=",
                                      "label==v",
                                      "cursor=",
                                      "cursor=../x",
                                      "cursor=ABCDEFGHIJ234567ABCD",
                                      "owner=root",
                                      "limit=1&limit=2",
                                      "Limit=1",
                                      "=1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(list(bad[i], &query), ERR_QUERY, "%s", bad[i]);
}

Test(api_list_query, keeps_all_but_the_cursor_for_the_next_page)
{
    struct api_list_query query;
    cr_assert_eq(list("&cursor=abcdefghij234567abcd&label=a%3Db&&limit=2&", &query), ERR_NONE);
    cr_assert_str_eq(query.kept, "label=a%3Db&limit=2&");
}

Test(api_list_query, the_longest_query_fits)
{
    char raw[API_TARGET_MAX + 1] = "/?";
    struct api_target target;
    struct api_list_query query;
    memset(raw + 2, '&', sizeof(raw) - 3);
    memcpy(raw + sizeof(raw) - 1 - strlen("state=lost"), "state=lost", strlen("state=lost") + 1);
    cr_assert_eq(parse(raw, &target), ERR_NONE);
    cr_assert_eq(list(target.query, &query), ERR_NONE);
    cr_assert_eq(query.state, STORE_LOST);
    cr_assert_str_eq(query.kept, "state=lost&");
}

static enum error_code page(const char *text, struct api_list_query *query, struct error *err)
{
    *err = (struct error){0};
    return api_snapshot_query_parse(text, query, err) == 0 ? ERR_NONE : err->code;
}

/* /snapshots. */
Test(api_list_query, a_list_without_states_takes_none)
{
    struct api_list_query query;
    struct error err;
    cr_assert_eq(page("", &query, &err), ERR_NONE);
    cr_assert_eq(query.limit, API_PAGE_DEFAULT);
    cr_assert_str_eq(query.cursor, "");
    cr_assert_eq(page("limit=7&cursor=abcdefghij234567abcd", &query, &err), ERR_NONE);
    cr_assert_eq(query.limit, 7);
    cr_assert_str_eq(query.cursor, "abcdefghij234567abcd");
    cr_assert_str_eq(query.kept, "limit=7&");
    static const char *const bad[] = {
        "label=",          "state=running",      "limit=0",    "limit=501",  "cursor=../x",
        "limit=1&limit=2", "limit=1&state=lost", "owner=root", "ephemeral=1"};
    for (size_t i = 0; i < COUNT_OF(bad); i++)
        cr_assert_eq(page(bad[i], &query, &err), ERR_QUERY, "%s", bad[i]);
    cr_assert_eq(page("label=run=42", &query, &err), ERR_NONE);
    cr_assert(strcmp(query.label_key, "run") == 0 && strcmp(query.label_value, "42") == 0);
    cr_assert_eq(page("state=lost", &query, &err), ERR_QUERY);
    cr_assert_not_null(strstr(err.msg, "label, limit and cursor only"), "%s", err.msg);
}

/* ---- digests ---- */

/* SHA-256 of nothing: RFC 9530's own examples have the same form. */
#define EMPTY "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

Test(api_digest, R06_finds_sha_256_among_others)
{
    static const char *const good[] = {
        "sha-256=:" EMPTY ":",
        "SHA-256=:" EMPTY ":",
        "sha-512=:AAAA:, sha-256=:" EMPTY ":",
        " sha-256=:" EMPTY ":;q=1,md5=:AA==:",
    };
    uint8_t wanted[HASH_SIZE];
    hash_sha256("", 0, wanted);
    for (size_t i = 0; i < COUNT_OF(good); i++) {
        uint8_t digest[HASH_SIZE] = {0};
        struct error err = {0};
        cr_assert_eq(api_digest_parse(good[i], digest, &err), 0, "%s", good[i]);
        cr_assert_eq(memcmp(digest, wanted, HASH_SIZE), 0, "%s", good[i]);
    }
}

Test(api_digest, R06_refuses_what_would_go_unchecked)
{
    static const char *const bad[] = {
        "",
        "sha-256",
        "sha-256=",
        "sha-256=:",
        "sha-256=::",
        "sha-256=" EMPTY,
        "sha-256=:" EMPTY,
        "sha-256=:AAAA:",
        "sha-256=:" EMPTY EMPTY ":",
        "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF=U:",
        "sha-256=:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=:",
        "sha-512=:AAAA:",
        "x-sha-256=:" EMPTY ":",
    };
    for (size_t i = 0; i < COUNT_OF(bad); i++) {
        uint8_t digest[HASH_SIZE];
        struct error err = {0};
        cr_assert_eq(api_digest_parse(bad[i], digest, &err), -1, "%s", bad[i]);
        cr_assert_eq(err.code, ERR_BAD_REQUEST);
    }
}

/* ---- ranges ---- */

static enum api_range range(const char *text, int64_t *offset, int64_t *length)
{
    *offset = *length = -1;
    return api_range_parse(text, 100, offset, length);
}

Test(api_range, R06_one_part_is_given_as_rfc_9110_has_it)
{
    static const struct {
        const char *text;
        int64_t offset, length;
    } parts[] = {{"bytes=0-0", 0, 1},   {"bytes=10-19", 10, 10}, {"bytes=90-", 90, 10},
                 {"bytes=-10", 90, 10}, {"bytes=-1000", 0, 100}, {"bytes=99-1000", 99, 1},
                 {"Bytes=0-99", 0, 100}};
    static const char *const all[] = {"",           "bytes=",     "bytes=-",
                                      "bytes=a-b",  "bytes=5-4",  "bytes=0-1,3-4",
                                      "lines=0-1",  "bytes=1",    "bytes=0-1x",
                                      "bytes= 0-1", "bytes=+1-2", "bytes=99999999999999999999-"};
    static const char *const none[] = {"bytes=100-", "bytes=100-200", "bytes=-0"};
    int64_t offset, length;
    for (size_t i = 0; i < COUNT_OF(parts); i++) {
        cr_assert_eq(range(parts[i].text, &offset, &length), API_RANGE_PART, "%s", parts[i].text);
        cr_assert_eq(offset, parts[i].offset, "%s", parts[i].text);
        cr_assert_eq(length, parts[i].length, "%s", parts[i].text);
    }
    for (size_t i = 0; i < COUNT_OF(all); i++)
        cr_assert_eq(range(all[i], &offset, &length), API_RANGE_ALL, "%s", all[i]);
    for (size_t i = 0; i < COUNT_OF(none); i++)
        cr_assert_eq(range(none[i], &offset, &length), API_RANGE_NONE, "%s", none[i]);
    cr_assert_eq(api_range_parse("bytes=-5", 0, &offset, &length), API_RANGE_NONE);
}
