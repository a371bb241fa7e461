/*
 * Who may call what: one system call (and condition) a line, with its reason.
 *
 * Firecracker's lines are its own default for 1.12.1 (resources/seccomp/ in its source); tests
 * compare verdicts with the filter inside the real binary. Sockets can only be AF_UNIX there, so
 * whatever works on a socket works on those.
 */
#include "priv/seccomp_internal.h"
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

enum {
    VMM = 1u << PRIV_THREAD_VMM,
    API = 1u << PRIV_THREAD_API,
    CPU = 1u << PRIV_THREAD_VCPU,
    ALL = VMM | API | CPU,
    STREAM = SOCK_STREAM | SOCK_CLOEXEC,
    SIG_KICK = 35, /* musl's SIGRTMIN: gets a vCPU thread out of KVM_RUN */
};

#define IS(position, wanted)                                                                       \
    {                                                                                              \
        .index = (position), .mask = UINT32_MAX, .value = (uint32_t)(wanted)                       \
    }
#define HAS(position, bits)                                                                        \
    {                                                                                              \
        .index = (position), .mask = (bits), .value = (bits)                                       \
    }
#define RULE(who, name, at, what, ...)                                                             \
    {                                                                                              \
        .nr = SCMP_SYS(name), .threads = (who), .level = PRIV_SECCOMP_##at, .action = (what),      \
        .args = {                                                                                  \
            __VA_ARGS__                                                                            \
        }                                                                                          \
    }
#define ALLOW(who, name) RULE(who, name, MINIMAL, SCMP_ACT_ALLOW, {0})
#define WHEN(who, name, ...) RULE(who, name, MINIMAL, SCMP_ACT_ALLOW, __VA_ARGS__)
#define BASIC(who, name) RULE(who, name, BASIC, SCMP_ACT_ALLOW, {0})
#define ABSENT(name) RULE(ALL, name, MINIMAL, SCMP_ACT_ERRNO(ENOSYS), {0})
#define DENY(name) RULE(ALL, name, MINIMAL, SCMP_ACT_ERRNO(EPERM), {0})

