/* Errors: set once, wrapped, never past their bounds; codes have stable, distinct names. */
#include "base/base.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>

Test(error, message_carries_the_system_error)
{
    struct error err = {0};
    cr_assert_eq(error_set(&err, ERR_SYSTEM, ENOENT, "opening %s", "x"), -1);
    cr_assert_eq(err.code, ERR_SYSTEM);
    cr_assert_eq(err.sys, ENOENT);
    cr_assert_str_eq(err.msg, "opening x: No such file or directory");
}

Test(error, wrap_puts_context_in_front_and_keeps_the_code)
{
    struct error err = {0};
    error_set(&err, ERR_CGROUP, 0, "inner");
    cr_assert_eq(error_wrap(&err, "outer %d", 1), -1);
    cr_assert_eq(err.code, ERR_CGROUP);
    cr_assert_str_eq(err.msg, "outer 1: inner");
}

Test(error, long_messages_are_cut_not_overrun)
{
    struct {
        struct error err;
        char after[16];
    } guard = {.after = "untouched"};
    char text[2000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    error_set(&guard.err, ERR_SYSTEM, EIO, "%s", text);
    for (int i = 0; i < 3; i++)
        error_wrap(&guard.err, "%s", text);
    cr_assert_eq(strlen(guard.err.msg), ERROR_MESSAGE_MAX - 1);
    cr_assert_str_eq(guard.after, "untouched");
}

#ifndef NDEBUG
Test(error, setting_twice_is_our_own_bug, .signal = SIGABRT)
{
    struct error err = {0};
    error_set(&err, ERR_SYSTEM, 0, "first");
    error_set(&err, ERR_SYSTEM, 0, "second");
}
#endif

Test(error, code_names_are_distinct_and_plain)
{
    for (int a = 0; a < ERR_COUNT; a++) {
        const char *name = error_code_name((enum error_code)a);
        cr_assert_eq(strspn(name, "abcdefghijklmnopqrstuvwxyz_"), strlen(name), "%s", name);
        for (int b = 0; b < a; b++)
            cr_assert_str_neq(name, error_code_name((enum error_code)b));
    }
    cr_assert_str_eq(error_code_name(ERR_COUNT), "internal");
}

Test(error, R02_a_want_of_ours_says_nothing_about_a_vm)
{
    static const struct {
        struct error err;
        bool shortage;
    } cases[] = {
        {{.code = ERR_GUARD, .sys = EMFILE}, true},
        {{.code = ERR_SYSTEM, .sys = ENOMEM}, true},
        {{.code = ERR_NO_MEMORY}, true},
        {{.code = ERR_STORE_FULL}, true},
        {{.code = ERR_NONE}, false},
        {{.code = ERR_SYSTEM, .sys = ENOENT}, false},
        {{.code = ERR_GUARD}, false}, /* what follows a VM can bring about itself */
        {{.code = ERR_HYPERVISOR, .sys = EAGAIN}, false},
        {{.code = ERR_HYPERVISOR, .sys = ECONNREFUSED}, false},
        {{.code = ERR_GUEST_TIMEOUT, .sys = ETIMEDOUT}, false},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        cr_expect_eq(error_is_shortage(&cases[i].err), cases[i].shortage, "case %zu", i);
}
