/*
 * What the front may call once it is confined: one system call (and condition) a line, with its
 * reason. All else ends the process.
 *
 * Found by tracing the system tests over both hypervisors, and by reading glibc 2.36 (abort, memory
 * arenas, thread ends), SQLite 3.40, libmicrohttpd 0.9.75 and libcurl 7.88 for what tests do not
 * reach.
 */
#include "server/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

enum { /* glibc's pthread_create: a thread of this process, in the same namespaces */
       THREAD = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SYSVSEM | CLONE_SIGHAND | CLONE_THREAD |
                CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
};

#define IS(position, wanted)                                                                       \
    {                                                                                              \
        .index = (position), .mask = UINT32_MAX, .value = (uint32_t)(wanted)                       \
    }
#define LACKS(position, bits)                                                                      \
    {                                                                                              \
        .index = (position), .mask = (bits)                                                        \
    }
#define OWN_PID(position)                                                                          \
    {                                                                                              \
        .index = (position), .mask = UINT32_MAX, .own_pid = true                                   \
    }
#define RULE(name, what, ...)                                                                      \
    {                                                                                              \
        .nr = SCMP_SYS(name), .action = (what), .args = { __VA_ARGS__ }                            \
    }
#define ALLOW(name) RULE(name, SCMP_ACT_ALLOW, {0})
#define WHEN(name, ...) RULE(name, SCMP_ACT_ALLOW, __VA_ARGS__)
#define ABSENT(name) RULE(name, SCMP_ACT_ERRNO(ENOSYS), {0})

