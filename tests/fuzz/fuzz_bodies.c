/* Bodies of requests: POST /vms and POST /vms/{id}/exec. */
#include "api/internal.h"
#include "fuzz.h"

static void exec_body(const char *text, size_t len, bool watched)
{
    const uint32_t most = watched ? API_EXEC_LONG_TIMEOUT_MAX_MS : API_EXEC_TIMEOUT_MAX_MS;
    struct api_exec_body body cleanup(api_exec_body_release) = {0};
    struct error err = {0};
    int result = api_exec_body_parse(text, len, watched, &body, &err);
    FUZZ_CHECK((result < 0) == (err.code != ERR_NONE));
    if (result < 0)
        return;
    FUZZ_CHECK(cJSON_GetArraySize(body.request.argv) > 0);
    FUZZ_CHECK(body.request.timeout_ms >= 1 && body.request.timeout_ms <= most);
    FUZZ_CHECK(!body.request.pty || (body.request.size.rows > 0 && body.request.size.cols > 0));
    FUZZ_CHECK(watched || (!body.request.pty && !body.input_open));
    FUZZ_CHECK(body.request.cwd == NULL || body.request.cwd[0] == '/');
}

/* There is no catalogue: what gets past everything else ends with the image. */
static void spec_body(const char *text, size_t len)
{
    const struct priv_host host = {
        .max_vcpus = 8, .max_memory_mib = 2048, .max_disk_mib = 4096, .total_memory_mib = 8192};
    cleanup_json cJSON *json = NULL;
    struct vmm_spec *spec = NULL;
    struct error err = {0};
    if (json_parse(text, len, &json, &err) < 0)
        return;
    FUZZ_CHECK(vmm_spec_new(json, &host, -1, "python", &spec, &err) < 0);
    FUZZ_CHECK(spec == NULL && err.code != ERR_NONE && err.msg[0] != '\0');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    if (data[0] & 1)
        exec_body(text, size - 1, data[0] & 2);
    else
        spec_body(text, size - 1);
    return 0;
}
