/* Why a VM ended. The one table below is the order in which the sources are believed: what the host
 * itself saw (exit status, the cgroup's counter), then what the VMM said (Firecracker's log, QEMU's
 * events), then what the guest said (its console), then what follows from silence. The guest's word only
 * tells apart ends that the guest itself made, so it can never hide one that it did not. */
#include "vmm/internal.h"

#include <sys/wait.h>

/* ---- what the guest says ---- */

/* The kernel puts its clock, and may put more, in brackets before a message. */
static const char *skip_stamps(const char *line)
{
    while (*line == '[' && strchr(line, ']') != NULL)
        for (line = strchr(line, ']') + 1; *line == ' ';)
            line++;
    return line;
}

static enum vmm_claim read_claim(const char *line)
{
    static const struct {
        const char *words;
        enum vmm_claim claim;
    } claims[] = {
        {"Kernel panic - not syncing: Out of memory", VMM_CLAIM_OOM},
        {"Kernel panic - not syncing: System is deadlocked on memory", VMM_CLAIM_OOM},
        {"Kernel panic - not syncing", VMM_CLAIM_PANIC},
        {"motte-agent: bye: shutdown", VMM_CLAIM_SHUTDOWN},
        {"motte-agent: bye: reset", VMM_CLAIM_RESET},
    };
    line = skip_stamps(line);
    for (size_t i = 0; i < COUNT_OF(claims); i++)
        if (strncmp(line, claims[i].words, strlen(claims[i].words)) == 0)
            return claims[i].claim;
    return VMM_CLAIM_NONE;
}

enum vmm_claim vmm_claim_read(char *console)
{
    enum vmm_claim last = VMM_CLAIM_NONE;
    char *rest = console;
    for (const char *line; (line = strsep(&rest, "\r\n")) != NULL;) {
        enum vmm_claim claim = read_claim(line);
        if (claim != VMM_CLAIM_NONE)
            last = claim;
    }
    return last;
}

/* ---- the order ---- */

static bool proven_violation(const struct vmm_evidence *e)
{
    return e->violated && !e->violation.claimed;
}

/* The kernel kills with SIGKILL: a VMM that is known to have exited was not its victim. */
static bool oom_killed(const struct vmm_evidence *e)
{
    return e->killed.oom_kills > 0 && !(e->killed.has_status && WIFEXITED(e->killed.status));
}

static bool by_signal(const struct vmm_evidence *e)
{
    return e->exit_signal != 0;
}

static bool by_code(const struct vmm_evidence *e)
{
    return e->killed.has_status && WIFEXITED(e->killed.status) &&
           WEXITSTATUS(e->killed.status) != 0;
}

static bool claimed_violation(const struct vmm_evidence *e)
{
    return e->violated;
}

/* A status that is known leaves nothing to be said: here it is an exit with 0. */
static bool said_signal(const struct vmm_evidence *e)
{
    return !e->killed.has_status && e->word == VMM_WORD_SIGNAL;
}

static bool said_error(const struct vmm_evidence *e)
{
    return !e->killed.has_status && e->word == VMM_WORD_ERROR;
}

static bool said_told(const struct vmm_evidence *e)
{
    return e->word == VMM_WORD_TOLD;
}

static bool said_off(const struct vmm_evidence *e)
{
    return e->word == VMM_WORD_OFF;
}

static bool said_reset(const struct vmm_evidence *e)
{
    return e->word == VMM_WORD_RESET;
}

static bool exited_well(const struct vmm_evidence *e)
{
    return e->killed.has_status;
}

static bool guest_claims(const struct vmm_evidence *e, enum vmm_claim claim)
{
    return (said_reset(e) || exited_well(e)) && e->claim == claim;
}

static bool claimed_oom(const struct vmm_evidence *e)
{
    return guest_claims(e, VMM_CLAIM_OOM);
}

static bool claimed_panic(const struct vmm_evidence *e)
{
    return guest_claims(e, VMM_CLAIM_PANIC);
}

static bool claimed_shutdown(const struct vmm_evidence *e)
{
    return guest_claims(e, VMM_CLAIM_SHUTDOWN);
}

static bool silent(const struct vmm_evidence *e)
{
    return e->heard;
}

static bool always(const struct vmm_evidence *e)
{
    (void)e;
    return true;
}

/* The first that holds. A sentence that ends in a colon gets the signal's or the exit's number;
 * without one the violation is described. */
static const struct {
    bool (*holds)(const struct vmm_evidence *evidence);
    const char *reason, *known_by, *sentence;
} order[] = {
    {proven_violation, "seccomp", "exit_status", NULL},
    {oom_killed, "cgroup_oom", "cgroup",
     "the VMM's cgroup ran out of memory, and the kernel ended it"},
    {by_signal, "vmm_crash", "exit_status", "the VMM was ended by a signal:"},
    {by_code, "vmm_exit", "exit_status", "the VMM exited with a code of its own:"},
    {claimed_violation, "seccomp", "vmm", NULL},
    {said_signal, "vmm_crash", "vmm", "the VMM was ended by a signal; so its log says"},
    {said_error, "vmm_exit", "vmm", "the VMM met an error; so it said"},
    {said_told, "vmm_exit", "vmm", "the host told the VMM to end; so it said"},
    {said_off, "guest_shutdown", "vmm", "the guest switched its machine off"},
    {claimed_oom, "guest_oom", "console",
     "the guest's kernel gave up for want of memory; so its console says"},
    {claimed_panic, "guest_panic", "console", "the guest's kernel panicked; so its console says"},
    {claimed_shutdown, "guest_shutdown", "console", "the guest shut down; so its agent said"},
    {said_reset, "guest_reset", "vmm", "the guest reset its machine"},
    {exited_well, "guest_reset", "exit_status", "the guest ended its machine"},
    {silent, "vmm_crash", "silence",
     "the VMM ended without a word, as one that is killed does; its exit status is not known"},
    {always, "vmm_exit", "nothing", "nothing is left that tells how the VMM ended"},
};

struct vmm_cause vmm_cause_find(const struct vmm_evidence *evidence)
{
    struct vmm_cause cause = {0};
    size_t i = 0;
    while (!order[i].holds(evidence)) /* the last one does */
        i++;
    cause.reason = order[i].reason;
    cause.known_by = order[i].known_by;
    const char *sentence = order[i].sentence;
    if (sentence == NULL)
        vmm_violation_describe(&evidence->violation, cause.message);
    else if (sentence[strlen(sentence) - 1] != ':')
        snprintf(cause.message, sizeof(cause.message), "%s", sentence);
    else
        snprintf(cause.message, sizeof(cause.message), "%s %d", sentence,
                 by_signal(evidence) ? evidence->exit_signal
                                     : WEXITSTATUS(evidence->killed.status));
    return cause;
}
