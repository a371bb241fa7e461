/*
 * The test guest: a freestanding program that a VMM boots in the place of Linux, so that tests run
 * the whole production path (KVM, jailer, vsock) in milliseconds. It speaks Motte's wire
 * (vsock/wire.h) over virtio-vsock: hello at boot and after a restore, then ping, hello, exec,
 * put, get, remove and restore on WIRE_PORT_SERVICE, 64 connections at once. Needs 32 MiB; what there is
 * more, up to 2 GiB, holds its files (file.h), unless hog or chatter overwrites them. From the kernel command line it takes
 * `motte.instance=` and the `virtio_mmio.device=` that Firecracker appends; with 11 or more devices
 * before the vsock device its interrupt is beyond the 8259 and the guest stops.
 *
 * exec emulates commands by the last component of argv[0]:
 *   echo ARGS…    the arguments, joined by a space, and a newline
 *   cat           stdin to stdout until the end of stdin
 *   exit N, true, false
 *   stderr TEXT   TEXT and a newline to stderr
 *   flood N       N bytes to stdout; the byte at offset i is i mod 251
 *   sleep [S]     ends after S seconds; without S never
 *   disk [N]      first 16 bytes of the N-th virtio-blk device (0 is the first), in hex
 *   diskwrite [N] overwrites its first sector and prints "status S": 0 written, 1 refused, 255
 *                 silence
 *   identity      "INSTANCE GENERATION HOSTNAME MACHINE_ID", the last two "-" before a restore
 *   generation    what the last restore said it is; 0 before
 *   random        the next 16 bytes of its random numbers, in hex; they were seeded once, at boot, and
 *                 by each restore, so that clones which are not restored have the same
 *   wall          its wall clock in milliseconds; counts from boot until a restore sets it
 *   betray WHAT   what it does with the restores to come: refuse, silent (no answer), skew (leaves
 *                 its clock as it is and says that it was right), mute (answers, and never says
 *                 hello), stay (answers, and remains who it was)
 *   pauses        how many milliseconds it was kept from looking at its clock at most, since the
 *                 last time, or since the first
 *   reboot        i8042 reset
 *   crash         triple fault
 *   hang          stops for ever, the VMM lives on
 *   lie WHAT      breaks the protocol (liar.c), deaf to a kill and the clock
 *   storm N [P]   N connections to the host at once, to port P or to ports 1…N; "opened M"
 *   console N     N bytes to the console
 *   say WORDS…    the words and a newline to the console
 *   chatter [N [M]]  prints how many bytes it has chattered; from now on, connected or not, writes N
 *                 to the console, and then touches M MiB as hog does
 *   hog N         touches N MiB of memory from 32 MiB on
 * Anything else: a message on stderr, exit 127. A command without use for stdin discards it.
 * Numbers are decimal. env, cwd and user are ignored. With `motte.lie=WHAT` on the kernel command
 * line its hello is such a lie, and with `motte.betray=WHAT` it betrays.
 *
 * An exec on the hello connection and a request during an exec are refused; bad frames, bad JSON
 * and ids that do not grow end the connection.
 */
#ifndef MOTTE_TESTS_GUEST_H
#define MOTTE_TESTS_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- start.S: ring 0 ------------------------------------------------------------------------ */

enum guest_trap {
    TRAP_IDLE = 0, /* sleeps unless the interrupt count differs from arg; returns the count */
    /* 1…255: that character to the console */
    TRAP_RESET = 256,
    TRAP_HANG = 257,
    TRAP_CRASH = 258,
    TRAP_MASKS = 0x10000, /* + the two masks of the 8259 */
    TRAP_TIMER = 0x20000, /* + ticks of the PIT until one interrupt */
};

uint32_t guest_trap(uint32_t request, uint32_t arg);

/* What KVM writes (Linux Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW). */
struct guest_clock {
    volatile uint32_t version;
    uint32_t pad;
    uint64_t tsc, nanoseconds;
    uint32_t multiplier;
    int8_t shift;
    uint8_t flags, pad_end[2];
};

/* ---- lib.c ---------------------------------------------------------------------------------- */

void *memcpy(void *to, const void *from, size_t len);
void *memset(void *to, int byte, size_t len);
bool guest_equal(const char *a, const char *b);
/* The text after the first `key` in `text`, or NULL. */
const char *guest_find(const char *text, const char *key);
unsigned guest_digit(char c); /* hexadecimal; 16: none */
/* Decimal or 0x…; moves *text behind it. */
uint64_t guest_number(const char **text);
/* Each writes at `to` without a bound and returns the place behind; guest_put_text ends in NUL. */
char *guest_put_text(char *to, const char *text);
char *guest_put_number(char *to, uint64_t value);
char *guest_put_hex(char *to, const uint8_t *bytes, size_t len);
void guest_say(const char *text); /* to the console: slow */
uint64_t guest_tsc(void);
/* Milliseconds since the VM was made; stays 0 where KVM offers no clock. */
uint64_t guest_clock_ms(void);

#define guest_barrier() __asm__ volatile("" ::: "memory")

#endif
