/* From the table to BPF: libseccomp builds a program, a memfd carries it out. */
#include "priv/seccomp_internal.h"
#include <errno.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct source {
    const char *name; /* for messages */
    const struct priv_seccomp_rule *rules;
    size_t count;
    unsigned threads;
    enum priv_seccomp level;
    uint32_t otherwise; /* SCMP_ACT_… of what no rule names */
    uint32_t optimize;  /* SCMP_FLTATR_CTL_OPTIMIZE: 1 in order of number, 2 binary tree */
};

void priv_bpf_release(struct priv_bpf *bpf)
{
    free(bpf->code);
    *bpf = (struct priv_bpf){0};
}

static void cleanup_context(scmp_filter_ctx *context)
{
    if (*context != NULL) {
        seccomp_release(*context);
    }
}

static int add_rule(scmp_filter_ctx context, const struct priv_seccomp_rule *rule)
{
    struct scmp_arg_cmp compare[PRIV_SECCOMP_ARGS_MAX];
    unsigned used = 0;
    for (size_t i = 0; i < PRIV_SECCOMP_ARGS_MAX; i++) {
        const struct priv_seccomp_arg *arg = &rule->args[i];
        if (arg->mask != 0) {
            compare[used++] = (struct scmp_arg_cmp){.arg = arg->index,
                                                    .op = SCMP_CMP_MASKED_EQ,
                                                    .datum_a = arg->mask,
                                                    .datum_b = arg->value};
        }
    }
    return seccomp_rule_add_array(context, rule->action, rule->nr, used, compare);
}

static int fill(scmp_filter_ctx context, const struct source *source, struct error *err)
{
    /* Other ABIs (int 0x80, x32) number their calls differently: nobody here uses them. */
    int r = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    if (r == 0) {
        r = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, source->optimize);
    }
    for (size_t i = 0; r == 0 && i < source->count; i++) {
        const struct priv_seccomp_rule *rule = &source->rules[i];
        if ((rule->threads & source->threads) != 0 && rule->level <= source->level) {
            r = add_rule(context, rule);
        }
    }
    if (r != 0) {
        return error_set(err, ERR_INTERNAL, -r, "libseccomp refused the %s filter", source->name);
    }
    return 0;
}

/* libseccomp 2.5 exports to descriptors only. */
static int export(scmp_filter_ctx context, const struct source *source, struct priv_bpf *ret,
                  struct error *err)
{
    cleanup_close int fd = memfd_create("seccomp", MFD_CLOEXEC);
    if (fd < 0) {
        return error_set(err, ERR_SYSTEM, errno, "cannot create a memory file");
    }
    int r = seccomp_export_bpf(context, fd);
    if (r != 0) {
        return error_set(err, ERR_INTERNAL, -r, "libseccomp did not export the %s filter",
                         source->name);
    }
    struct stat st;
    if (fstat(fd, &st) != 0) {
        return error_set(err, ERR_SYSTEM, errno, "cannot measure the %s filter", source->name);
    }
    size_t size = (size_t)st.st_size, count = size / sizeof(struct sock_filter);
    if (count == 0 || count > BPF_MAXINSNS || size % sizeof(struct sock_filter) != 0) {
        return error_set(err, ERR_INTERNAL, 0,
                         "libseccomp made a %s filter of %zu bytes, which the kernel would refuse",
                         source->name, size);
    }
    cleanup_free struct sock_filter *code = malloc(size);
    if (code == NULL) {
        return error_set(err, ERR_NO_MEMORY, 0, "no memory for the %s filter", source->name);
    }
    if (pread(fd, code, size, 0) != (ssize_t)size) {
        return error_set(err, ERR_SYSTEM, errno, "cannot read the %s filter back", source->name);
    }
    *ret = (struct priv_bpf){.code = TAKE_PTR(code), .count = count};
    return 0;
}

static int compile(const struct source *source, struct priv_bpf *ret, struct error *err)
{
    cleanup(cleanup_context) scmp_filter_ctx context = seccomp_init(source->otherwise);
    if (context == NULL) {
        return error_set(
            err, ERR_INTERNAL, 0,
            "libseccomp cannot start a filter: does this kernel have CONFIG_SECCOMP_FILTER?");
    }
    if (fill(context, source, err) != 0) {
        return -1;
    }
    return export(context, source, ret, err);
}

static int check_level(enum priv_seccomp level, struct error *err)
{
    if (level < PRIV_SECCOMP_MINIMAL || level > PRIV_SECCOMP_PERMISSIVE) {
        return error_set(err, ERR_SECCOMP_LEVEL, 0,
                         "unknown seccomp level: use minimal, basic or permissive");
    }
    return 0;
}

int priv_seccomp_firecracker(enum priv_seccomp level, enum priv_seccomp_thread thread,
                             struct priv_bpf *ret, struct error *err)
{
    if (check_level(level, err) != 0) {
        return -1;
    }
    /* TRAP, not KILL: Firecracker's handler then names the call in its log and exits with 148. */
    struct source source = {
        .name = "Firecracker",
        .rules = priv_seccomp_firecracker_rules,
        .count = priv_seccomp_firecracker_rule_count,
        .threads = 1u << thread,
        .level = level,
        .otherwise = level == PRIV_SECCOMP_PERMISSIVE ? SCMP_ACT_LOG : SCMP_ACT_TRAP,
        .optimize = 1,
    };
    return compile(&source, ret, err);
}

int priv_seccomp_qemu(enum priv_seccomp level, struct priv_bpf *ret, struct error *err)
{
    if (check_level(level, err) != 0) {
        return -1;
    }
    struct source source = {
        .name = "QEMU",
        .rules = priv_seccomp_qemu_rules,
        .count = priv_seccomp_qemu_rule_count,
        .threads = ~0u,
        .level = level,
        .otherwise = level == PRIV_SECCOMP_PERMISSIVE ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS,
        .optimize = 2,
    };
    return compile(&source, ret, err);
}

int priv_seccomp_launcher(struct priv_bpf *ret, struct error *err)
{
    struct source source = {
        .name = "launcher",
        .rules = priv_seccomp_launcher_rules,
        .count = priv_seccomp_launcher_rule_count,
        .threads = ~0u,
        .level = PRIV_SECCOMP_MINIMAL,
        .otherwise = SCMP_ACT_ALLOW,
        .optimize = 2,
    };
    return compile(&source, ret, err);
}

int priv_seccomp_load(const struct priv_bpf *bpf)
{
    struct sock_fprog program = {.len = (unsigned short)bpf->count, .filter = bpf->code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}
