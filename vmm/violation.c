/* Did a VMM's seccomp filter end it, and for which call? How it exited is the proof; its log names the
 * call and the thread. Of a VMM that an earlier daemon started nobody learns how it exited: then the
 * log alone must do, and whoever reads the audit is told so. The log is not the guest's to write, yet a
 * VMM that was taken over may write anything there: so it is parsed strictly, and nothing of it but
 * numbers and known names goes on. */
#include "vmm/internal.h"

#include <seccomp.h>
#include <signal.h>
#include <sys/wait.h>

bool vmm_syscall_name(int number, char out[static VMM_SYSCALL_NAME_SIZE])
{
    out[0] = '\0';
    cleanup_free char *name =
        number < 0 ? NULL : seccomp_syscall_resolve_num_arch(SCMP_ARCH_X86_64, number);
    if (name == NULL || strlen(name) >= VMM_SYSCALL_NAME_SIZE)
        return false;
    memcpy(out, name, strlen(name) + 1);
    return true;
}

/* "main", "fc_api" or "fc_vcpu 12", in [at, end). */
static bool read_thread(const char *at, const char *end, char out[static VMM_THREAD_SIZE])
{
    size_t len = (size_t)(end - at), digits = 0;
    if (end < at || len >= VMM_THREAD_SIZE)
        return false;
    memcpy(out, at, len);
    out[len] = '\0';
    if (strcmp(out, "main") == 0 || strcmp(out, "fc_api") == 0)
        return true;
    if (strncmp(out, "fc_vcpu ", strlen("fc_vcpu ")) == 0)
        digits = strspn(out + strlen("fc_vcpu "), "0123456789");
    return digits > 0 && digits <= 2 && strlen("fc_vcpu ") + digits == len;
}

const char *vmm_log_message(const char *line, const char *instance,
                            char thread[static VMM_THREAD_SIZE])
{
    char head[ID_INSTANCE_SIZE + 4];
    snprintf(head, sizeof(head), " [%s:", instance);
    size_t time = strspn(line, "0123456789-:.TZ");
    if (time == 0 || strncmp(line + time, head, strlen(head)) != 0)
        return NULL;
    const char *name = line + time + strlen(head), *end = strstr(name, "] ");
    return end != NULL && read_thread(name, end, thread) ? end + 2 : NULL;
}

/* Shutting down VM after intercepting a bad syscall (NUMBER). */
static bool read_line(const char *line, const char *instance, struct vmm_violation *ret)
{
    static const char words[] = "Shutting down VM after intercepting a bad syscall (";
    enum { DIGITS_MAX = 9 };
    const char *message = vmm_log_message(line, instance, ret->thread);
    if (message == NULL || strncmp(message, words, strlen(words)) != 0)
        return false;
    const char *number = message + strlen(words);
    size_t digits = strspn(number, "0123456789");
    if (digits == 0 || digits > DIGITS_MAX || strcmp(number + digits, ").") != 0)
        return false;
    ret->number = (int)strtol(number, NULL, 10);
    return true;
}

/* The last one counts: it ended the VMM. */
static bool read_log(char *log, const char *instance, struct vmm_violation *ret)
{
    bool found = false;
    char *rest = log;
    for (const char *line; (line = strsep(&rest, "\n")) != NULL;) {
        struct vmm_violation here = {0};
        if (!read_line(line, instance, &here))
            continue;
        *ret = here;
        found = true;
    }
    return found;
}

bool vmm_violation_read(const struct priv_killed *killed, int seccomp_exit, char *log,
                        const char *instance, struct vmm_violation *ret)
{
    int status = killed->status;
    *ret = (struct vmm_violation){.number = -1};
    bool counted =
        !killed->has_status && killed->oom_kills > 0; /* the host's word against the log's */
    if (killed->was_running || counted)
        return false;
    if (killed->has_status && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS) &&
        !(WIFEXITED(status) && seccomp_exit != 0 && WEXITSTATUS(status) == seccomp_exit))
        return false;
    bool named = read_log(log, instance, ret);
    ret->claimed = !killed->has_status;
    return killed->has_status || named;
}

void vmm_violation_describe(const struct vmm_violation *violation,
                            char out[static ERROR_MESSAGE_MAX])
{
    char name[VMM_SYSCALL_NAME_SIZE], call[VMM_SYSCALL_NAME_SIZE + 32] = "one that it did not name";
    bool known = vmm_syscall_name(violation->number, name);
    if (violation->number >= 0)
        snprintf(call, sizeof(call), "%s (%d)", known ? name : "number", violation->number);
    snprintf(out, ERROR_MESSAGE_MAX,
             "the VMM made a system call that its seccomp filter blocks: %s%s%s%s", call,
             violation->thread[0] != '\0' ? ", in thread " : "", violation->thread,
             violation->claimed ? "; so its log says, its exit status is not known" : "");
}
