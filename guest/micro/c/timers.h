/* Deadlines. The APIC's timer runs only while there is one. */
#pragma once
#include "types.h"

struct timer {
    u64 at; /* by clock_now */
    void (*fire)(struct timer *timer);
    struct timer *next;
    struct timer **link; /* what points here; NULL while the timer is off */
};

/* Calls `timer->fire` so many nanoseconds from now. */
static void timer_start(struct timer *timer, u64 nanoseconds);
static void timer_stop(struct timer *timer);
static void timers_interrupt(void);
