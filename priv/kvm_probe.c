/*
 * Can this KVM run an unmodified 64-bit Linux? That /dev/kvm opens says little: some hosts emulate
 * ring 0 instruction by instruction and give up on what they cannot emulate. So a small machine
 * does what a kernel does first, set up its FPU in 64-bit ring 0, and then counts, and is timed.
 */
#include "priv/server.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

enum {
    MEMORY = 2 << 20, /* one large page, mapped one to one */
    PML4 = 0x1000,
    PDPT = 0x2000,
    DIRECTORY = 0x3000,
    CODE = 0x4000,
    FPU_AREA = 0x8000, /* 64-byte aligned; up to 12 KiB of XSAVE state */
    STACK = 0x20000,
    PORT = 0x10, /* the guest reports its progress here */
    STAGE_FPU = 1,
    STAGE_LAP = 2, /* once before and once after each lap */
    LAPS = 10,
    LAP_TURNS = 10000, /* two instructions each */
    /* Measured per lap: hardware 5 µs, hardware virtualisation inside an emulated host 120 µs,
     * instruction-wise emulation from 12,000 µs. The best of all laps counts. */
    LAP_EMULATED_US = 1500,
    DEADLINE_S = 2,
    CPUID_ENTRIES = 256,
};

/* rsp and the segments are set by the host; cr0 arrives with PE, PG and EM set. */
__asm__(".pushsection .rodata\n"
        "priv_kvm_guest:\n"
        "    mov %cr0, %rax\n"
        "    and $~0xc, %rax\n" /* EM, TS off */
        "    or $0x22, %rax\n"  /* MP, NE on */
        "    mov %rax, %cr0\n"
        "    mov %cr4, %rax\n"
        "    or $0x600, %rax\n" /* OSFXSR, OSXMMEXCPT */
        "    mov %rax, %cr4\n"
        "    clts\n"
        "    fninit\n"
        "    fnstcw 0x8000\n"
        "    fxsave64 0x8000\n"
        "    fxrstor64 0x8000\n"
        "    mov $1, %eax\n"
        "    xor %ecx, %ecx\n"
        "    cpuid\n"
        "    bt $26, %ecx\n" /* XSAVE? */
        "    jnc 1f\n"
        "    mov %cr4, %rax\n"
        "    or $0x40000, %rax\n" /* OSXSAVE */
        "    mov %rax, %cr4\n"
        "    xor %ecx, %ecx\n"
        "    xgetbv\n"
        "    or $3, %eax\n" /* x87, SSE */
        "    xsetbv\n"
        "    mov $3, %eax\n"
        "    xor %edx, %edx\n"
        "    xsave64 0x9000\n"
        "    xrstor64 0x9000\n"
        "1:  mov $1, %al\n"
        "    out %al, $0x10\n"
        "    mov $2, %al\n"
        "    out %al, $0x10\n"
        "2:  mov $10000, %ecx\n"
        "3:  dec %ecx\n"
        "    jnz 3b\n"
        "    out %al, $0x10\n"
        "    jmp 2b\n"
        "priv_kvm_guest_end:\n"
        ".popsection\n");
extern const uint8_t priv_kvm_guest[], priv_kvm_guest_end[];

struct probe {
    int kvm, vm, vcpu; /* owned */
    uint8_t *memory;   /* owned */
    struct kvm_run *run;
    size_t run_size;
    /* what the vCPU thread found; read after it was joined */
    bool fpu_done;
    unsigned laps;
    int64_t best_lap_us;
    uint32_t exit_reason, suberror; /* of an exit that is no progress */
    int failed;                     /* errno of KVM_RUN */
};

static void probe_release(struct probe *probe)
{
    if (probe->run != NULL) {
        munmap(probe->run, probe->run_size);
    }
    if (probe->memory != NULL) {
        munmap(probe->memory, MEMORY);
    }
    cleanup_close_func(&probe->vcpu);
    cleanup_close_func(&probe->vm);
    cleanup_close_func(&probe->kvm);
}

