#include "bpf.h"
#include <criterion/criterion.h>
#include <endian.h>
#include <linux/audit.h>

enum { ARGS = 6, CALLS = 512, VALUES_MAX = 1024 };

static uint32_t load(const struct seccomp_data *data, uint32_t offset, unsigned *args_read)
{
    cr_assert(offset % 4 == 0 && offset < sizeof(*data), "load at %u", offset);
    if (offset >= offsetof(struct seccomp_data, args)) {
        *args_read |= 1u << ((offset - offsetof(struct seccomp_data, args)) / 8);
    }
    uint32_t word;
    memcpy(&word, (const char *)data + offset, sizeof(word));
    return word;
}

static bool jump_taken(const struct sock_filter *at, uint32_t acc)
{
    switch (BPF_OP(at->code)) {
    case BPF_JEQ:
        return acc == at->k;
    case BPF_JGT:
        return acc > at->k;
    case BPF_JGE:
        return acc >= at->k;
    case BPF_JSET:
        return (acc & at->k) != 0;
    default:
        cr_assert_fail("jump %#x", at->code);
        return false;
    }
}

uint32_t bpf_run(const struct priv_bpf *bpf, const struct seccomp_data *data, unsigned *args_read)
{
    uint32_t acc = 0;
    unsigned unused = 0;
    for (size_t pc = 0; pc < bpf->count; pc++) {
        const struct sock_filter *at = &bpf->code[pc];
        switch (at->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            acc = load(data, at->k, args_read != NULL ? args_read : &unused);
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            acc &= at->k;
            break;
        case BPF_JMP | BPF_JA:
            pc += at->k;
            break;
        case BPF_RET | BPF_K:
            return at->k;
        default:
            cr_assert_eq(BPF_CLASS(at->code), BPF_JMP, "instruction %#x", at->code);
            pc += jump_taken(at, acc) ? at->jt : at->jf;
        }
    }
    cr_assert_fail("program without end");
    return 0;
}

/* Per argument: what it is compared with. A verdict can depend on nothing else. */
struct grid {
    const struct bpf_pair *pair;
    uint64_t values[ARGS][VALUES_MAX];
    size_t counts[ARGS];
};

static void add_value(struct grid *grid, size_t arg, uint64_t value)
{
    for (size_t i = 0; i < grid->counts[arg]; i++) {
        if (grid->values[arg][i] == value) {
            return;
        }
    }
    cr_assert_lt(grid->counts[arg], VALUES_MAX);
    grid->values[arg][grid->counts[arg]++] = value;
}

/* Whatever is compared after an argument was loaded, until something else is loaded. */
static void add_constants(struct grid *grid, const struct priv_bpf *bpf)
{
    const size_t none = ARGS, args_at = offsetof(struct seccomp_data, args);
    size_t arg = none;
    for (size_t i = 0; i < bpf->count; i++) {
        const struct sock_filter *at = &bpf->code[i];
        if (BPF_CLASS(at->code) == BPF_LD) {
            arg = at->k >= args_at ? (at->k - args_at) / 8 : none;
        } else if (arg != none && BPF_CLASS(at->code) != BPF_RET) {
            add_value(grid, arg, at->k);
            add_value(grid, arg, (uint64_t)at->k + 1);
            add_value(grid, arg, (uint64_t)at->k - 1);
            add_value(grid, arg, (uint64_t)at->k | 0xdead00000000);
        }
    }
}

/* All tuples over the arguments in `varied`; returns which arguments were looked at. */
static unsigned walk(const struct grid *grid, struct seccomp_data *data, unsigned varied)
{
    size_t at[ARGS] = {0};
    unsigned seen = 0;
    for (;;) {
        for (size_t i = 0; i < ARGS; i++) {
            data->args[i] = (varied >> i & 1) != 0 ? grid->values[i][at[i]] : 0;
        }
        uint32_t left = bpf_run(grid->pair->left, data, &seen);
        uint32_t right = bpf_run(grid->pair->right, data, &seen);
        grid->pair->check(grid->pair->context, data, left, right);
        size_t i = 0;
        while (i < ARGS && ((varied >> i & 1) == 0 || ++at[i] == grid->counts[i])) {
            at[i++] = 0;
        }
        if (i == ARGS) {
            return seen;
        }
    }
}

