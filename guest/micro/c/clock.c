#include "clock.h"
#include "apic.h"
#include "cpu.h"

/* Linux's Documentation/virt/kvm/x86/msr.rst, MSR_KVM_SYSTEM_TIME_NEW. */
struct clock_page {
    u32 version; /* odd while the host writes */
    u32 padding;
    u64 timestamp;
    u64 system_time;
    u32 multiplier; /* nanoseconds = (ticks << shift) * multiplier >> 32 */
    signed char shift;
    u8 flags;
    u8 more_padding[2];
} __attribute__((aligned(32)));

enum {
    KVM_CPUID_SIGNATURE = 0x40000000,
    KVM_CPUID_FEATURES = 0x40000001,
    KVM_FEATURE_CLOCKSOURCE2 = 1 << 3,
    KVM_MSR_SYSTEM_TIME = 0x4b564d01,
    CALIBRATION_NANOSECONDS = 1000000,
};

HOT static volatile struct clock_page clock_page;
HOT static bool clock_ready;
HOT static u64 wall;           /* the wall clock as told, and */
HOT static u64 wall_timestamp; /* the time stamp when it was told */

static bool use_kvm_clock(void)
{
    u32 a, b, c, d;

    cpuid(KVM_CPUID_SIGNATURE, &a, &b, &c, &d);
    if (b != 0x4b4d564b || c != 0x564b4d56) { /* "KVMKVMKVM" */
        return false;
    }
    cpuid(KVM_CPUID_FEATURES, &a, &b, &c, &d);
    if ((a & KVM_FEATURE_CLOCKSOURCE2) == 0) {
        return false;
    }
    write_msr(KVM_MSR_SYSTEM_TIME, (u64)&clock_page | 1);
    for (u32 tries = 0; clock_page.multiplier == 0; tries++) {
        if (tries == 1000) {
            return false;
        }
        pause();
    }
    return true;
}

/* How many ticks pass in a millisecond of the APIC's timer. */
static COLD void measure(void)
{
    u64 start, ticks;
    u32 begin;

    apic_timer(0xffffffff);
    begin = apic_timer_count();
    start = timestamp();
    while (begin - apic_timer_count() < CALIBRATION_NANOSECONDS) {
        pause();
    }
    ticks = timestamp() - start;
    apic_timer(0);
    /* The multiplier is below 2^32 for a counter of more than 1 GHz; a slower one is scaled up. */
    clock_page.shift = ticks > CALIBRATION_NANOSECONDS ? 0 : 5;
    clock_page.multiplier =
        (u32)(((u64)CALIBRATION_NANOSECONDS << (32 - clock_page.shift)) / ticks);
    clock_page.timestamp = start;
}

static NOINLINE void clock_init(void)
{
    if (!clock_ready) {
        clock_ready = true;
        if (!use_kvm_clock()) {
            measure();
        }
    }
}

static u64 scale(u64 ticks)
{
    signed char shift = clock_page.shift;

    if (likely(ticks >> 32 == 0)) {
        return ticks * clock_page.multiplier >> (32 - shift);
    }
    ticks = shift >= 0 ? ticks << shift : ticks >> -shift;
    return (u64)((unsigned __int128)ticks * clock_page.multiplier >> 32);
}

static u64 clock_now(void)
{
    u64 now;
    u32 version;

    if (unlikely(!clock_ready)) {
        clock_init();
    }
    do {
        version = clock_page.version;
        now = clock_page.system_time + scale(timestamp() - clock_page.timestamp);
    } while (unlikely((version & 1) != 0 || version != clock_page.version));
    return now;
}

static u64 clock_nanoseconds(u64 ticks)
{
    if (unlikely(!clock_ready)) {
        clock_init();
    }
    return scale(ticks);
}

static void clock_set_wall(u64 unix_nanoseconds)
{
    wall = unix_nanoseconds;
    wall_timestamp = timestamp();
}

static u64 clock_wall(void)
{
    return wall == 0 ? 0 : wall + clock_nanoseconds(timestamp() - wall_timestamp);
}