/* A table is read by column. */
/* clang-format off */
const struct priv_seccomp_rule priv_seccomp_firecracker_rules[] = {
    /* every thread */
    ALLOW(ALL, brk),                    /* heap */
    ALLOW(ALL, mremap),                 /* heap */
    ALLOW(ALL, munmap),                 /* heap, thread stacks */
    ALLOW(ALL, clock_gettime),          /* metrics; a real call where the clock has no vDSO */
    ALLOW(ALL, open),                   /* drives, snapshots, logs: beneath the jail's root */
    ALLOW(ALL, close),                  /* sockets, files, event descriptors */
    ALLOW(ALL, fstat),                  /* sizes of files it opens */
    ALLOW(ALL, write),                  /* event descriptors, log, serial console */
    ALLOW(ALL, exit),                   /* end of a thread */
    ALLOW(ALL, exit_group),             /* end of the VMM, also in its SIGSYS handler */
    ALLOW(ALL, restart_syscall),        /* after SIGSTOP and SIGCONT */
    ALLOW(ALL, rt_sigprocmask),         /* thread start and end, abort */
    ALLOW(ALL, sched_yield),            /* lock contention */
    ALLOW(ALL, sigaltstack),            /* thread end */
    WHEN(ALL, futex, IS(1, FUTEX_WAIT)), /* locks and condition variables */
    WHEN(ALL, futex, IS(1, FUTEX_WAKE)), /* same */
    WHEN(ALL, futex, IS(1, FUTEX_WAIT_PRIVATE)), /* same */
    WHEN(ALL, futex, IS(1, FUTEX_WAKE_PRIVATE)), /* same */
    WHEN(ALL, futex, IS(1, FUTEX_WAIT_BITSET_PRIVATE)), /* timed waits */
    WHEN(ALL, rt_sigaction, IS(0, SIGABRT)), /* abort after a panic */
    WHEN(ALL, tkill, IS(1, SIGABRT)),   /* abort after a panic */

    /* devices and the HTTP thread */
    ALLOW(VMM | API, epoll_ctl),        /* event loops */
    ALLOW(VMM | API, epoll_pwait),      /* event loops */
    ALLOW(VMM | API, read),             /* event descriptors, disks, requests */
    ALLOW(VMM | API, recvfrom),         /* vsock's host side, API socket */
    ALLOW(VMM | API, recvmsg),          /* API socket */
    ALLOW(VMM | API, getrandom),        /* hash seeds, the entropy device */
    WHEN(VMM | API, accept4, IS(3, SOCK_CLOEXEC)), /* API requests, vsock from the host */
    WHEN(VMM | API, socket, IS(0, AF_UNIX), IS(1, STREAM), IS(2, 0)), /* vsock to the host */
    WHEN(VMM | API, mmap, IS(3, MAP_PRIVATE | MAP_ANONYMOUS)), /* heap */
    WHEN(VMM | API, mmap, IS(3, MAP_SHARED)), /* io_uring, snapshots */
    WHEN(VMM | API, ioctl, IS(1, FIONBIO)), /* sockets that do not block */
    WHEN(API, fcntl, IS(1, F_SETFD)),   /* close-on-exec */
    WHEN(API, madvise, IS(2, MADV_DONTNEED)), /* the allocator returns memory */
    WHEN(API, madvise, IS(2, MADV_FREE)), /* same */

    /* devices: vsock, block, balloon, serial, snapshot */
    ALLOW(VMM, stat),                   /* does a drive or snapshot file exist? */
    ALLOW(VMM, lseek),                  /* block device, size of files */
    ALLOW(VMM, ftruncate),              /* a snapshot's memory file */
    ALLOW(VMM, fsync),                  /* guest flush, a snapshot's state file */
    ALLOW(VMM, readv),                  /* network device */
    ALLOW(VMM, writev),                 /* network device, vsock */
    ALLOW(VMM, eventfd2),               /* queues */
    ALLOW(VMM, io_uring_setup),         /* drives with the Async engine */
    ALLOW(VMM, io_uring_enter),         /* same */
    ALLOW(VMM, io_uring_register),      /* same */
    ALLOW(VMM, connect),                /* guest → host vsock: to <uds_path>_<port> */
    ALLOW(VMM, sendmsg),                /* vhost-user, page faults by userfaultfd */
    ALLOW(VMM, madvise),                /* balloon */
    ALLOW(VMM, rt_sigreturn),           /* its signal handlers */
    WHEN(VMM, fcntl, IS(1, F_SETFD), IS(2, FD_CLOEXEC)), /* close-on-exec of opened files */
    WHEN(VMM, mmap, IS(3, MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE)), /* balloon */
    WHEN(VMM, mmap, IS(3, MAP_SHARED | MAP_POPULATE)), /* io_uring */
    WHEN(VMM, timerfd_settime, IS(1, 0)), /* rate limiters, metrics */
    WHEN(VMM, tkill, IS(1, SIG_KICK)),  /* pause */
    WHEN(VMM, ioctl, IS(1, TIOCGWINSZ)), /* is standard input a terminal? */
    WHEN(VMM, ioctl, IS(1, TCGETS)),    /* terminal state, put back at the end */
    WHEN(VMM, ioctl, IS(1, TCSETS)),    /* same */
    WHEN(VMM, ioctl, IS(1, KVM_GET_DIRTY_LOG)), /* snapshots */
    WHEN(VMM, ioctl, IS(1, KVM_GET_IRQCHIP)), /* same */
    WHEN(VMM, ioctl, IS(1, KVM_GET_CLOCK)), /* same */
    WHEN(VMM, ioctl, IS(1, KVM_GET_PIT2)), /* same */

    /* virtual processors: what guest code reaches first, so next to nothing */
    WHEN(CPU, ioctl, IS(1, KVM_RUN)),   /* the guest */
    ALLOW(CPU, rt_sigreturn),           /* the kick's handler */
    ALLOW(CPU, sendmsg),                /* vhost-user back ends, at device activation */
    WHEN(CPU, timerfd_settime, IS(1, 0)), /* rate limiters, when the guest rings a queue */
    WHEN(CPU, madvise, IS(2, MADV_DONTNEED)), /* allocator */
    WHEN(CPU, madvise, IS(2, MADV_FREE)), /* same */
    WHEN(CPU, mmap, IS(3, MAP_SHARED)), /* device activation */
    WHEN(CPU, mmap, IS(2, PROT_READ | PROT_WRITE), IS(3, MAP_PRIVATE | MAP_ANONYMOUS)), /* heap */
    WHEN(CPU, ioctl, IS(1, TUNSETOFFLOAD)), /* network device activation */
    WHEN(CPU, ioctl, IS(1, KVM_KVMCLOCK_CTRL)), /* pause: spare the guest its soft-lockup alarm */
    WHEN(CPU, ioctl, IS(1, KVM_GET_MP_STATE)), /* from here on: the state a snapshot keeps */
    WHEN(CPU, ioctl, IS(1, KVM_GET_VCPU_EVENTS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_LAPIC)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_SREGS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_REGS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_MSRS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_CPUID2)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_DEBUGREGS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_XSAVE)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_XSAVE2)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_XCRS)),
    WHEN(CPU, ioctl, IS(1, KVM_GET_TSC_KHZ)),

    /* level basic, where sockets can be made at all */
    BASIC(VMM | API, bind),             /* a later VMM that listens after its filter is loaded */
    BASIC(VMM | API, listen),           /* same */
    BASIC(VMM | API, accept),           /* same, without flags */
    BASIC(VMM | API, shutdown),         /* half-closed streams */
};
const size_t priv_seccomp_firecracker_rule_count = COUNT_OF(priv_seccomp_firecracker_rules);