void bpf_compare(const struct bpf_pair *pair)
{
    cleanup_free struct grid *grid = calloc(1, sizeof(*grid));
    cr_assert_not_null(grid);
    grid->pair = pair;
    add_constants(grid, pair->left);
    add_constants(grid, pair->right);
    for (int i = 0; i < 2 * CALLS; i++) {
        struct seccomp_data data = {.arch = AUDIT_ARCH_X86_64,
                                    .nr = i < CALLS ? i : BPF_X32 + i - CALLS};
        /* Nor can it depend on what was never loaded: vary what was, until no more is. */
        unsigned varied = 0, seen = 0;
        do {
            varied = seen;
            seen |= walk(grid, &data, varied);
        } while (seen != varied);
    }
}

struct reader {
    const uint8_t *at;
    size_t left;
};

static bool take(struct reader *reader, void *out, size_t len)
{
    if (reader->left < len) {
        return false;
    }
    memcpy(out, reader->at, len);
    reader->at += len;
    reader->left -= len;
    return true;
}

static bool take_u64(struct reader *reader, uint64_t *ret)
{
    bool ok = take(reader, ret, sizeof(*ret));
    *ret = le64toh(*ret);
    return ok;
}

static bool take_program(struct reader *reader, struct priv_bpf ret[static PRIV_THREAD_COUNT])
{
    static const char *const names[] = {"vmm", "api", "vcpu"};
    uint64_t len = 0, count = 0;
    char name[5] = {0};
    if (!take_u64(reader, &len) || len < 3 || len > 4 || !take(reader, name, len)) {
        return false;
    }
    if (!take_u64(reader, &count) || count == 0 || count > BPF_MAXINSNS) {
        return false;
    }
    for (size_t i = 0; i < PRIV_THREAD_COUNT; i++) {
        if (strcmp(name, names[i]) == 0 && ret[i].code == NULL) {
            ret[i].count = count;
            ret[i].code = calloc(count, sizeof(struct sock_filter));
            return take(reader, ret[i].code, count * sizeof(struct sock_filter));
        }
    }
    return false;
}

static bool take_map(struct reader reader, struct priv_bpf ret[static PRIV_THREAD_COUNT])
{
    uint64_t entries = 0;
    bool ok = take_u64(&reader, &entries) && entries == PRIV_THREAD_COUNT;
    for (size_t i = 0; ok && i < PRIV_THREAD_COUNT; i++) {
        ok = take_program(&reader, ret);
    }
    for (size_t i = 0; !ok && i < PRIV_THREAD_COUNT; i++) {
        priv_bpf_release(&ret[i]);
    }
    return ok;
}

bool bpf_extract(const char *path, struct priv_bpf ret[static PRIV_THREAD_COUNT])
{
    enum { SIZE_MAX_BYTES = 64 << 20 };
    cleanup_file FILE *file = fopen(path, "rbe");
    cleanup_free uint8_t *bytes = malloc(SIZE_MAX_BYTES);
    cr_assert(file != NULL && bytes != NULL, "%s: %m", path);
    size_t size = fread(bytes, 1, SIZE_MAX_BYTES, file);
    for (size_t i = 0; i < PRIV_THREAD_COUNT; i++) {
        ret[i] = (struct priv_bpf){0};
    }
    for (size_t at = 0; at + 16 < size; at++) {
        if (bytes[at] == PRIV_THREAD_COUNT &&
            take_map((struct reader){bytes + at, size - at}, ret)) {
            return true;
        }
    }
    return false;
}
