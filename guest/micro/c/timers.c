#include "timers.h"
#include "apic.h"
#include "clock.h"

#define NEVER (~0ul)

HOT static struct timer *timers;
HOT static u64 armed = NEVER; /* when the APIC's timer is due */

static void arm(u64 now, u64 at)
{
    armed = at;
    apic_timer(at == NEVER ? 0 : at > now ? at - now : 1);
}

static void timer_start(struct timer *timer, u64 nanoseconds)
{
    u64 now = clock_now();

    timer_stop(timer);
    if (__builtin_add_overflow(now, nanoseconds, &timer->at)) {
        timer->at = NEVER - 1;
    }
    timer->next = timers;
    timer->link = &timers;
    if (timers != NULL) {
        timers->link = &timer->next;
    }
    timers = timer;
    if (timer->at < armed) {
        arm(now, timer->at);
    }
}

static void timer_stop(struct timer *timer)
{
    if (timer->link != NULL) {
        *timer->link = timer->next;
        if (timer->next != NULL) {
            timer->next->link = timer->link;
        }
        timer->link = NULL;
    }
}

static void timers_interrupt(void)
{
    u64 now = clock_now();
    u64 next = NEVER;
    struct timer *timer = timers;

    while (timer != NULL) {
        if (timer->at <= now) {
            timer_stop(timer);
            timer->fire(timer);
            /* That may have stopped or started any other. */
            timer = timers;
            next = NEVER;
            continue;
        }
        if (timer->at < next) {
            next = timer->at;
        }
        timer = timer->next;
    }
    arm(now, next);
}
