/* The clock: KVM's paravirtual one, or the time-stamp counter measured against the APIC's timer.
 * Nothing is set up or measured before the first use. */
#pragma once
#include "types.h"

/* Makes the clock usable now instead of at the first use. */
static void clock_init(void);
/* Nanoseconds since the machine was created (without KVM's clock: since boot). */
static u64 clock_now(void);
/* Converts a difference of time stamps to nanoseconds. */
static u64 clock_nanoseconds(u64 ticks);
/* The host told the wall clock: nanoseconds since 1970. */
static void clock_set_wall(u64 unix_nanoseconds);
/* The wall clock, or 0 when nobody told it. */
static u64 clock_wall(void);
