/* `key = value` texts: motted's configuration and the tokens of callers. */
#include "fuzz.h"
#include "motted/internal.h"
#include "server/internal.h"

#include <sys/mman.h>

static int option(void *context, const char *key, const char *value, struct error *err)
{
    return motted_option(context, key, value, err);
}

static void configuration(const uint8_t *data, size_t size)
{
    cleanup_free char *text = strndup((const char *)data, size);
    struct motted_config config = {0};
    struct error err = {0};
    FUZZ_CHECK(text != NULL);
    if (kv_parse(text, "fuzz", option, &config, &err) < 0)
        FUZZ_CHECK(strncmp(err.msg, "fuzz:", 5) == 0);
    FUZZ_CHECK(config.listen_count <= MOTTED_LISTEN_MAX);
    FUZZ_CHECK(config.state_dir[0] == '\0' || config.state_dir[0] == '/');
    FUZZ_CHECK(config.max_vcpus <= 32);
}

static void tokens(const uint8_t *data, size_t size)
{
    struct server_tokens *tokens = NULL;
    struct error err = {0};
    struct caller caller;
    cleanup_close int fd = memfd_create("tokens", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0 && fs_write_all(fd, data, size) == 0);
    FUZZ_CHECK((server_tokens_read(fd, &tokens, &err) < 0) == (tokens == NULL));
    cleanup_free char *header = strndup((const char *)data, size);
    FUZZ_CHECK(header != NULL);
    FUZZ_CHECK(!server_tokens_find(tokens, "Bearer ", &caller));
    if (server_tokens_find(tokens, header, &caller))
        FUZZ_CHECK(id_name_valid(caller.name));
    server_tokens_free(tokens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        tokens(data + 1, size - 1);
    else
        configuration(data + 1, size - 1);
    return 0;
}
