/* Where start.S goes on, in ring 3. */
#include "mischief.h"

enum {
    CMDLINE_OFFSET = 6,   /* of struct hvm_start_info, in words */
    IRQ_LINES = 16,       /* what the 8259 serves; Firecracker hands out 5…23 */
    MASKS_TIMER = 0xfffa, /* all lines masked but the PIT and the second 8259 */
    TICKS_PER_MS = 1193,  /* of the PIT */
    TICKS_MAX = 65535,
};

_Noreturn void guest_main(const uint32_t *start_info);

static void read_instance(struct guest *guest)
{
    const char *from = guest_find(guest->cmdline, "motte.instance=");
    for (size_t i = 0; from && i + 1 < sizeof(guest->identity.instance); i++) {
        bool fits = (from[i] >= 'a' && from[i] <= 'z') || (from[i] >= '2' && from[i] <= '7');
        if (!fits) {
            break;
        }
        guest->identity.instance[i] = from[i];
    }
}

/* The PIT counts 54 ms at most: a longer sleep is several. */
static void set_timer(uint64_t wake_ms)
{
    uint64_t now = guest_clock_ms();
    uint64_t ticks = wake_ms > now ? (wake_ms - now + 1) * TICKS_PER_MS : TICKS_PER_MS;
    guest_trap(TRAP_TIMER + (uint32_t)(ticks < TICKS_MAX ? ticks : TICKS_MAX), 0);
}

_Noreturn static void serve(struct guest *guest)
{
    for (uint32_t interrupts = 0;;) {
        bool any = vsock_receive(&guest->vsock);
        any |= session_step(guest);
        any |= mischief_chatter(guest);
        vsock_flush(&guest->vsock);
        if (any) {
            continue;
        }
        uint64_t wake_ms = session_wake_ms(guest);
        if (wake_ms) {
            set_timer(wake_ms);
        }
        interrupts = guest_trap(TRAP_IDLE, interrupts);
    }
}

_Noreturn void guest_main(const uint32_t *start_info)
{
    static struct guest guest;
    struct virtio_device device;

    guest.cmdline = (const char *)(uintptr_t)start_info[CMDLINE_OFFSET];
    read_instance(&guest);
    random_seed(&guest.random);
    if (!virtio_find(guest.cmdline, VIRTIO_VSOCK, 0, &device) || device.irq >= IRQ_LINES) {
        guest_say("test guest: no vsock device below IRQ 16\n");
        for (;;) {
            guest_trap(TRAP_HANG, 0);
        }
    }
    guest_trap(TRAP_MASKS | (MASKS_TIMER & ~(1u << 2) & ~(1u << device.irq)), 0);
    file_start(&guest.files, start_info);
    vsock_start(&guest.vsock, &device);
    serve(&guest);
}