/* QEMU 7.2, microvm, TCG: as traced over cold boot, commands, snapshot and restore. It is loaded
 * before exec, so execve and the dynamic linker's needs stand here too; QEMU's own
 * -sandbox spawn=deny takes execve away at start, for which prctl and seccomp must be allowed. */
const struct priv_seccomp_rule priv_seccomp_qemu_rules[] = {
    /* start: exec, dynamic linker, libc */
    ALLOW(ALL, execve),                 /* QEMU itself, once */
    ALLOW(ALL, access),                 /* dynamic linker: ld.so.preload */
    ALLOW(ALL, arch_prctl),             /* thread-local storage */
    ALLOW(ALL, set_tid_address),        /* libc start */
    ALLOW(ALL, set_robust_list),        /* libc, each thread */
    ALLOW(ALL, rseq),                   /* libc, each thread */
    ALLOW(ALL, prlimit64),              /* stack size of threads */
    ALLOW(ALL, getrandom),              /* seeds */
    ALLOW(ALL, prctl),                  /* thread names, timer slack, -sandbox */
    ALLOW(ALL, seccomp),                /* -sandbox adds its own filter; filters only ever add up */
    ALLOW(ALL, getpid),                 /* abort, image locks */
    ALLOW(ALL, gettid),                 /* thread identity */
    ALLOW(ALL, sysinfo),                /* memory size, at start */
    ALLOW(ALL, sched_getaffinity),      /* number of processors */
    ALLOW(ALL, get_mempolicy),          /* libnuma */
    ALLOW(ALL, set_mempolicy),          /* same */

    /* memory: guest RAM and translated code */
    ALLOW(ALL, brk),                    /* heap */
    ALLOW(ALL, mmap),                   /* guest RAM, translated code, thread stacks */
    ALLOW(ALL, mprotect),               /* translated code, libraries */
    ALLOW(ALL, mremap),                 /* heap */
    ALLOW(ALL, munmap),                 /* same as mmap */
    ALLOW(ALL, madvise),                /* huge pages for guest RAM, no dump of it */
    ALLOW(ALL, memfd_create),           /* test for memory back ends */

    /* files: image, scratch disk, console, firmware */
    ALLOW(ALL, openat),                 /* image, libraries, firmware: beneath the jail */
    ALLOW(ALL, close),                  /* all descriptors */
    ALLOW(ALL, newfstatat),             /* sizes, kinds of file */
    ALLOW(ALL, fstat),                  /* newer glibc, in place of newfstatat */
    ALLOW(ALL, fstatfs),                /* page size of guest memory files */
    ALLOW(ALL, statfs),                 /* SELinux library, at start */
    ALLOW(ALL, readlink),               /* where its own program lies */
    ALLOW(ALL, getdents64),             /* module folder, at start */
    ALLOW(ALL, fchdir),                 /* module folder, at start */
    ALLOW(ALL, unlink),                 /* its own listening sockets */
    ALLOW(ALL, lseek),                  /* size of an image, holes */
    ALLOW(ALL, fadvise64),              /* kernel file read-ahead */
    ALLOW(ALL, fcntl),                  /* image locks, non-blocking descriptors */
    ALLOW(ALL, read),                   /* event descriptors, files */
    ALLOW(ALL, readv),                  /* sockets */
    ALLOW(ALL, pread64),                /* image */
    ALLOW(ALL, preadv),                 /* image */
    ALLOW(ALL, write),                  /* event descriptors, console */
    ALLOW(ALL, writev),                 /* sockets */
    ALLOW(ALL, pwrite64),               /* scratch disk */
    ALLOW(ALL, pwritev),                /* scratch disk */
    ALLOW(ALL, fdatasync),              /* scratch disk: guest flush */
    ALLOW(ALL, fallocate),              /* scratch disk: discard and write zeroes */

    /* sockets: QMP and serial ports, AF_UNIX only */
    WHEN(ALL, socket, IS(0, AF_UNIX)),  /* the only family */
    ALLOW(ALL, bind),                   /* listening for the daemon */
    ALLOW(ALL, listen),                 /* listening for the daemon */
    ALLOW(ALL, accept4),                /* listening for the daemon */
    ALLOW(ALL, getsockname),            /* chardev names */
    ALLOW(ALL, getpeername),            /* chardev names */
    ALLOW(ALL, getsockopt),             /* socket type and errors */
    ALLOW(ALL, recvmsg),                /* QMP getfd: snapshots come as descriptors */
    ALLOW(ALL, sendmsg),                /* QMP answers, port data */
    BASIC(ALL, accept),                 /* the level's promise; QEMU itself uses accept4 */
    BASIC(ALL, shutdown),               /* half-closed streams */

    /* event loop, time, threads, signals */
    ALLOW(ALL, poll),                   /* glib's loop */
    ALLOW(ALL, ppoll),                  /* main loop */
    ALLOW(ALL, epoll_create1),          /* block layer without io_uring */
    ALLOW(ALL, epoll_ctl),              /* same */
    ALLOW(ALL, epoll_wait),             /* same */
    ALLOW(ALL, epoll_pwait),            /* same */
    ALLOW(ALL, eventfd2),               /* wake-ups between threads */
    ALLOW(ALL, signalfd4),              /* signals in the main loop */
    ALLOW(ALL, clock_gettime),          /* real calls where the clock has no vDSO */
    ALLOW(ALL, gettimeofday),           /* same */
    ALLOW(ALL, clock_getres),           /* same */
    ALLOW(ALL, clock_nanosleep),        /* throttled threads */
    ALLOW(ALL, restart_syscall),        /* after SIGSTOP and SIGCONT */
    WHEN(ALL, clone, HAS(0, CLONE_THREAD)), /* threads, never processes */
    ALLOW(ALL, futex),                  /* locks */
    ALLOW(ALL, tgkill),                 /* abort, wake a vCPU thread */
    ALLOW(ALL, rt_sigaction),           /* handlers */
    ALLOW(ALL, rt_sigprocmask),         /* thread start */
    ALLOW(ALL, rt_sigreturn),           /* end of a handler */
    ALLOW(ALL, sigaltstack),            /* coroutines */
    ALLOW(ALL, exit),                   /* end of a thread */
    ALLOW(ALL, exit_group),             /* end of the VMM */
    ABSENT(clone3),                     /* flags lie behind a pointer; glibc falls back to clone */
    ABSENT(io_uring_setup),             /* would pass by this filter; QEMU falls back to epoll */
};
const size_t priv_seccomp_qemu_rule_count = COUNT_OF(priv_seccomp_qemu_rules);

