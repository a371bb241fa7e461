/*
 * The file Firecracker reads with --seccomp-filter: a map from thread name to program in bincode
 * 2.0.1's fixed little-endian form, as src/vmm/src/seccomp.rs of 1.12 … 1.14 decodes it:
 *
 *   u64 number of entries, then per entry
 *   u64 length of the name, the name, u64 number of instructions, 8 bytes per instruction
 *
 * It has no magic, version or checksum, and to Firecracker an empty program means "no filter".
 */
#include "priv/seccomp_internal.h"
#include <endian.h>

static const char *const thread_names[PRIV_THREAD_COUNT] = {
    [PRIV_THREAD_VMM] = "vmm",
    [PRIV_THREAD_API] = "api",
    [PRIV_THREAD_VCPU] = "vcpu",
};

enum { DECODER_BUDGET = 100000 }; /* bytes Firecracker is ready to decode */

static int append_u64(struct buf *out, uint64_t value)
{
    uint64_t little = htole64(value);
    return buf_append(out, &little, sizeof(little));
}

static int append_program(struct buf *out, const char *name, const struct priv_bpf *program)
{
    size_t len = strlen(name);
    if (append_u64(out, len) != 0 || buf_append(out, name, len) != 0 ||
        append_u64(out, program->count) != 0) {
        return -1;
    }
    /* sock_filter is code u16, jt u8, jf u8, k u32 in host order, which is little-endian here. */
    return buf_append(out, program->code, program->count * sizeof(struct sock_filter));
}

int priv_seccomp_encode(const struct priv_bpf programs[static PRIV_THREAD_COUNT], uint8_t **ret,
                        size_t *ret_len, struct error *err)
{
    cleanup(buf_release) struct buf out = {.max = DECODER_BUDGET};
    int r = append_u64(&out, PRIV_THREAD_COUNT);
    for (size_t i = 0; r == 0 && i < PRIV_THREAD_COUNT; i++) {
        if (programs[i].count == 0 || programs[i].count > BPF_MAXINSNS) {
            return error_set(err, ERR_INTERNAL, 0,
                             "refusing a seccomp program of %zu instructions for Firecracker's %s "
                             "thread: it would run unfiltered",
                             programs[i].count, thread_names[i]);
        }
        r = append_program(&out, thread_names[i], &programs[i]);
    }
    if (r != 0) {
        return error_set(err, ERR_INTERNAL, 0,
                         "no memory for the seccomp file, or it would pass %d bytes",
                         DECODER_BUDGET);
    }
    *ret_len = out.len;
    *ret = (uint8_t *)TAKE_PTR(out.data);
    return 0;
}

/* 1.12.N, 1.13.N, 1.14.N: from 1.15 on Firecracker reads another encoding. */
static bool version_known(const char *version)
{
    if (strncmp(version, "1.12.", 5) != 0 && strncmp(version, "1.13.", 5) != 0 &&
        strncmp(version, "1.14.", 5) != 0) {
        return false;
    }
    size_t patch = strspn(version + 5, "0123456789");
    return patch != 0 && version[5 + patch] == '\0';
}

static void release_programs(struct priv_bpf (*programs)[PRIV_THREAD_COUNT])
{
    for (size_t i = 0; i < PRIV_THREAD_COUNT; i++) {
        priv_bpf_release(&(*programs)[i]);
    }
}

int priv_seccomp_firecracker_file(enum priv_seccomp level, const char *version, uint8_t **ret,
                                  size_t *ret_len, struct error *err)
{
    if (!version_known(version)) {
        return error_set(err, ERR_SECCOMP_LEVEL, 0,
                         "no seccomp file can be written for Firecracker \"%.32s\": its format is "
                         "known for 1.12 to 1.14; use one of these, or level minimal, which is "
                         "built into Firecracker",
                         version);
    }
    cleanup(release_programs) struct priv_bpf programs[PRIV_THREAD_COUNT] = {0};
    for (unsigned i = 0; i < PRIV_THREAD_COUNT; i++) {
        if (priv_seccomp_firecracker(level, (enum priv_seccomp_thread)i, &programs[i], err) != 0) {
            return -1;
        }
    }
    return priv_seccomp_encode(programs, ret, ret_len, err);
}
