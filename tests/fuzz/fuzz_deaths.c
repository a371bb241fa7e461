/* Last words: a guest's console, Firecracker's log, QEMU's events. */
#include "fuzz.h"
#include "vmm/internal.h"

static const char instance[] = "abcdefghijklmnop2345";

static void console(char *text)
{
    enum vmm_claim claim = vmm_claim_read(text);
    FUZZ_CHECK(claim >= VMM_CLAIM_NONE && claim <= VMM_CLAIM_RESET);
}

static void said(const struct vmm_hypervisor *hypervisor, char *text)
{
    enum vmm_word word = hypervisor->word(text, instance);
    FUZZ_CHECK(word >= VMM_WORD_NONE && word <= VMM_WORD_TOLD);
}

static void violation(char *text)
{
    const struct priv_killed unknown = {0};
    struct vmm_violation found;
    bool there = vmm_violation_read(&unknown, 148, text, instance, &found);
    FUZZ_CHECK(there == (found.number >= 0) && (!there || found.thread[0] != '\0'));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0 || size > VMM_CONSOLE_TAIL)
        return 0;
    char *text = malloc(size); /* exactly: what reads beyond it is seen */
    FUZZ_CHECK(text != NULL);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    switch (data[0] & 3) {
    case 0:
        console(text);
        break;
    case 1:
        said(&vmm_firecracker, text);
        break;
    case 2:
        said(&vmm_qemu, text);
        break;
    default:
        violation(text);
    }
    free(text);
    return 0;
}
