/* What is kept of a command's output: the newest, byte for byte, at its place. */
#include "tests/unit/base/random.h"
#include "vmm/exec_log.h"

#include <criterion/criterion.h>

enum { TOTAL = 200000, MEMORY = 20000, PIECE_MAX = 3000 };

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)(at * 31 + at / 251);
}

/* Everything from `from` on comes out once, in order, of the stream that it came by. */
static void check(const struct vmm_exec_log *log, const uint8_t *kinds, uint64_t at, size_t step)
{
    char out[PIECE_MAX];
    while (at < log->to) {
        enum wire_kind kind = WIRE_CONTROL;
        size_t len = vmm_exec_log_read(log, at, &kind, out, step);
        cr_assert(len > 0 && len <= step, "at %llu", (unsigned long long)at);
        for (size_t i = 0; i < len; i++)
            cr_assert((uint8_t)out[i] == byte_at(at + i) && kinds[at + i] == kind, "at %llu",
                      (unsigned long long)(at + i));
        at += len;
    }
    enum wire_kind kind;
    cr_assert_eq(vmm_exec_log_read(log, log->to, &kind, out, step), 0);
}

Test(vmm_exec_log, R31_keeps_the_newest_bytes_in_bounded_memory)
{
    static uint8_t kinds[TOTAL];
    struct random random = random_start();
    for (int round = 0; round < 20; round++) {
        struct vmm_exec_log log = {0};
        while (log.to < TOTAL - PIECE_MAX) {
            uint8_t piece[PIECE_MAX];
            size_t len = 1 + random_below(&random, random_below(&random, 4) == 0 ? PIECE_MAX : 40);
            enum wire_kind kind = random_below(&random, 3) == 0 ? WIRE_STDERR : WIRE_STDOUT;
            for (size_t i = 0; i < len; i++) {
                piece[i] = byte_at(log.to + i);
                kinds[log.to + i] = (uint8_t)kind;
            }
            cr_assert_eq(vmm_exec_log_append(&log, kind, piece, len), 0);
            vmm_exec_log_trim(&log, MEMORY);
            cr_assert_leq(log.memory, MEMORY);
            cr_assert(log.from <= log.to);
        }
        cr_assert_gt(log.from, 0);
        cr_assert_gt(log.to - log.from, MEMORY / 40, "small pieces share their room");
        check(&log, kinds, log.from, 1 + random_below(&random, PIECE_MAX - 1));
        check(&log, kinds, log.from + random_below(&random, log.to - log.from), 7);
        vmm_exec_log_clear(&log);
        cr_assert(log.memory == 0 && log.from == log.to);
    }
}

Test(vmm_exec_log, the_newest_piece_stays_whatever_the_limit)
{
    static uint8_t big[60000];
    struct vmm_exec_log log = {0};
    cr_assert_eq(vmm_exec_log_append(&log, WIRE_STDOUT, big, 10), 0);
    cr_assert_eq(vmm_exec_log_append(&log, WIRE_STDOUT, big, sizeof(big)), 0);
    vmm_exec_log_trim(&log, 100);
    cr_assert_eq(log.from, 10);
    cr_assert_eq(log.to, 10 + sizeof(big));
    vmm_exec_log_clear(&log);
}