/* A table is read by column. */
/* clang-format off */
const struct server_rule server_rules[] = {
    /* memory: never code */
    ALLOW(brk),                         /* heap */
    ALLOW(munmap),                      /* heap, thread stacks */
    ALLOW(mremap),                      /* realloc of big blocks */
    WHEN(mmap, LACKS(2, PROT_EXEC)),    /* heap, thread stacks, SQLite's shared index */
    WHEN(mprotect, LACKS(2, PROT_EXEC)), /* growing arenas, stacks' guard pages */
    WHEN(madvise, IS(2, MADV_DONTNEED)), /* stacks of threads that ended, shrinking arenas */

    /* threads, never processes */
    WHEN(clone, IS(0, THREAD)),         /* pthread_create */
    ABSENT(clone3),                     /* flags lie behind a pointer; glibc falls back to clone */
    ALLOW(set_robust_list),             /* libc, each thread */
    ALLOW(rseq),                        /* libc, each thread */
    ALLOW(futex),                       /* locks, condition variables, joins */
    ALLOW(exit),                        /* end of a thread */
    ALLOW(exit_group),                  /* end of the front */
    ALLOW(sched_getaffinity),           /* number of processors: how many arenas */
    ALLOW(sysinfo),                     /* qsort: is there memory for a copy? */
    WHEN(prctl, IS(0, PR_SET_NAME)),    /* libmicrohttpd names its threads */

    /* signals, and an end by abort() */
    ALLOW(rt_sigprocmask),              /* thread start and end, abort */
    ALLOW(rt_sigaction),                /* libcurl looks at SIGPIPE, abort resets SIGABRT */
    ALLOW(restart_syscall),             /* after SIGSTOP and SIGCONT */
    ALLOW(getpid),                      /* abort; SQLite: still the process that opened it? */
    ALLOW(gettid),                      /* abort */
    WHEN(tgkill, OWN_PID(0), IS(2, SIGABRT)), /* abort: this process, this signal */

    /* time and chance */
    ALLOW(clock_gettime),               /* real calls where the clock has no vDSO */
    ALLOW(gettimeofday),                /* same */
    ALLOW(time),                        /* same */
    ALLOW(clock_nanosleep),             /* SQLite waits for a lock, a probe for the guest */
    ALLOW(getrandom),                   /* ids, tokens, seeds */

    /* files: which ones is landlock's and the file system's part */
    ALLOW(openat),                      /* SQLite, /proc/self */
    ALLOW(openat2),                     /* the catalogue, beneath its directory */
    ALLOW(close),                       /* all descriptors */
    ALLOW(read),                        /* files, event descriptors, signals, consoles */
    ALLOW(write),                       /* log, event descriptors, SQLite's shared index */
    ALLOW(writev),                      /* libmicrohttpd's answers, libc's last words */
    ALLOW(pread64),                     /* SQLite */
    ALLOW(pwrite64),                    /* SQLite */
    ALLOW(lseek),                       /* SQLite, directories */
    ALLOW(getdents64),                  /* the catalogue, number of own descriptors */
    ALLOW(newfstatat),                  /* SQLite: size, still the same file? */
    ALLOW(fstat),                       /* newer glibc, in place of newfstatat */
    ALLOW(readlink),                    /* SQLite: no link in the database's path */
    ALLOW(access),                      /* SQLite: is there a journal to roll back? */
    ALLOW(geteuid),                     /* SQLite: whose file would a journal be? */
    ALLOW(fsync),                       /* SQLite: the directory, after a journal went */
    ALLOW(fdatasync),                   /* SQLite: log and database */
    ALLOW(ftruncate),                   /* SQLite: log, shared index */
    ALLOW(fallocate),                   /* SQLite: growing by whole chunks */
    ALLOW(fchmod),                      /* SQLite: a new file whose mode the umask cut */
    ALLOW(unlink),                      /* SQLite: log and index, at the last close */
    WHEN(fcntl, IS(1, F_SETLK)),        /* SQLite's locks */
    WHEN(fcntl, IS(1, F_GETLK)),        /* same */
    WHEN(fcntl, IS(1, F_GETFD)),        /* close-on-exec */
    WHEN(fcntl, IS(1, F_SETFD)),        /* same */
    WHEN(fcntl, IS(1, F_GETFL)),        /* libcurl's sockets, fdopendir */
    WHEN(fcntl, IS(1, F_SETFL)),        /* libcurl's and libmicrohttpd's sockets: do not block */
    WHEN(fcntl, IS(1, F_DUPFD_CLOEXEC)), /* SQLite, when it is given descriptor 0, 1 or 2 */

    /* sockets: those accepted, and AF_UNIX to VMMs and the service manager */
    ALLOW(accept4),                     /* inherited listeners, TCP's too */
    WHEN(socket, IS(0, AF_UNIX)),       /* to VMMs and guests, sd_notify */
    WHEN(socketpair, IS(0, AF_UNIX)),   /* libcurl wakes its own loop */
    ALLOW(connect),                     /* through /proc/self/fd */
    ALLOW(sendto),                      /* all sockets */
    ALLOW(recvfrom),                    /* all sockets */
    ALLOW(sendmsg),                     /* the root half, libmicrohttpd */
    ALLOW(recvmsg),                     /* the root half hands descriptors */
    ALLOW(shutdown),                    /* connections whose time is over */
    ALLOW(getsockname),                 /* libmicrohttpd, libcurl */
    ALLOW(getpeername),                 /* libcurl */
    WHEN(getsockopt, IS(1, SOL_SOCKET)), /* callers' uids, result of a connect */
    WHEN(setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_NODELAY)), /* libmicrohttpd: answer now */
    WHEN(setsockopt, IS(1, IPPROTO_TCP), IS(2, TCP_CORK)), /* same, header and body in one */

    /* waiting */
    ALLOW(poll),                        /* vsock, libcurl, main */
    ALLOW(epoll_create1),               /* libmicrohttpd's loops */
    ALLOW(epoll_ctl),                   /* same, consoles */
    ALLOW(epoll_wait),                  /* same */
    ALLOW(eventfd2),                    /* wake-ups between threads */
};
const size_t server_rule_count = COUNT_OF(server_rules);
/* clang-format on */
