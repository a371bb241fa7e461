/* What counts as a seccomp violation (R24): how the VMM exited proves it, its log names it. */
#include "vmm/internal.h"

#include <criterion/criterion.h>

enum { FIRECRACKER = 148, QEMU = 0 };

static const char instance[] = "abcdefghijklmnop2345";
#define LINE(thread, number)                                                                       \
    "2026-11-26T14:14:29.734500777 [abcdefghijklmnop2345:" thread                                  \
    "] Shutting down VM after intercepting a bad syscall (" number ").\n"

static const struct priv_killed bad_exit = {.has_status = true, .status = FIRECRACKER << 8};
static const struct priv_killed bad_signal = {.has_status = true, .status = 31};
static const struct priv_killed unknown = {0};

static bool look(const struct priv_killed *killed, int seccomp_exit, const char *log,
                 struct vmm_violation *ret)
{
    cleanup_free char *copy = strdup(log);
    return vmm_violation_read(killed, seccomp_exit, copy, instance, ret);
}

Test(vmm_violation, R24_the_exit_proves_and_the_log_names)
{
    static const char *const log = "2026-11-26T14:14:27.372346025 [abcdefghijklmnop2345:main] "
                                   "Running Firecracker v1.12.1\n" LINE("fc_vcpu 12", "41");
    struct vmm_violation found;
    char message[ERROR_MESSAGE_MAX];
    cr_assert(look(&bad_exit, FIRECRACKER, log, &found));
    cr_assert_eq(found.number, 41);
    cr_assert_str_eq(found.thread, "fc_vcpu 12");
    cr_assert_not(found.claimed);
    vmm_violation_describe(&found, message);
    cr_assert_str_eq(message, "the VMM made a system call that its seccomp filter blocks: socket "
                              "(41), in thread fc_vcpu 12");
    cr_assert(look(&bad_signal, FIRECRACKER, "", &found));
    cr_assert_eq(found.number, -1);
    vmm_violation_describe(&found, message);
    cr_assert_str_eq(message, "the VMM made a system call that its seccomp filter blocks: one that "
                              "it did not name");
    cr_assert(look(&bad_signal, QEMU, "", &found));
}

Test(vmm_violation, R24_without_a_status_the_log_claims)
{
    struct vmm_violation found;
    char message[ERROR_MESSAGE_MAX];
    cr_assert(look(&unknown, FIRECRACKER, LINE("main", "59"), &found));
    cr_assert(found.claimed);
    vmm_violation_describe(&found, message);
    cr_assert_str_eq(message,
                     "the VMM made a system call that its seccomp filter blocks: execve "
                     "(59), in thread main; so its log says, its exit status is not known");
    cr_assert_not(look(&unknown, FIRECRACKER, "", &found));
}

Test(vmm_violation, R24_other_ends_are_none_whatever_the_log_says)
{
    static const struct priv_killed others[] = {
        {.has_status = true, .status = 0},
        {.has_status = true, .status = 1 << 8},
        {.has_status = true, .status = 9},
        {.has_status = true, .status = 149 << 8},
        {.was_running = true, .has_status = true, .status = 9},
        {.was_running = true},
    };
    struct vmm_violation found;
    for (size_t i = 0; i < COUNT_OF(others); i++)
        cr_assert_not(look(&others[i], FIRECRACKER, LINE("main", "41"), &found), "%zu", i);
    cr_assert_not(look(&bad_exit, QEMU, "", &found), "148 means nothing there");
}

Test(vmm_violation, R24_only_the_vmms_very_line_names)
{
    static const char *const logs[] = {
        LINE("main", ""),
        LINE("main", "-1"),
        LINE("main", "4294967337"),
        LINE("main", "41)x("),
        LINE("fc_vcpu", "41"),
        LINE("fc_vcpu 123", "41"),
        LINE("fc_vcpu 1 2", "41"),
        LINE("somebody", "41"),
        LINE("main] [x:main", "41"),
        LINE("a thread with a very long name indeed", "41"),
        "guest says: " LINE("main", "41"),
        " " LINE("main", "41"),
        "2026 [bbbbbbbbbbbbbbbbbbbb:main] Shutting down VM after intercepting a bad syscall "
        "(41).\n",
        "[abcdefghijklmnop2345:main] Shutting down VM after intercepting a bad syscall (41).\n",
        "2026 [abcdefghijklmnop2345:main] Shutting down VM after intercepting a bad syscall (41)\n",
        "2026 [abcdefghijklmnop2345:main] Shutting down VM after intercepting a bad syscall (41",
        "2026 [abcdefghijklmnop2345:main",
    };
    struct vmm_violation found;
    for (size_t i = 0; i < COUNT_OF(logs); i++) {
        cr_assert(look(&bad_exit, FIRECRACKER, logs[i], &found));
        cr_assert_eq(found.number, -1, "%zu: %s", i, logs[i]);
        cr_assert_not(look(&unknown, FIRECRACKER, logs[i], &found), "%zu: %s", i, logs[i]);
    }
    cr_assert(look(&bad_exit, FIRECRACKER, LINE("main", "41") LINE("main", "x") LINE("fc_api", "2"),
                   &found));
    cr_assert_eq(found.number, 2, "the last counts");
}

Test(vmm_violation, R24_numbers_have_the_names_of_x86_64)
{
    static const struct {
        int number;
        const char *name;
    } cases[] = {{0, "read"},     {41, "socket"}, {59, "execve"}, {288, "accept4"},
                 {435, "clone3"}, {-1, ""},       {511, ""},      {999999999, ""}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char name[VMM_SYSCALL_NAME_SIZE];
        cr_assert_eq(vmm_syscall_name(cases[i].number, name), cases[i].name[0] != '\0');
        cr_assert_str_eq(name, cases[i].name);
    }
}
