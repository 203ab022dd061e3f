/* The local APIC (xAPIC, memory mapped) and the I/O APIC. */
#pragma once
#include "types.h"

/* Bits of irq_pending; the vector is IRQ_VECTOR_BASE plus the bit's number. */
enum irq {
    IRQ_VSOCK,
    IRQ_BALLOON,
    IRQ_ENTROPY,
    IRQ_BLOCK,
    IRQ_CONSOLE,
    IRQ_TIMER,
};
#define IRQ_VECTOR_BASE 32

/* Set by the vectors (interrupts.S); interrupts are off wherever C reads it. */
extern u32 irq_pending;

static void apic_init(void);
/* Routes a global system interrupt, edge triggered, to this processor. */
static void apic_route(u32 gsi, enum irq irq);
/* One IRQ_TIMER after so many nanoseconds, or earlier when that is far away; 0 switches it off. */
static void apic_timer(u64 nanoseconds);
/* What is left of the longest period that apic_timer can be set to; counts 1 each nanosecond. */
static u32 apic_timer_count(void);
