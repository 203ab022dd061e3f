/* The ways to end. */
#pragma once
#include "types.h"

/* Says why on the console, tells the host through pvpanic, and stops. */
static NORETURN COLD void panic(const char *why);
static NORETURN COLD void power_off(void);
static NORETURN COLD void reboot(void);
/* Spins with interrupts off, for ever. */
static NORETURN COLD void hang(void);
