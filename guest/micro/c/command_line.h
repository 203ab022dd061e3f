/* The kernel command line: which devices there are, and how to switch the machine off. */
#pragma once
#include "types.h"

#define COMMAND_LINE_DEVICES 16

/* virtio_mmio.device=SIZE@BASE:GSI, as Linux writes it. */
struct mmio_device {
    u64 base;
    u32 gsi;
};

/* NAME=ADDRESS:VALUE, a byte to write. */
struct register_write {
    bool given;
    u8 value;
    u64 address; /* a port; above 65535, in memory */
};

struct command_line {
    struct mmio_device devices[COMMAND_LINE_DEVICES];
    u32 device_count;
    struct register_write poweroff; /* vmoon.poweroff=ADDRESS:VALUE */
    struct register_write reset;    /* vmoon.reset=ADDRESS:VALUE */
    /* vmoon.edge: every notification of a device is a fresh edge, whether or not the one before
     * was acknowledged in InterruptStatus; the guest then spares the acknowledgement. */
    bool edge;
    /* vmoon.run=WORD,WORD,…: a command to run after booting, its output on the console. */
    const u8 *run;
    u32 run_length;
};

extern struct command_line command_line;

static void command_line_read(const u8 *text);
