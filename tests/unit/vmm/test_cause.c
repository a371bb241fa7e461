/* Whose word counts for why a VM ended: the host's before the VMM's before the guest's. */
#include "vmm/internal.h"

#include <criterion/criterion.h>
#include <signal.h>

#define EXITED(code)                                                                               \
    {                                                                                              \
        .has_status = true, .status = (code) << 8                                                  \
    }
#define KILLED(number)                                                                             \
    {                                                                                              \
        .has_status = true, .status = (number)                                                     \
    }

static void found(const struct vmm_evidence *evidence, const char *reason, const char *known_by)
{
    struct vmm_cause cause = vmm_cause_find(evidence);
    cr_expect_str_eq(cause.reason, reason);
    cr_expect_str_eq(cause.known_by, known_by, "%s", reason);
    cr_expect(cause.message[0] != '\0', "%s", reason);
}

/* Each with one kind of evidence alone. */
Test(vmm_cause, R24_every_kind_of_end_is_told_apart)
{
    static const struct {
        struct vmm_evidence evidence;
        const char *reason, *known_by;
    } ends[] = {
        {{.killed = EXITED(148), .violated = true}, "seccomp", "exit_status"},
        {{.killed = {.has_status = true, .status = SIGKILL, .oom_kills = 1},
          .exit_signal = SIGKILL},
         "cgroup_oom",
         "cgroup"},
        {{.killed = {.oom_kills = 1}}, "cgroup_oom", "cgroup"},
        {{.killed = KILLED(SIGKILL), .exit_signal = SIGKILL}, "vmm_crash", "exit_status"},
        {{.killed = EXITED(150), .exit_signal = SIGSEGV}, "vmm_crash", "exit_status"},
        {{.killed = EXITED(1)}, "vmm_exit", "exit_status"},
        {{.violated = true, .violation = {.claimed = true}}, "seccomp", "vmm"},
        {{.word = VMM_WORD_SIGNAL}, "vmm_crash", "vmm"},
        {{.word = VMM_WORD_ERROR}, "vmm_exit", "vmm"},
        {{.killed = EXITED(0), .word = VMM_WORD_TOLD}, "vmm_exit", "vmm"},
        {{.killed = EXITED(0), .word = VMM_WORD_OFF}, "guest_shutdown", "vmm"},
        {{.word = VMM_WORD_OFF}, "guest_shutdown", "vmm"},
        {{.killed = EXITED(0), .claim = VMM_CLAIM_OOM}, "guest_oom", "console"},
        {{.word = VMM_WORD_RESET, .claim = VMM_CLAIM_PANIC}, "guest_panic", "console"},
        {{.word = VMM_WORD_RESET, .claim = VMM_CLAIM_SHUTDOWN}, "guest_shutdown", "console"},
        {{.word = VMM_WORD_RESET}, "guest_reset", "vmm"},
        {{.word = VMM_WORD_RESET, .claim = VMM_CLAIM_RESET}, "guest_reset", "vmm"},
        {{.killed = EXITED(0)}, "guest_reset", "exit_status"},
        {{.heard = true}, "vmm_crash", "silence"},
        {{.heard = false}, "vmm_exit", "nothing"},
    };
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        found(&ends[i].evidence, ends[i].reason, ends[i].known_by);
}

/* What the guest says must not hide what it did not do. */
Test(vmm_cause, R24_R37_no_claim_of_the_guest_changes_what_host_or_vmm_know)
{
    static const struct vmm_evidence known[] = {
        {.killed = EXITED(148), .violated = true},
        {.killed = {.oom_kills = 1}},
        {.killed = KILLED(SIGKILL), .exit_signal = SIGKILL},
        {.killed = EXITED(1)},
        {.violated = true, .violation = {.claimed = true}},
        {.word = VMM_WORD_SIGNAL},
        {.word = VMM_WORD_ERROR},
        {.word = VMM_WORD_TOLD},
        {.word = VMM_WORD_OFF},
        {.heard = true},
        {.heard = false},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        struct vmm_cause before = vmm_cause_find(&known[i]);
        for (int claim = VMM_CLAIM_NONE; claim <= VMM_CLAIM_RESET; claim++) {
            struct vmm_evidence evidence = known[i];
            evidence.claim = (enum vmm_claim)claim;
            found(&evidence, before.reason, before.known_by);
        }
    }
}

Test(vmm_cause, R24_no_word_of_the_vmm_changes_what_the_host_knows)
{
    static const struct vmm_evidence known[] = {
        {.killed = EXITED(148), .violated = true},
        {.killed = {.oom_kills = 1}},
        {.killed = KILLED(SIGKILL), .exit_signal = SIGKILL},
        {.killed = EXITED(1)},
    };
    for (size_t i = 0; i < COUNT_OF(known); i++) {
        struct vmm_cause before = vmm_cause_find(&known[i]);
        for (int word = VMM_WORD_NONE; word <= VMM_WORD_TOLD; word++) {
            struct vmm_evidence evidence = known[i];
            evidence.word = (enum vmm_word)word;
            found(&evidence, before.reason, before.known_by);
        }
    }
    struct vmm_evidence well = {.killed = EXITED(0), .word = VMM_WORD_SIGNAL};
    found(&well, "guest_reset", "exit_status");
}

