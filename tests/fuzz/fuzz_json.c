/* Any text is refused, or read to something that writes and reads the same (R06). */
#include "fuzz.h"
#include "json/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error err = {0}, again_err = {0};
    cleanup_json cJSON *json = NULL;
    cleanup_json cJSON *again = NULL;
    if (json_parse((const char *)data, size, &json, &err) < 0) {
        FUZZ_CHECK(err.code == ERR_JSON || err.code == ERR_NO_MEMORY);
        return 0;
    }
    cleanup_free char *text = json_print(json);
    FUZZ_CHECK(text != NULL);
    FUZZ_CHECK(json_parse(text, strlen(text), &again, &again_err) == 0);
    cleanup_free char *second = json_print(again);
    FUZZ_CHECK(second != NULL && strcmp(text, second) == 0);
    return 0;
}
