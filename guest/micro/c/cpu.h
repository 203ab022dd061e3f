/* Instructions that C has no words for. Some KVM hosts emulate the guest and know few instructions:
 * no SSE, no fences (a locked addition stands for the full barrier), no `int n`. */
#pragma once
#include "types.h"

INLINE void compiler_barrier(void) { __asm__ volatile("" ::: "memory"); }
/* Orders an earlier store before a later load; x86 keeps every other order by itself. */
INLINE void full_barrier(void) { __asm__ volatile("lock addl $0, (%%rsp)" ::: "memory", "cc"); }

INLINE void out8(u16 port, u8 value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }
INLINE u8 in8(u16 port)
{
    u8 value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

INLINE u32 mmio_read(u64 address)
{
    u32 value;
    __asm__ volatile("movl (%1), %0" : "=r"(value) : "r"(address) : "memory");
    return value;
}
INLINE void mmio_write(u64 address, u32 value)
{
    __asm__ volatile("movl %0, (%1)" ::"r"(value), "r"(address) : "memory");
}

INLINE u64 timestamp(void)
{
    u32 low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high));
    return low | (u64)high << 32;
}
INLINE void write_msr(u32 index, u64 value)
{
    __asm__ volatile("wrmsr" ::"c"(index), "a"((u32)value), "d"((u32)(value >> 32)) : "memory");
}
INLINE void cpuid(u32 leaf, u32 *a, u32 *b, u32 *c, u32 *d)
{
    __asm__ volatile("cpuid" : "=a"(*a), "=b"(*b), "=c"(*c), "=d"(*d) : "a"(leaf), "c"(0));
}
INLINE u64 read_cr2(void)
{
    u64 value;
    __asm__ volatile("movq %%cr2, %0" : "=r"(value));
    return value;
}

/* Halts until an interrupt came. `sti` takes effect after the next instruction, so an interrupt
 * that was already pending ends the halt instead of slipping in before it. */
INLINE void wait_for_interrupt(void) { __asm__ volatile("sti\n\thlt\n\tcli" ::: "memory"); }
INLINE void pause(void) { __asm__ volatile("pause" ::: "memory"); }

/* The number of the lowest bit that is set; `value` is not zero. */
INLINE u32 lowest_bit(u32 value)
{
    u32 bit;
    __asm__("bsfl %1, %0" : "=r"(bit) : "r"(value) : "cc");
    return bit;
}
/* Sets a bit in an array of bits and says whether it was set before. */
INLINE bool set_bit(u64 *bits, u64 number)
{
    bool was;
    __asm__ volatile("btsq %2, %1" : "=@ccc"(was), "+m"(*bits) : "r"(number) : "memory");
    return was;
}
INLINE void clear_bit(u64 *bits, u64 number)
{
    __asm__ volatile("btrq %1, %0" : "+m"(*bits) : "r"(number) : "memory", "cc");
}
