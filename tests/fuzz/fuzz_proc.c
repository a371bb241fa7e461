/* Texts about a process that are partly of its own making: /proc/PID/status and stat, the VMM's log. */
#include "fuzz.h"
#include "priv/internal.h"
#include "vmm/internal.h"

static void status(const char *text, size_t len)
{
    static const char *const keys[] = {"Uid", "Seccomp_filters", "CapEff", "Name", ""};
    for (size_t i = 0; i < COUNT_OF(keys); i++) {
        const char *value = priv_proc_field(text, keys[i]);
        FUZZ_CHECK(value == NULL || (value > text && value <= text + len));
        if (priv_proc_ids_are(text, keys[i], 1000))
            FUZZ_CHECK(value != NULL);
    }
}

static void stat_line(const char *text)
{
    uint64_t start;
    if (priv_proc_stat_start(text, &start))
        FUZZ_CHECK(strchr(text, ')') != NULL);
}

static void log_text(char *text)
{
    static const char instance[] = "aaaaaaaaaaaaaaaaaaaa";
    struct vmm_violation violation;
    char said[ERROR_MESSAGE_MAX];
    struct priv_killed killed = {0}; /* adopted: its log alone must do */
    if (!vmm_violation_read(&killed, 148, text, instance, &violation))
        return;
    FUZZ_CHECK(violation.claimed && violation.number >= 0);
    FUZZ_CHECK(strcmp(violation.thread, "main") == 0 || strcmp(violation.thread, "fc_api") == 0 ||
               strncmp(violation.thread, "fc_vcpu ", 8) == 0);
    vmm_violation_describe(&violation, said);
    FUZZ_CHECK(strstr(said, violation.thread) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    cleanup_free char *text = strndup((const char *)data + 1, size - 1);
    FUZZ_CHECK(text != NULL);
    if (data[0] % 3 == 0)
        status(text, strlen(text));
    else if (data[0] % 3 == 1)
        stat_line(text);
    else
        log_text(text);
    return 0;
}
