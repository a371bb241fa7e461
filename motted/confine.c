/* What the root half gives up once all is prepared. */
#include "motted/internal.h"
#include "priv/seccomp.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* Namespaces and mounts; chroot for setns; the jailer's nodes and owners; the VMs' uids; files of
 * theirs; killing and looking at them; the firewall. */
static const int kept[] = {CAP_SYS_ADMIN, CAP_SYS_CHROOT, CAP_MKNOD,     CAP_CHOWN,
                           CAP_FOWNER,    CAP_SETUID,     CAP_SETGID,    CAP_DAC_OVERRIDE,
                           CAP_KILL,      CAP_SYS_PTRACE, CAP_NET_ADMIN, CAP_NET_RAW};

static uint64_t kept_set(void)
{
    uint64_t set = 0;
    for (size_t i = 0; i < COUNT_OF(kept); i++)
        set |= 1ULL << kept[i];
    return set;
}

static int cut_bounding_set(uint64_t keep)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (!(keep & 1ULL << cap) && prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

/* SETPCAP stays in this process alone, no exec gives it back: each VMM's child needs it to cut its
 * own bounding set further. */
static int set_capabilities(uint64_t set)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    set |= 1ULL << CAP_SETPCAP;
    for (size_t i = 0; i < COUNT_OF(data); i++)
        data[i].effective = data[i].permitted = (uint32_t)(set >> (32 * i));
    return (int)syscall(SYS_capset, &header, data);
}

int motted_confine(struct error *err)
{
    uint64_t keep = kept_set();
    struct priv_bpf filter = {0};
    if (cut_bounding_set(keep) < 0 || set_capabilities(keep) < 0)
        return error_set(err, ERR_SYSTEM, errno, "giving up capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(err, ERR_SYSTEM, errno, "setting no_new_privs");
    if (priv_seccomp_launcher(&filter, err) < 0)
        return -1;
    int result = priv_seccomp_load(&filter);
    if (result < 0)
        error_set(err, ERR_SYSTEM, errno, "loading the root half's seccomp filter");
    priv_bpf_release(&filter);
    return result;
}