/* A counter that grew before, of a VMM that then exited by itself. */
Test(vmm_cause, R24_who_exited_was_not_killed_for_want_of_memory)
{
    struct vmm_evidence evidence = {
        .killed = {.has_status = true, .status = 1 << 8, .oom_kills = 3}};
    found(&evidence, "vmm_exit", "exit_status");
}

static enum vmm_claim claim_of(const char *console)
{
    cleanup_free char *copy = strdup(console);
    return vmm_claim_read(copy);
}

Test(vmm_cause, R24_a_guests_last_words_are_whole_lines_of_its_console)
{
    static const struct {
        const char *console;
        enum vmm_claim claim;
    } consoles[] = {
        {"", VMM_CLAIM_NONE},
        {"login: \n", VMM_CLAIM_NONE},
        {"[   12.345678] Kernel panic - not syncing: sysrq triggered crash\r\n", VMM_CLAIM_PANIC},
        {"[    1.5][    T1] Kernel panic - not syncing: Attempted to kill init!", VMM_CLAIM_PANIC},
        {"Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled\n",
         VMM_CLAIM_OOM},
        {"[ 3.1] Kernel panic - not syncing: System is deadlocked on memory\n", VMM_CLAIM_OOM},
        {"I fear a Kernel panic - not syncing\n", VMM_CLAIM_NONE},
        {"motte-agent: bye: shutdown\n", VMM_CLAIM_SHUTDOWN},
        {"motte-agent: bye: reset\r\n", VMM_CLAIM_RESET},
        {"said motte-agent: bye: reset\n", VMM_CLAIM_NONE},
        {"Kernel panic - not syncing: early\nmotte-agent: bye: shutdown\nmore\n",
         VMM_CLAIM_SHUTDOWN},
        {"[", VMM_CLAIM_NONE},
        {"[[[[]", VMM_CLAIM_NONE},
        {"]\n[] ", VMM_CLAIM_NONE},
    };
    for (size_t i = 0; i < COUNT_OF(consoles); i++)
        cr_expect_eq(claim_of(consoles[i].console), consoles[i].claim, "%s", consoles[i].console);
}

/* ---- the VMM's word ---- */

static const char instance[] = "abcdefghijklmnop2345";
#define LINE(message) "2026-11-26T14:14:29.734500777 [abcdefghijklmnop2345:main] " message "\n"

static enum vmm_word word_of(const struct vmm_hypervisor *hypervisor, const char *log)
{
    cleanup_free char *copy = strdup(log);
    return hypervisor->word(copy, instance);
}

Test(vmm_cause, R24_firecrackers_log_tells_of_its_end)
{
    static const char well[] =
        LINE("Vmm is stopping.") LINE("Firecracker exiting successfully. exit_code=0");
    const struct vmm_hypervisor *h = &vmm_firecracker;
    cr_assert_eq(word_of(h, well), VMM_WORD_RESET);
    cr_assert_eq(word_of(h, LINE("Shutting down VM after intercepting signal 11, code 0.")),
                 VMM_WORD_SIGNAL);
    cr_assert_eq(word_of(h, LINE("Firecracker exiting with error. exit_code=1")), VMM_WORD_ERROR);
    cr_assert_eq(word_of(h, LINE("API server started.")), VMM_WORD_NONE);
    cr_assert_eq(word_of(h, "Firecracker exiting successfully. exit_code=0\n"), VMM_WORD_NONE);
    cr_assert_eq(word_of(h, "2026-11-26T14:14:29.7 [aaaaaaaaaaaaaaaaaaaa:main] Firecracker exiting "
                            "successfully. exit_code=0\n"),
                 VMM_WORD_NONE, "another's");
    for (int code = 0; code < 256; code++)
        cr_assert_eq(h->exit_signal(code) != 0,
                     code >= 149 && code <= 157 && code != 152 && code != 153, "%d", code);
    cr_assert_eq(h->exit_signal(150), SIGSEGV);
}

Test(vmm_cause, R24_qemus_events_tell_of_its_end)
{
#define EVENT(guest, reason)                                                                       \
    "{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"SHUTDOWN\", \"data\": "   \
    "{\"guest\": " guest ", \"reason\": \"" reason "\"}}\r\n"
    const struct vmm_hypervisor *h = &vmm_qemu;
    cr_assert_eq(word_of(h, EVENT("true", "guest-shutdown")), VMM_WORD_OFF);
    cr_assert_eq(word_of(h, EVENT("true", "guest-reset")), VMM_WORD_RESET);
    cr_assert_eq(word_of(h, EVENT("false", "host-signal")), VMM_WORD_TOLD);
    cr_assert_eq(word_of(h, EVENT("false", "something-new")), VMM_WORD_NONE);
    cr_assert_eq(word_of(h, "true\r\n{\"event\": \"STOP\"}\r\n" EVENT(
                                "true", "guest-reset") "{\"event\": \"STOP\"}\r\n{"),
                 VMM_WORD_RESET);
    cr_assert_eq(word_of(h, "{\"event\": 7}\r\n{\"event\": \"SHUTDOWN\"}\r\n[]\r\n{\"ev"),
                 VMM_WORD_NONE);
}