/* What neither the launcher nor any VMM has business with. The rest stays open, because the
 * launcher itself mounts, clones, enters namespaces and executes. */
const struct priv_seccomp_rule priv_seccomp_launcher_rules[] = {
    DENY(bpf),                          /* kernel code of one's own */
    DENY(init_module),
    DENY(finit_module),
    DENY(delete_module),
    DENY(kexec_load),
    DENY(kexec_file_load),
    DENY(ptrace),                       /* other processes */
    DENY(process_vm_readv),
    DENY(process_vm_writev),
    DENY(process_madvise),
    DENY(kcmp),
    DENY(pidfd_getfd),
    DENY(keyctl),                       /* keyrings are not in a namespace */
    DENY(add_key),
    DENY(request_key),
    DENY(perf_event_open),              /* side channels and a rich source of kernel bugs */
    DENY(userfaultfd),                  /* stops the kernel at a chosen instruction */
    DENY(io_uring_setup),               /* calls that no filter sees; drives use the Sync engine */
    DENY(io_uring_enter),
    DENY(io_uring_register),
    DENY(open_by_handle_at),            /* leaves a mount by guessing */
    DENY(fanotify_init),                /* watches the whole mount */
    DENY(lookup_dcookie),
    DENY(quotactl),                     /* the host as a whole */
    DENY(quotactl_fd),
    DENY(acct),
    DENY(swapon),
    DENY(swapoff),
    DENY(reboot),
    DENY(syslog),
    DENY(settimeofday),
    DENY(clock_settime),
    DENY(clock_adjtime),
    DENY(adjtimex),
    DENY(vhangup),
    DENY(nfsservctl),
    DENY(iopl),                         /* hardware and old interfaces */
    DENY(ioperm),
    DENY(modify_ldt),
    DENY(uselib),
    DENY(_sysctl),
    DENY(personality),                  /* switches address randomisation off */
};
const size_t priv_seccomp_launcher_rule_count = COUNT_OF(priv_seccomp_launcher_rules);
/* clang-format on */
