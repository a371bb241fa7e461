/* What goes into a VM's audit, beside what the store writes there itself. No entry has words of a guest
 * or of a command: numbers, and names from closed lists. */
#include "vmm/internal.h"

#include <sys/wait.h>

/* Text of an object that is whole; takes it. */
static char *print(cJSON *detail, bool whole)
{
    cleanup_json cJSON *json = detail;
    return whole ? json_print(json) : NULL;
}

/* A lost entry must not stop what it tells of. */
static void add(struct vmm *vmm, const char *instance, enum store_audit_kind kind, cJSON *detail,
                bool whole)
{
    struct error err = {0};
    cleanup_free char *text = print(detail, whole);
    const struct store_audit_new entry = {.instance = instance, .kind = kind, .detail = text};
    if (text == NULL || store_audit_add(vmm->config.store, &entry, 1, &err) < 0)
        vmm->config.observer.audit_lost(vmm->config.observer.context);
}

void vmm_audit_word(struct vmm *vmm, const char *instance, enum store_audit_kind kind,
                    const char *name, const char *word)
{
    cJSON *detail = cJSON_CreateObject();
    add(vmm, instance, kind, detail, json_add_string(detail, name, word) == 0);
}

void vmm_audit_guards(struct vmm *vmm, const char *instance, enum store_audit_kind kind)
{
    static const struct {
        enum priv_guard bit;
        const char *name;
    } guards[] = {{PRIV_GUARD_FIREWALL, "firewall"},
                  {PRIV_GUARD_CGROUP, "cgroup"},
                  {PRIV_GUARD_SECCOMP, "seccomp"}};
    struct priv_host host;
    vmm_host(vmm, &host);
    cJSON *detail = cJSON_CreateObject(), *without = cJSON_CreateArray();
    bool whole = true;
    for (size_t i = 0; i < COUNT_OF(guards); i++) {
        if (!(host.without & guards[i].bit))
            continue;
        cJSON *name = cJSON_CreateString(guards[i].name);
        if (name != NULL && cJSON_AddItemToArray(without, name))
            continue;
        cJSON_Delete(name);
        whole = false;
    }
    whole = json_add(detail, "without", without) == 0 && whole;
    add(vmm, instance, kind, detail, whole);
}

void vmm_audit_line(struct vmm *vmm, const char *instance, const struct priv_line *line)
{
    cJSON *detail = cJSON_CreateObject();
    bool whole =
        json_add_string(detail, "line", line->name) == 0 &&
        json_add_string(detail, "state", line->state == PRIV_LINE_ABSENT ? "absent" : "wrong") == 0;
    add(vmm, instance, STORE_AUDIT_GUARD_WRONG, detail, whole);
}

/* A number, or null for what is not known or does not apply. */
static int add_or_null(cJSON *detail, const char *name, bool known, int number)
{
    return json_add(detail, name, known ? cJSON_CreateNumber(number) : cJSON_CreateNull());
}

static char *violation_detail(const struct vmm_violation *violation)
{
    char name[VMM_SYSCALL_NAME_SIZE];
    bool known = vmm_syscall_name(violation->number, name);
    const char *thread = violation->thread[0] != '\0' ? violation->thread : NULL;
    cJSON *detail = cJSON_CreateObject();
    bool whole =
        add_or_null(detail, "number", violation->number >= 0, violation->number) == 0 &&
        json_add_string(detail, "syscall", known ? name : NULL) == 0 &&
        json_add_string(detail, "thread", thread) == 0 &&
        json_add_string(detail, "known_by", violation->claimed ? "log" : "exit_status") == 0;
    return print(detail, whole);
}

static char *exit_detail(const struct priv_killed *killed, const char *known_by)
{
    bool exited = killed->has_status && WIFEXITED(killed->status);
    bool signalled = killed->has_status && WIFSIGNALED(killed->status);
    cJSON *detail = cJSON_CreateObject();
    bool whole = add_or_null(detail, "exit_code", exited, WEXITSTATUS(killed->status)) == 0 &&
                 add_or_null(detail, "signal", signalled, WTERMSIG(killed->status)) == 0 &&
                 json_add_number(detail, "oom_kills", killed->oom_kills) == 0 &&
                 json_add_string(detail, "known_by", known_by) == 0;
    return print(detail, whole);
}

int vmm_audit_end(struct vmm *vmm, const char *instance, struct vmm_verdict *verdict,
                  struct error *err)
{
    if (verdict->told)
        return 0;
    const struct vmm_evidence *evidence = &verdict->evidence;
    cleanup_free char *violation =
        evidence->violated ? violation_detail(&evidence->violation) : NULL;
    cleanup_free char *by_itself =
        verdict->by_itself ? exit_detail(&evidence->killed, verdict->known_by) : NULL;
    if ((evidence->violated && violation == NULL) || (verdict->by_itself && by_itself == NULL))
        return error_set(err, ERR_NO_MEMORY, 0, "out of memory for an audit entry");
    struct store_audit_new entries[2];
    size_t count = 0;
    if (violation != NULL)
        entries[count++] =
            (struct store_audit_new){instance, STORE_AUDIT_SECCOMP_VIOLATION, violation};
    if (by_itself != NULL)
        entries[count++] = (struct store_audit_new){instance, STORE_AUDIT_VMM_EXITED, by_itself};
    if (count > 0 && store_audit_add(vmm->config.store, entries, count, err) < 0)
        return -1;
    verdict->told = true;
    return 0;
}