static void *map(size_t size, int flags, int fd)
{
    void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* ---- making the machine: each returns what failed, or NULL ----------------------------------- */

static const char *make_memory(struct probe *probe)
{
    probe->memory = map(MEMORY, MAP_PRIVATE | MAP_ANONYMOUS, -1);
    if (probe->memory == NULL) {
        return "mmap";
    }
    const uint64_t next = 3, large = 0x83; /* present, writable; and a 2 MiB page */
    memcpy(probe->memory + PML4, &(uint64_t){PDPT | next}, 8);
    memcpy(probe->memory + PDPT, &(uint64_t){DIRECTORY | next}, 8);
    memcpy(probe->memory + DIRECTORY, &large, 8);
    memcpy(probe->memory + CODE, priv_kvm_guest, (size_t)(priv_kvm_guest_end - priv_kvm_guest));
    struct kvm_userspace_memory_region region = {.memory_size = MEMORY,
                                                 .userspace_addr = (uintptr_t)probe->memory};
    return ioctl(probe->vm, KVM_SET_USER_MEMORY_REGION, &region) != 0 ? "SET_USER_MEMORY_REGION"
                                                                      : NULL;
}

static const char *set_cpuid(const struct probe *probe)
{
    size_t size = sizeof(struct kvm_cpuid2) + CPUID_ENTRIES * sizeof(struct kvm_cpuid_entry2);
    cleanup_free struct kvm_cpuid2 *cpuid = calloc(1, size);
    if (cpuid == NULL) {
        return "memory";
    }
    cpuid->nent = CPUID_ENTRIES;
    if (ioctl(probe->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) != 0) {
        return "GET_SUPPORTED_CPUID";
    }
    return ioctl(probe->vcpu, KVM_SET_CPUID2, cpuid) != 0 ? "SET_CPUID2" : NULL;
}

static const char *set_registers(const struct probe *probe)
{
    struct kvm_sregs sregs;
    if (ioctl(probe->vcpu, KVM_GET_SREGS, &sregs) != 0) {
        return "GET_SREGS";
    }
    struct kvm_segment flat = {
        .limit = UINT32_MAX, .selector = 8, .type = 11, .present = 1, .s = 1, .g = 1, .l = 1};
    sregs.cs = flat;
    flat.type = 3;
    flat.selector = 16;
    flat.l = 0;
    flat.db = 1;
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat;
    sregs.cr3 = PML4;
    sregs.cr4 = 0x20;       /* PAE */
    sregs.cr0 = 0x80000015; /* PG, ET, EM, PE */
    sregs.efer = 0x500;     /* LMA, LME */
    if (ioctl(probe->vcpu, KVM_SET_SREGS, &sregs) != 0) {
        return "SET_SREGS";
    }
    struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rflags = 2};
    return ioctl(probe->vcpu, KVM_SET_REGS, &regs) != 0 ? "SET_REGS" : NULL;
}

/* While KVM_RUN runs SIGUSR1 is let through, though the thread blocks it: the call then returns
 * EINTR and no handler runs, so this probe changes nothing for its process. */
static const char *set_signal_mask(const struct probe *probe)
{
    struct { /* struct kvm_signal_mask: its set of 64 signals follows at once, unaligned */
        uint32_t len, low, high;
    } mask = {.len = sizeof(uint64_t), .low = ~(1u << (SIGUSR1 - 1)), .high = ~0u};
    return ioctl(probe->vcpu, KVM_SET_SIGNAL_MASK, &mask) != 0 ? "SET_SIGNAL_MASK" : NULL;
}

static const char *make_machine(struct probe *probe)
{
    probe->vm = ioctl(probe->kvm, KVM_CREATE_VM, 0);
    if (probe->vm < 0) {
        return "CREATE_VM";
    }
    fcntl(probe->vm, F_SETFD, FD_CLOEXEC);
    ioctl(probe->vm, KVM_SET_TSS_ADDR, 0xfffbd000UL); /* asked for by Intel's, ignored elsewhere */
    const char *failed = make_memory(probe);
    if (failed != NULL) {
        return failed;
    }
    probe->vcpu = ioctl(probe->vm, KVM_CREATE_VCPU, 0);
    if (probe->vcpu < 0) {
        return "CREATE_VCPU";
    }
    fcntl(probe->vcpu, F_SETFD, FD_CLOEXEC);
    int size = ioctl(probe->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    probe->run_size = size > 0 ? (size_t)size : 0;
    probe->run = size > 0 ? map(probe->run_size, MAP_SHARED, probe->vcpu) : NULL;
    if (probe->run == NULL) {
        return "the vCPU's shared page";
    }
    failed = set_cpuid(probe);
    failed = failed == NULL ? set_registers(probe) : failed;
    return failed == NULL ? set_signal_mask(probe) : failed;
}

/* ---- running it ------------------------------------------------------------------------------ */

/* True while the guest reports what it should. */
static bool note_progress(struct probe *probe, int64_t *lap_start)
{
    const struct kvm_run *run = probe->run;
    if (run->exit_reason != KVM_EXIT_IO || run->io.port != PORT) {
        probe->exit_reason = run->exit_reason;
        probe->suberror = run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0;
        return false;
    }
    if (*((const uint8_t *)run + run->io.data_offset) == STAGE_FPU) {
        probe->fpu_done = true;
        return true;
    }
    int64_t now = clock_mono_us();
    if (*lap_start != 0) {
        int64_t took = now - *lap_start;
        probe->best_lap_us =
            probe->laps == 0 || took < probe->best_lap_us ? took : probe->best_lap_us;
        probe->laps++;
    }
    *lap_start = now;
    return probe->laps < LAPS;
}

static void *run_vcpu(void *argument)
{
    struct probe *probe = argument;
    int64_t lap_start = 0;
    do {
        if (ioctl(probe->vcpu, KVM_RUN, 0) != 0) {
            probe->failed = errno;
            return NULL;
        }
    } while (note_progress(probe, &lap_start));
    return NULL;
}

/* 0, or what pthread_create said. */
static int run_machine(struct probe *probe)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int r = pthread_create(&thread, NULL, run_vcpu, probe);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (r != 0) {
        return r;
    }
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += DEADLINE_S;
    if (pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
        pthread_kill(thread, SIGUSR1);
        pthread_join(thread, NULL);
    }
    return 0;
}

