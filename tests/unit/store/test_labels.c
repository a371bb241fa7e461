/* The label filter against a plain comparison, with labels chosen to confuse SQL and JSON paths. */
#include "tests/unit/base/random.h"
#include "tests/unit/store/fixture.h"
#include "json/json.h"

#include <criterion/criterion.h>

static const char *const texts[] = {
    "",
    "a",
    "A",
    "a ",
    " a",
    "aa",
    "b",
    "a.b",
    "$.a",
    "$",
    "[0]",
    "\"a\"",
    "'a'",
    "a'b",
    "a\"b",
    "a\\b",
    "a\\\\b",
    "a\\u0062",
    "%",
    "_",
    "a%",
    "?1",
    "1",
    "1.0",
    "01",
    "true",
    "null",
    "\n",
    "\t",
    "\x01",
    "\x1f",
    "\x7f",
    "\xc3\xa9",
    "e\xcc\x81",
    "\xe2\x82\xac",
    "\xf0\x9f\x98\x80",
    "\xf4\x8f\xbf\xbf",
    "\xef\xbf\xbf",
    "a/b",
    "key",
    "value",
    "--",
    "; DROP TABLE vms",
};

enum { VMS = 60, LABELS = 4 };

struct labelled {
    char instance[ID_INSTANCE_SIZE];
    size_t key[LABELS], value[LABELS];
    size_t count;
};

static void make(struct store *store, struct labelled *labelled, int number, struct random *random)
{
    cleanup_json cJSON *object = cJSON_CreateObject();
    labelled->count = random_below(random, LABELS + 1);
    for (size_t i = 0; i < labelled->count;) {
        labelled->key[i] = random_below(random, COUNT_OF(texts));
        labelled->value[i] = random_below(random, COUNT_OF(texts));
        if (cJSON_HasObjectItem(object, texts[labelled->key[i]]))
            continue; /* cJSON ignores case here: good enough for distinct keys */
        cr_assert_eq(json_add_string(object, texts[labelled->key[i]], texts[labelled->value[i]]),
                     0);
        i++;
    }
    cleanup_free char *text = json_print(object);
    char id[16];
    snprintf(id, sizeof(id), "vm-%d", number);
    struct store_vm vm = fixture_vm("a", id);
    struct error err = {0};
    snprintf(vm.labels, sizeof(vm.labels), "%s", text);
    cr_assert_eq(store_vm_insert(store, &vm, &err), 0, "%s", err.msg);
    memcpy(labelled->instance, vm.instance, sizeof(vm.instance));
}

static bool matches(const struct labelled *labelled, const char *key, const char *value)
{
    for (size_t i = 0; i < labelled->count; i++)
        if (strcmp(texts[labelled->key[i]], key) == 0 &&
            (value == NULL || strcmp(texts[labelled->value[i]], value) == 0))
            return true;
    return false;
}

static void check(struct store *store, const struct labelled *vms, const char *key,
                  const char *value, uint64_t seed)
{
    struct store_filter filter = {
        .owner = "a", .label_key = key, .label_value = value, .limit = VMS};
    struct store_vm *rows = NULL;
    size_t count = 0, at = 0;
    bool more = false;
    struct error err = {0};
    cr_assert_eq(store_vm_list(store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    for (size_t i = 0; i < VMS; i++) {
        bool found = at < count && strcmp(rows[at].instance, vms[i].instance) == 0;
        cr_assert_eq(found, matches(&vms[i], key, value), "`%s` = `%s`, VM %zu (seed %llu)", key,
                     value == NULL ? "(any)" : value, i, (unsigned long long)seed);
        at += found;
    }
    cr_assert_eq(at, count);
    free(rows);
}

Test(store_labels, R06_R37_the_filter_is_right_for_any_text, .timeout = 60)
{
    struct random random = random_start();
    struct error err = {0};
    struct fixture f;
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    struct labelled vms[VMS];
    for (int i = 0; i < VMS; i++)
        make(f.store, &vms[i], i, &random);
    for (size_t key = 0; key < COUNT_OF(texts); key++) {
        check(f.store, vms, texts[key], NULL, random.seed);
        for (size_t value = 0; value < COUNT_OF(texts); value++)
            check(f.store, vms, texts[key], texts[value], random.seed);
    }
    fixture_release(&f);
}

Test(store_labels, a_row_whose_labels_are_no_json_matches_nothing_and_breaks_nothing)
{
    struct error err = {0};
    struct fixture f;
    cr_assert_eq(fixture_open(&f, &err), 0, "%s", err.msg);
    static const char *const odd[] = {"", "not json", "[\"a\"]", "{\"a\":{\"a\":\"a\"}}",
                                      "{\"a\":1}"};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        char id[16];
        snprintf(id, sizeof(id), "vm-%zu", i);
        struct store_vm vm = fixture_vm("a", id);
        snprintf(vm.labels, sizeof(vm.labels), "%s", odd[i]);
        cr_assert_eq(store_vm_insert(f.store, &vm, &err), 0, "%s", err.msg);
    }
    struct store_filter filter = {.label_key = "a", .label_value = "a", .limit = 10};
    struct store_vm *rows = NULL;
    size_t count = 9;
    bool more = true;
    cr_assert_eq(store_vm_list(f.store, &filter, &rows, &count, &more, &err), 0, "%s", err.msg);
    cr_assert_eq(count, 0);
    fixture_release(&f);
}
