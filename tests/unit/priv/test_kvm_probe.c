/* The probe against the KVM that is really here. */
#include "base/base.h"
#include "priv/server.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

static bool paravirtual(void)
{
    return access("/sys/module/kvm_pvm", F_OK) == 0;
}

Test(priv_kvm_probe, tells_an_emulating_kvm_from_a_real_one)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm");
    }
    char reason[160] = "";
    int64_t start = clock_mono_ms();
    enum priv_kvm kvm = priv_kvm_probe(reason);
    int64_t took = clock_mono_ms() - start;
    cr_log_info("%s (%lld ms)", reason, (long long)took);
    cr_assert_leq(took, 3000);
    cr_assert_eq(kvm, paravirtual() ? PRIV_KVM_EMULATED : PRIV_KVM_OK, "%s", reason);
    cr_assert_not_null(strstr(reason, "KVM"), "%s", reason);
}

static size_t open_fds(void)
{
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

Test(priv_kvm_probe, leaves_no_descriptor_and_no_signal_behind)
{
    if (access("/dev/kvm", R_OK | W_OK) != 0) {
        cr_skip_test("no /dev/kvm");
    }
    char reason[160] = "";
    struct sigaction before, after;
    sigset_t mask_before = {0}, mask_after = {0};
    sigaction(SIGUSR1, NULL, &before);
    sigprocmask(SIG_SETMASK, NULL, &mask_before);
    size_t fds = open_fds();
    priv_kvm_probe(reason);
    sigaction(SIGUSR1, NULL, &after);
    sigprocmask(SIG_SETMASK, NULL, &mask_after);
    cr_assert_eq(open_fds(), fds);
    cr_assert(before.sa_handler == after.sa_handler);
    cr_assert_eq(memcmp(&mask_before, &mask_after, sizeof(mask_before)), 0);
}

/* Another file in /dev/kvm's place, in a mount namespace of the test's own. */
static void replace_kvm(const char *with)
{
    cr_assert_eq(unshare(CLONE_NEWNS), 0, "%m");
    cr_assert_eq(mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL), 0, "%m");
    cr_assert_eq(mount(with, "/dev/kvm", "none", MS_BIND, NULL), 0, "%m");
}

Test(priv_kvm_probe, a_file_that_is_no_kvm_is_missing)
{
    if (access("/dev/kvm", F_OK) != 0) {
        cr_skip_test("no /dev/kvm to put something in place of");
    }
    char reason[160] = "";
    replace_kvm("/dev/null");
    cr_assert_eq(priv_kvm_probe(reason), PRIV_KVM_MISSING);
    cr_assert_not_null(strstr(reason, "/dev/kvm"), "%s", reason);
}

Test(priv_kvm_probe, a_kvm_we_may_not_open_is_denied)
{
    if (access("/dev/kvm", F_OK) != 0) {
        cr_skip_test("no /dev/kvm");
    }
    char reason[160] = "";
    replace_kvm("/dev/kvm");
    cr_assert_eq(mount("none", "/dev/kvm", "none", MS_REMOUNT | MS_BIND | MS_NODEV, NULL), 0, "%m");
    cr_assert_eq(priv_kvm_probe(reason), PRIV_KVM_DENIED, "%s", reason);
}