/* ---- the verdict ----------------------------------------------------------------------------- */

enum { REASON_MAX = 160 };

static enum priv_kvm judge(const struct probe *probe, char reason[static REASON_MAX])
{
    const char *where = probe->fpu_done ? "a counting loop" : "the FPU set-up";
    if (probe->failed == EINTR) {
        snprintf(reason, REASON_MAX, "KVM did not get through %s in %d s", where, DEADLINE_S);
    } else if (probe->failed != 0) {
        snprintf(reason, REASON_MAX, "KVM_RUN failed in %s: %s", where, strerror(probe->failed));
    } else if (probe->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
        snprintf(reason, REASON_MAX,
                 "KVM gave up in %s of a 64-bit kernel (KVM_EXIT_INTERNAL_ERROR, suberror %u)",
                 where, probe->suberror);
    } else if (probe->exit_reason != 0) {
        snprintf(reason, REASON_MAX, "the test machine ended in %s (KVM exit %u)", where,
                 probe->exit_reason);
    } else if (probe->best_lap_us >= LAP_EMULATED_US) {
        snprintf(reason, REASON_MAX,
                 "KVM emulates kernel code instead of running it: %d turns of a loop took %lld µs, "
                 "not 5",
                 LAP_TURNS, (long long)probe->best_lap_us);
    } else {
        snprintf(reason, REASON_MAX, "KVM runs 64-bit kernel code (%d turns of a loop in %lld µs)",
                 LAP_TURNS, (long long)probe->best_lap_us);
        return PRIV_KVM_OK;
    }
    return PRIV_KVM_EMULATED;
}

static enum priv_kvm cannot_open(int error, char reason[static REASON_MAX])
{
    bool denied = error == EACCES || error == EPERM;
    snprintf(reason, REASON_MAX, "/dev/kvm: %s; %s", strerror(error),
             denied ? "run as root, and let the container or cgroup use the device"
                    : "load kvm_intel or kvm_amd, or switch virtualisation on in the firmware");
    return denied ? PRIV_KVM_DENIED : PRIV_KVM_MISSING;
}

enum priv_kvm priv_kvm_probe(char reason[static 160])
{
    cleanup(probe_release) struct probe probe = {.kvm = -1, .vm = -1, .vcpu = -1};
    probe.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (probe.kvm < 0) {
        return cannot_open(errno, reason);
    }
    if (ioctl(probe.kvm, KVM_GET_API_VERSION, 0) != KVM_API_VERSION) {
        snprintf(reason, REASON_MAX, "/dev/kvm does not speak KVM's API version %d",
                 KVM_API_VERSION);
        return PRIV_KVM_MISSING;
    }
    const char *failed = make_machine(&probe);
    if (failed != NULL) {
        snprintf(reason, REASON_MAX, "/dev/kvm opens, but makes no machine: %s: %s", failed,
                 strerror(errno));
        return PRIV_KVM_MISSING;
    }
    int r = run_machine(&probe);
    if (r != 0) {
        snprintf(reason, REASON_MAX, "no thread for a test machine: %s", strerror(r));
        return PRIV_KVM_MISSING;
    }
    return judge(&probe, reason);
}
