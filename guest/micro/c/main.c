/* Booting, and the loop that everything else hangs on. */
#include "agent.h"
#include "apic.h"
#include "balloon.h"
#include "block.h"
#include "boot_info.h"
#include "clock.h"
#include "command_line.h"
#include "console.h"
#include "entropy.h"
#include "exec.h"
#include "memory.h"
#include "memory_layout.h"
#include "timers.h"
#include "touched.h"
#include "virtio.h"
#include "vsock.h"

/* Handles the interrupts that have come. Each is a bit that a vector has set. */
INLINE void handle_interrupts(void)
{
    while (unlikely(irq_pending != 0)) {
        u32 pending = irq_pending;
        irq_pending = 0;
        if (likely((pending & 1u << IRQ_VSOCK) != 0)) {
            vsock_interrupt();
        }
        if (likely((pending & ~(1u << IRQ_VSOCK)) == 0)) {
            continue;
        }
        if ((pending & 1u << IRQ_TIMER) != 0) {
            timers_interrupt();
        }
        if ((pending & 1u << IRQ_BALLOON) != 0) {
            balloon_interrupt();
        }
        if ((pending & 1u << IRQ_ENTROPY) != 0) {
            entropy_interrupt();
        }
        if ((pending & 1u << IRQ_BLOCK) != 0) {
            block_interrupt();
        }
    }
}

/* Lets interrupts in that are already there. */
static NOINLINE void poll(void)
{
    __asm__ volatile("sti\n\tnop\n\tcli" ::: "memory");
    handle_interrupts();
}

struct found {
    u64 base;
    u32 gsi;
};

/* The host hears of the guest as early as possible: vsock comes first and the other devices are set
 * up while the host answers. Of each kind the first device is used. */
static void find_devices(struct found found[20])
{
    for (u32 i = 0; i < command_line.device_count; i++) {
        const struct mmio_device *device = &command_line.devices[i];
        u32 kind = mmio_read(device->base + VIRTIO_DEVICE_ID);
        if (kind >= 20 || found[kind].base != 0) {
            continue;
        }
        found[kind].base = device->base;
        found[kind].gsi = device->gsi;
        if (kind == VIRTIO_VSOCK) {
            apic_route(device->gsi, IRQ_VSOCK);
            vsock_init(device->base);
            agent_dial();
        }
    }
}

static void set_up_others(const struct found found[20])
{
    /* Before the first poll: a command that comes then may want the disk, or randomness. */
    if (found[VIRTIO_BLOCK].base != 0) {
        apic_route(found[VIRTIO_BLOCK].gsi, IRQ_BLOCK);
        block_found(found[VIRTIO_BLOCK].base);
    }
    if (found[VIRTIO_ENTROPY].base != 0) {
        entropy_found();
    }
    if (found[VIRTIO_BALLOON].base != 0) {
        apic_route(found[VIRTIO_BALLOON].gsi, IRQ_BALLOON);
        balloon_init(found[VIRTIO_BALLOON].base);
        poll();
    }
    if (found[VIRTIO_ENTROPY].base != 0) {
        apic_route(found[VIRTIO_ENTROPY].gsi, IRQ_ENTROPY);
        entropy_init(found[VIRTIO_ENTROPY].base);
        poll();
    }
    if (found[VIRTIO_CONSOLE].base != 0) {
        console_init(found[VIRTIO_CONSOLE].base);
        poll();
    }
}

/* vmoon.run=WORD,WORD,…: as if a host had asked for it. */
static COLD void run_from_command_line(void)
{
    u8 *payload = block_allocate();

    store64(payload, 2 | (u64)command_line.run_length << 32); /* one field: a shell text */
    copy(payload + 8, command_line.run, command_line.run_length);
    for (u32 i = 0; i < command_line.run_length; i++) {
        if (payload[8 + i] == ',') {
            payload[8 + i] = ' ';
        }
    }
    exec_run(connection_console(), 0, payload, 8 + command_line.run_length);
    block_free(payload);
}

NORETURN __attribute__((used)) void main(bool pvh, u64 info)
{
    static struct found found[20];

    boot_info_read(pvh, info);
    touched_limit(memory.region_pages);
    apic_init();
    find_devices(found);
    set_up_others(found);
    console_write("vmoon micro: ready\n", 19);
    poll();
    clock_init();
    if (command_line.run != NULL) {
        run_from_command_line();
    }
    for (;;) {
        handle_interrupts();
        wait_for_interrupt();
    }
}
