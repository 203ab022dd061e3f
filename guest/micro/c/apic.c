#include "apic.h"
#include "cpu.h"

#define LOCAL_APIC 0xfee00000ul
#define IO_APIC 0xfec00000ul

enum {
    APIC_ID = 0x020,
    APIC_SPURIOUS = 0x0f0,
    APIC_LVT_TIMER = 0x320,
    APIC_LVT_LINT0 = 0x350,
    APIC_TIMER_INITIAL = 0x380,
    APIC_TIMER_CURRENT = 0x390,
    APIC_TIMER_DIVIDE = 0x3e0,

    APIC_ENABLE = 0x100,
    APIC_MASKED = 0x10000,
    APIC_DIVIDE_BY_1 = 0xb,
    SPURIOUS_VECTOR = 63,

    IO_APIC_SELECT = 0x00,
    IO_APIC_WINDOW = 0x10,
    IO_APIC_REDIRECTION = 0x10,
};

HOT u32 irq_pending;
HOT static u32 processor; /* this processor's APIC id */
HOT static bool timer_ready;

static void apic_init(void)
{
    mmio_write(LOCAL_APIC + APIC_SPURIOUS, APIC_ENABLE | SPURIOUS_VECTOR);
    /* The legacy interrupt controller hangs on LINT0, and sees the same lines as the I/O APIC. */
    mmio_write(LOCAL_APIC + APIC_LVT_LINT0, APIC_MASKED);
    processor = mmio_read(LOCAL_APIC + APIC_ID) >> 24;
}

static void apic_route(u32 gsi, enum irq irq)
{
    u32 entry = IO_APIC_REDIRECTION + 2 * gsi;

    mmio_write(IO_APIC + IO_APIC_SELECT, entry + 1);
    mmio_write(IO_APIC + IO_APIC_WINDOW, processor << 24);
    mmio_write(IO_APIC + IO_APIC_SELECT, entry);
    mmio_write(IO_APIC + IO_APIC_WINDOW, IRQ_VECTOR_BASE + (u32)irq);
}

/* The timer counts at the bus frequency, which is 1 GHz in KVM and in QEMU. */
static void apic_timer(u64 nanoseconds)
{
    if (!timer_ready) {
        timer_ready = true;
        mmio_write(LOCAL_APIC + APIC_TIMER_DIVIDE, APIC_DIVIDE_BY_1);
        mmio_write(LOCAL_APIC + APIC_LVT_TIMER, IRQ_VECTOR_BASE + IRQ_TIMER);
    }
    mmio_write(LOCAL_APIC + APIC_TIMER_INITIAL,
               nanoseconds > 0xffffffff ? 0xffffffff : (u32)nanoseconds);
}

static u32 apic_timer_count(void) { return mmio_read(LOCAL_APIC + APIC_TIMER_CURRENT); }
